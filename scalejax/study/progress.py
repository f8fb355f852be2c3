"""Progress of a study, on standard error.

A terminal shows a bar. Anything else, such as a log file, gets a plain line now and
then.
"""

import sys
import time
from typing import TYPE_CHECKING

from scalejax.study.cost import segment_flops
from scalejax.study.plan import Plan
from scalejax.training.segment import Segment

if TYPE_CHECKING:
    import rich.progress

# Time between two plain lines.
LINE_SECONDS = 10
# The remaining time is not shown before this much training. At first the step is still
# being compiled, so an estimate would be far too long.
ESTIMATE_AFTER_SECONDS = 10


class Progress:
    """Follows a plan while it is trained.

    Progress counts in FLOPs, because the steps of a large model take longer. The
    remaining time is the FLOPs that are left, at the mean speed of this call: segments
    that were trained by an earlier call count as done, but not as work of this one.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.total_flops = plan.flops
        self.runs = sum(segment.final for segment in plan.segments)
        self.done_folders: set[str] = set()
        self.first_step: dict[str, int] = {}
        """The step from which this call trains each segment, by folder."""
        self.last_step: dict[str, int] = {}
        """The step that each segment has reached, by folder."""
        self.training_since: float | None = None
        """When the first step of this call was reported, by the monotonic clock."""
        self.printed_at = time.monotonic()
        self.bar: rich.progress.Progress | None = None
        self.task: rich.progress.TaskID | None = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            self._show_bar()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def say(self, text: str) -> None:
        """Print a line of its own, above the bar if there is one."""
        if self.bar:
            self.bar.console.print(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def step(self, segment: Segment, step: int, loss: float) -> None:
        """Note that a segment in training has reached `step`."""
        self.training_since = self.training_since or time.monotonic()
        # The first report of a resumed segment is not at its start: count from there.
        self.first_step.setdefault(segment.folder, step)
        self.last_step[segment.folder] = step
        self._update()

    def done(self, segment: Segment) -> None:
        """Note that a segment is finished, by this call or an earlier one."""
        # A segment without a reported step was finished before: it is no work of this
        # call.
        self.first_step.setdefault(segment.folder, segment.stop)
        self.last_step[segment.folder] = segment.stop
        self.done_folders.add(segment.folder)
        if segment.final and self.first_step[segment.folder] < segment.stop:
            model, tokens = segment.run.model, segment.run.tokens
            self.say(
                f"  run {segment.id} done: width {model.width}, depth {model.depth}, "
                f"{tokens:.3g} tokens ({self._runs_done()} of {self.runs} runs)"
            )
        self._update()

    def _show_bar(self) -> None:
        # Not at the top: rich takes a while to import, and only a terminal needs it.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self.task = self.bar.add_task(self.plan.study.name, total=self.total_flops, note="")
        self.bar.start()

    def _update(self) -> None:
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=self._flops_done(), note=self._note())
        elif time.monotonic() - self.printed_at > LINE_SECONDS:
            self.printed_at = time.monotonic()
            percent = 100 * self._flops_done() / self.total_flops
            self.say(f"{self.plan.study.name}: {percent:.0f}% of the FLOPs, {self._note()}")

    def _note(self) -> str:
        """Runs done, tokens per second and the remaining time."""
        runs = f"{self._runs_done()} of {self.runs} runs"
        seconds = time.monotonic() - self.training_since if self.training_since else 0.0
        flops_of_this_call = self._flops_of_this_call()
        if seconds < ESTIMATE_AFTER_SECONDS or not flops_of_this_call:
            return runs
        left = (self.total_flops - self._flops_done()) * seconds / flops_of_this_call
        speed = self._tokens_of_this_call() / seconds
        return f"{runs}, {speed:,.0f} tokens/s, {left // 60:.0f} min {left % 60:02.0f} s left"

    def _flops_done(self) -> float:
        return sum(
            self._flops(folder, self.plan.by_folder[folder].start, step)
            for folder, step in self.last_step.items()
        )

    def _flops_of_this_call(self) -> float:
        return sum(
            self._flops(folder, self.first_step[folder], step)
            for folder, step in self.last_step.items()
        )

    def _flops(self, folder: str, start: int, stop: int) -> float:
        """FLOPs of steps start..stop of a segment, in proportion to their tokens."""
        segment = self.plan.by_folder[folder]
        tokens = segment.tokens(segment.start, segment.stop)
        return segment_flops(segment) * segment.tokens(start, stop) / tokens

    def _tokens_of_this_call(self) -> int:
        return sum(
            self.plan.by_folder[folder].tokens(self.first_step[folder], step)
            for folder, step in self.last_step.items()
        )

    def _runs_done(self) -> int:
        return sum(self.plan.by_folder[folder].final for folder in self.done_folders)
