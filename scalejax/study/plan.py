"""The plan of a study: which segments to train, what they share and what they cost."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

import numpy as np

from scalejax.config import Run
from scalejax.grids import as_dict, canonical, run_id
from scalejax.optim.schedules import learning_rates
from scalejax.study.cost import run_flops, segment_flops
from scalejax.study.plan_warnings import plan_warnings
from scalejax.study.study import Study
from scalejax.training.segment import Segment, TrainingJob


class PlanSummary(TypedDict):
    """What `scalejax plan --json` prints and study.json stores."""

    study: str
    runs: int
    """Number of different runs, forecast ones included."""
    trunks: int
    """Number of segments that several runs share."""
    flops: int
    flops_separate: int
    saved_fraction: float
    warnings: list[str]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The segments of a study, every trunk before its branches."""

    study: Study
    segments: tuple[Segment, ...]

    @cached_property
    def by_folder(self) -> dict[str, Segment]:
        """Segments by their folder, relative to the study's folder."""
        return {segment.folder: segment for segment in self.segments}

    def needed(self, runs: Sequence[Run]) -> list[Segment]:
        """The segments that `runs` consist of, every trunk before its branches."""
        wanted: set[str] = set()
        for run in runs:
            # Walk from the end of the run to its start, or to a trunk that is listed.
            folder = f"runs/{run_id(run)}"
            while folder and folder not in wanted:
                wanted.add(folder)
                folder = self.by_folder[folder].parent
        return [segment for segment in self.segments if segment.folder in wanted]

    def jobs(self, runs: Sequence[Run]) -> list[TrainingJob]:
        """The jobs that finish `runs`, every trunk before its branches."""
        study = self.study
        return [
            TrainingJob(
                segment=segment, study=study.name, measure=study.measure, placement=study.placement
            )
            for segment in self.needed(runs)
        ]

    @property
    def flops(self) -> int:
        """Training FLOPs of the study; a shared prefix counts once."""
        return self.flops_of(self.segments)

    def flops_of(self, segments: Iterable[Segment]) -> int:
        """Training FLOPs of some of the segments."""
        return sum(segment_flops(segment) for segment in segments)

    @property
    def flops_separate(self) -> int:
        """Training FLOPs if every run were trained from its first step."""
        return sum(run_flops(segment.run) for segment in self.segments if segment.final)

    @property
    def saved_fraction(self) -> float:
        """Fraction of `flops_separate` that sharing prefixes saves."""
        return 1 - self.flops / self.flops_separate

    def summary(self) -> PlanSummary:
        """Counts, costs and warnings, as `scalejax plan --json` prints them."""
        runs = sum(segment.final for segment in self.segments)
        return {
            "study": self.study.name,
            "runs": runs,
            "trunks": len(self.segments) - runs,
            "flops": self.flops,
            "flops_separate": self.flops_separate,
            "saved_fraction": self.saved_fraction,
            "warnings": plan_warnings(self.study),
        }


def plan(study: Study) -> Plan:
    """Divide the runs of a study into segments; what runs share is trained once.

    Two runs share a prefix if and only if everything except schedule and tokens is
    equal and their learning rates are equal at every step of the prefix. Every run
    keeps at least its last step for itself, so a run is always a leaf and a trunk never
    is.
    """
    families: dict[str, list[Run]] = defaultdict(list)
    for run in {run_id(run): run for run in [*study.runs, *study.forecast]}.values():
        fields = as_dict(run)
        del fields["schedule"], fields["tokens"]
        families[repr(fields)].append(run)
    segments: list[Segment] = []
    for family in families.values():
        rates = {run_id(run): learning_rates(run) for run in family}
        # Sorted, so that the order in which a study lists its runs does not matter.
        segments += _branch(sorted(family, key=canonical), rates, start=0, parent="")
    return Plan(study=study, segments=tuple(segments))


def _branch(
    runs: list[Run], rates: dict[str, np.ndarray], *, start: int, parent: str
) -> list[Segment]:
    r"""Segments of runs that agree up to step `start`, where the trunk `parent` ends.

    The runs are trained together until their learning rates part. There they are
    divided into groups whose next rate is equal, and each group is treated in the same
    way. Three cooldowns off one constant rate, for example, give two trunks and three
    runs:

        learning rate              segments

        A  ____                    0 ── trunk 1 ─┬─ A
               \                                 │
        B  _________                             └─ trunk 2 ─┬─ B
                    \                                        │
        C  ______________                                    └─ C
                         \

    rates: learning rate of every step, float32 [steps], by the id of the run.
    parent: folder of the trunk; empty if `start` is 0.
    """
    if len(runs) == 1:
        return [Segment(run=runs[0], start=start, stop=runs[0].steps, parent=parent)]
    stop = _first_difference([rates[run_id(run)] for run in runs], start)
    segments = []
    # Runs that part at their first step have no trunk.
    if stop > start:
        trunk = Segment(run=runs[0], start=start, stop=stop, parent=parent, final=False)
        segments, parent = [trunk], trunk.folder
    groups: dict[str | float, list[Run]] = defaultdict(list)
    for run in runs:
        # A run's last step belongs to it alone, even if another run has the same rate
        # there: otherwise the run that ends would be a trunk of the one that goes on.
        is_last_step = run.steps == stop + 1
        groups[run_id(run) if is_last_step else float(rates[run_id(run)][stop])].append(run)
    for group in groups.values():
        segments += _branch(group, rates, start=stop, parent=parent)
    return segments


def _first_difference(rates: list[np.ndarray], start: int) -> int:
    """The first step from `start` on at which the rates differ.

    If they never differ, it is the last step of the shortest run.
    """
    last_step = min(len(r) for r in rates) - 1
    agree = np.all([r[start:last_step] == rates[0][start:last_step] for r in rates], axis=0)
    return last_step if agree.all() else start + int(np.argmin(agree))
