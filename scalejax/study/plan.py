"""The plan of a study: which segments to train, what they share and what they cost."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import TypedDict

import numpy as np

from scalejax.config import Run
from scalejax.grids import canonical, run_id
from scalejax.optim.schedules import learning_rates
from scalejax.study.cost import run_flops, segment_flops
from scalejax.study.plan_warnings import plan_warnings
from scalejax.study.study import Study
from scalejax.training.segment import RUN_ID, Segment, TrainingJob

# Ids have 64 bits. Two runs share one by bad luck only, and any change mends it.
NEW_IDS = "change the seed of one of them, which gives it another id"


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
                folder = self.by_folder[folder].needs
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

    def trunk_of(self, run: Run) -> str:
        """The id of the trunk that a run was cut from; a run of its own is its trunk.

        Trunks can be cut from each other; this is the first of them. Runs that share it
        share its noise. What is less than half of each run that shares it, such as a
        warmup, makes no trunk: most of the noise is each run's own.
        """
        segment = self.by_folder[f"runs/{run_id(run)}"]
        trunk = segment.id
        while segment.parent:
            segment = self.by_folder[segment.parent]
            if segment.stop >= self._shortest_runs[segment.folder] / 2:
                trunk = segment.id
        return trunk

    @cached_property
    def _shortest_runs(self) -> dict[str, int]:
        """Steps of the shortest run that each segment is a part of, by its folder."""
        steps = {segment.folder: segment.run.steps for segment in self.segments if segment.final}
        for segment in reversed(self.segments):
            if segment.parent:
                own = steps[segment.folder]
                steps[segment.parent] = min(own, steps.get(segment.parent, own))
        return steps

    @cached_property
    def flops(self) -> int:
        """Training FLOPs of the study; a shared prefix counts once."""
        return self.flops_of(self.segments)

    def flops_of(self, segments: Iterable[Segment]) -> int:
        """Training FLOPs of some of the segments."""
        return sum(segment_flops(segment) for segment in segments)

    @cached_property
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

    Raises ValueError when two different runs, or trunks, have one id.
    """
    shared_fields = [
        field.name for field in fields(Run) if field.name not in ("schedule", "tokens")
    ]
    runs_by_id = _by_id([*study.runs, *study.forecast])
    _check_starts(runs_by_id)
    families: dict[tuple[object, ...], list[Run]] = defaultdict(list)
    for run in runs_by_id.values():
        families[tuple(getattr(run, name) for name in shared_fields)].append(run)
    segments = [segment for family in families.values() for segment in _divide(family)]
    planned = Plan(study=study, segments=tuple(segments))
    if len(planned.by_folder) < len(segments):
        raise ValueError(f"two trunks of the study {study.name} have one id; {NEW_IDS}")
    return planned


def _by_id(runs: Iterable[Run]) -> dict[str, Run]:
    """Different runs by their ids. Raises ValueError when two of them have one id."""
    by_id: dict[str, Run] = {}
    for run in runs:
        other = by_id.setdefault(run_id(run), run)
        if other is not run and canonical(other) != canonical(run):
            raise ValueError(
                f"two different runs have the id {run_id(run)}, and would share a folder: "
                f"{canonical(other)} and {canonical(run)}; {NEW_IDS}"
            )
    return by_id


def _check_starts(runs_by_id: dict[str, Run]) -> None:
    """Raise ValueError if a run is to begin from a run that is not in the study."""
    for run in runs_by_id.values():
        if RUN_ID.fullmatch(run.start) and run.start not in runs_by_id:
            raise ValueError(
                f"Run.start is the id {run.start}, but the study has no such run; add it to the "
                "study, or give the path of its folder"
            )


def _divide(family: list[Run]) -> Iterator[Segment]:
    r"""The segments of runs that differ only in schedule and tokens, trunks first.

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
    """
    # Each run is a string of rates. Once the strings are sorted, what any of them have
    # in common is the least that two neighbours among them have in common. This takes
    # one comparison per run, where comparing all runs at every branch is quadratic.
    # Big-endian bytes of numbers above 0 sort like the numbers. Ids break ties, so that
    # the order in which a study lists its runs does not matter.
    rates = {run_id(run): learning_rates(run) for run in family}
    runs = sorted(
        family, key=lambda run: (rates[run_id(run)][:-1].astype(">f4").tobytes(), run_id(run))
    )
    shared = np.array(
        [_shared_steps(rates[run_id(one)], rates[run_id(two)]) for one, two in pairwise(runs)], int
    )
    # (first run, one past the last run, step at which their trunk ends, trunk's folder)
    groups = [(0, len(runs), 0, "")]
    while groups:
        first, last, start, parent = groups.pop()
        run = runs[first]
        if last - first == 1:
            yield Segment(run=run, start=start, stop=run.steps, parent=parent)
            continue
        within_group = shared[first : last - 1]
        stop = int(within_group.min())
        # Runs that part at their first step have no trunk.
        if stop > start:
            trunk = Segment(run=run, start=start, stop=stop, parent=parent, final=False)
            yield trunk
            parent = trunk.folder
        cuts = [first, *(first + 1 + np.flatnonzero(within_group == stop)).tolist(), last]
        # The last group that is pushed is the next one to be divided.
        groups += [(low, high, stop, parent) for low, high in reversed(list(pairwise(cuts)))]


def _shared_steps(one: np.ndarray, two: np.ndarray) -> int:
    """The number of steps from the first on that two runs share, from their rates.

    A run's last step belongs to it alone, even if another run has the same rate there:
    otherwise the run that ends would be a trunk of the one that goes on.
    """
    length = min(len(one), len(two)) - 1
    differ = one[:length] != two[:length]
    return int(np.argmax(differ)) if differ.any() else length
