"""A study, and its plan: which segments to train, what they share, what they cost; before a FLOP is spent."""

import contextlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from scalejax.config import Data, Measure, Placement, Run
from scalejax.data import preparation
from scalejax.grids import as_dict, canonical, run_id
from scalejax.model.flops import training_flops
from scalejax.model.transformer import counts
from scalejax.optim.schedules import learning_rates
from scalejax.training.segment import Segment


@dataclass(frozen=True)
class Study:
    """One question: its runs, the runs to forecast, and the laws to fit. `runs` are trained and fitted first.

    Raises ValueError on a name that is not `name@version`, on no runs, on a batch that the placement does not divide, and on a
    run to forecast that is also fitted.
    """

    name: str
    """`name@version`; a new version is a new folder."""
    runs: Sequence[Run]
    """Trained and fitted. Runs given twice are trained once."""
    forecast: Sequence[Run] = ()
    """Predicted by every law of the loss, then trained, then scored."""
    laws: Sequence[Any] = ()
    """Such as `laws.chinchilla()`."""
    measure: Measure = field(default_factory=Measure)
    placement: Placement = field(default_factory=Placement)
    bootstrap: int = 1000
    """Draws behind every interval."""

    def __post_init__(self):
        if not re.fullmatch(r"[A-Za-z0-9_.-]+@[0-9]+", self.name):
            raise ValueError(
                f"a study is named `name@version`, such as `quickstart@1`; got {self.name!r}"
            )
        if not self.runs:
            raise ValueError(f"study {self.name} has no runs")
        for group, runs in (("runs", self.runs), ("forecast", self.forecast)):
            if strays := [run for run in runs if not isinstance(run, Run)]:
                raise ValueError(
                    f"study {self.name}: {group} must be Run values; got {strays[0]!r}"
                )
        parts = self.placement.data * self.placement.fsdp * self.placement.accumulate
        if odd := [run for run in [*self.runs, *self.forecast] if run.first_batch_sequences % parts]:
            raise ValueError(
                f"study {self.name}: Placement wants batches in data x fsdp x accumulate = {parts} equal parts; "
                f"run {run_id(odd[0])} has {odd[0].first_batch_sequences} sequences in its smallest batch"
            )
        if both := {run_id(run) for run in self.runs} & {run_id(run) for run in self.forecast}:
            raise ValueError(
                f"study {self.name}: run {min(both)} is among both the fitted runs and the forecast ones"
            )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Segments in an order in which each stands after its trunk."""

    study: Study
    segments: tuple[Segment, ...]

    @cached_property
    def by_folder(self) -> dict[str, Segment]:
        """Segments by their folder."""
        return {segment.folder: segment for segment in self.segments}

    def needed(self, runs: Sequence[Run]) -> list[Segment]:
        """The segments that `runs` need, trunks first."""
        wanted: set[str] = set()
        for run in runs:
            folder = f"runs/{run_id(run)}"
            while folder and folder not in wanted:
                wanted.add(folder)
                folder = self.by_folder[folder].parent
        return [segment for segment in self.segments if segment.folder in wanted]

    @property
    def flops(self) -> int:
        """Training FLOPs, shared prefixes counted once."""
        return sum(segment_flops(segment) for segment in self.segments)

    @property
    def flops_separate(self) -> int:
        """Training FLOPs if every run were trained from scratch."""
        finals = (segment.run for segment in self.segments if segment.final)
        return sum(
            training_flops(run.model, run.data.sequence_length, run.tokens_read) for run in finals
        )

    @property
    def saved(self) -> float:
        """Share of the FLOPs that shared prefixes save."""
        return 1 - self.flops / self.flops_separate

    def summary(self) -> dict[str, Any]:
        """What `scalejax plan --json` prints and study.json keeps."""
        runs, trunks = (sum(s.final is final for s in self.segments) for final in (True, False))
        cost = {
            "flops": self.flops,
            "flops_separate": self.flops_separate,
            "saved_fraction": self.saved,
        }
        return {
            "study": self.study.name,
            "runs": runs,
            "trunks": trunks,
            **cost,
            "warnings": self.warnings(),
        }

    def warnings(self) -> list[str]:
        """What would make the laws of this study hard to identify."""
        runs = self.study.runs
        sizes = [counts(run.model).params_with_head for run in runs]
        ratios = [run.tokens / size for run, size in zip(runs, sizes, strict=True)]
        names = [getattr(law, "name", "") for law in self.study.laws]
        found = []
        if "chinchilla" in names:
            if len(runs) > 2 and max(ratios) < 1.01 * min(ratios):
                found.append(
                    "tokens per parameter is constant: alpha and beta cannot be told apart; share budgets between sizes"
                )
            if len(set(sizes)) < 3:
                found.append(
                    f"{len(set(sizes))} model sizes: the exponent of size needs at least 3"
                )
            if len({run.tokens for run in runs}) < 3:
                found.append(
                    f"{len({run.tokens for run in runs})} token budgets: the exponent of tokens needs at least 3"
                )
        if len({run.schedule.warmup for run in runs}) > 1:
            found.append(
                "runs differ in warmup: compare at one warm-up in tokens, or tune it on purpose"
            )
        if (
            most := self.epochs()
        ) > 1.001:  # a budget rounded up to whole batches is no second epoch
            found.append(
                f"tokens are read up to {most:.3g} times: use more text, unless repetition is the question"
            )
        return found

    def epochs(self) -> float:
        """Largest number of passes of a run over its data, forecast runs among them; 0 while nothing of it is prepared."""
        longest: dict[Data, float] = {}
        for run in [*self.study.runs, *self.study.forecast]:
            longest[run.data] = max(run.tokens_read, longest.get(run.data, 0))
        passes = []
        for data, tokens in longest.items():
            with contextlib.suppress(
                ValueError
            ):  # a source that is not here: training says so, on the machine that trains
                passes.append(preparation.epochs(data, tokens) or 0)
        return max(passes, default=0)


def plan(study: Study) -> Plan:
    """The segments of a study: runs that differ only in schedule and tokens train their common prefix once.

    Two runs share a prefix iff everything but schedule and tokens is equal and their learning rates agree at every step of it.
    Every run keeps at least its last step for itself, so a run is always a leaf and a trunk never is.
    """
    unique = {run_id(run): run for run in [*study.runs, *study.forecast]}
    families: dict[str, list[Run]] = defaultdict(list)
    for run in unique.values():
        alike = {
            name: value
            for name, value in as_dict(run).items()
            if name not in ("schedule", "tokens")
        }
        families[repr(alike)].append(run)
    segments: list[Segment] = []
    for family in families.values():
        segments += _branch(
            sorted(family, key=canonical),
            {run_id(run): learning_rates(run) for run in family},
            0,
            "",
        )
    return Plan(study=study, segments=tuple(segments))


def segment_flops(segment: Segment) -> int:
    """Training FLOPs of a segment (exact matmul count with causal halving)."""
    run = segment.run
    return training_flops(
        run.model, run.data.sequence_length, segment.tokens(segment.start, segment.stop)
    )


def _branch(
    runs: list[Run], rates: dict[str, np.ndarray], start: int, parent: str
) -> list[Segment]:
    """Segments of runs that agree up to `start`: their common trunk, then each branch."""
    if len(runs) == 1:
        return [Segment(run=runs[0], start=start, stop=runs[0].steps, parent=parent)]
    stop = _common_steps([rates[run_id(run)] for run in runs], start)
    segments = []
    if stop > start:
        trunk = Segment(run=runs[0], start=start, stop=stop, parent=parent, final=False)
        segments, parent = [trunk], trunk.folder
    groups: dict[Any, list[Run]] = defaultdict(list)
    for run in runs:
        last = run.steps == stop + 1  # its last step is its own
        groups[run_id(run) if last else float(rates[run_id(run)][stop])].append(run)
    return segments + [
        segment for group in groups.values() for segment in _branch(group, rates, stop, parent)
    ]


def _common_steps(rates: list[np.ndarray], start: int) -> int:
    limit = min(len(r) for r in rates) - 1
    agree = np.all([r[start:limit] == rates[0][start:limit] for r in rates], axis=0)
    return limit if agree.all() else start + int(np.argmin(agree))
