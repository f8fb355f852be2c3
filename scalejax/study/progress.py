"""Progress of a study on standard error: a bar on a terminal, plain lines elsewhere; tokens per second and the time left."""

import sys
import time
from typing import Any

from scalejax.study.plan import Plan, segment_flops
from scalejax.training.segment import Segment

LINE_SECONDS = 10
"""Between plain lines, when standard error is not a terminal."""
SURE_SECONDS = 10
"""Of training before the time left is told: the first steps still compile."""


class Progress:
    """Follows the segments of a plan, in FLOPs: the time left is what is left to train at the rate of this call."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.total = plan.flops
        self.runs = sum(segment.final for segment in plan.segments)
        self.ended: set[str] = set()
        self.steps: dict[str, int] = {}
        """Steps trained so far by segment."""
        self.first: dict[str, int] = {}
        """Step at which this call took each segment up."""
        self.begun: float | None = None
        """When the first step of this call was seen."""
        self.printed = time.monotonic()
        self.losses: dict[str, float] = {}
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TaskProgressColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = [
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[note]}"),
            ]
            self.bar = Bar(*columns, console=Console(stderr=True))
            self.task = self.bar.add_task(self.plan.study.name, total=self.total, note="")
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def say(self, text: str) -> None:
        """A line of its own."""
        if self.bar:
            self.bar.console.print(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def step(self, segment: Segment, step: int, loss: float) -> None:
        """A metrics row of a segment in training."""
        self.begun = self.begun or time.monotonic()
        self.first.setdefault(segment.folder, step)  # a resumed segment did not begin at its start
        self.steps[segment.folder] = step
        self.losses[segment.folder] = loss
        self._show()

    def end(self, segment: Segment) -> None:
        """A segment is done; one that was done before this call counts as done, not as work."""
        if segment.folder not in self.first:
            self.first[segment.folder] = segment.stop
        self.steps[segment.folder] = segment.stop
        self.ended.add(segment.folder)
        if segment.final and self.first[segment.folder] < segment.stop:
            size = f"width {segment.run.model.width}, depth {segment.run.model.depth}"
            self.say(
                f"  run {segment.id} done: {size}, {segment.run.tokens:.3g} tokens ({self._runs_done()} of {self.runs} runs)"
            )
        self._show()

    def _show(self) -> None:
        if self.bar:
            self.bar.update(self.task, completed=self._flops(), note=self._note())
        elif time.monotonic() - self.printed > LINE_SECONDS:
            self.printed = time.monotonic()
            self.say(
                f"{self.plan.study.name}: {100 * self._flops() / self.total:.0f}% of the FLOPs, {self._note()}"
            )

    def _note(self) -> str:
        runs = f"{self._runs_done()} of {self.runs} runs"
        seconds = time.monotonic() - self.begun if self.begun else 0.0
        worked = self._flops(of_this_call=True)
        if seconds < SURE_SECONDS or not worked:
            return runs
        left = (self.total - self._flops()) * seconds / worked
        return f"{runs}, {self._tokens() / seconds:,.0f} tokens/s, {left // 60:.0f} min {left % 60:02.0f} s left"

    def _flops(self, *, of_this_call: bool = False) -> float:
        done = 0.0
        for folder, step in self.steps.items():
            segment = self.plan.by_folder[folder]
            begin = self.first[folder] if of_this_call else segment.start
            done += (
                segment_flops(segment)
                * segment.tokens(begin, step)
                / segment.tokens(segment.start, segment.stop)
            )
        return done

    def _tokens(self) -> int:
        return sum(
            self.plan.by_folder[folder].tokens(self.first[folder], step)
            for folder, step in self.steps.items()
        )

    def _runs_done(self) -> int:
        return sum(self.plan.by_folder[folder].final for folder in self.ended)
