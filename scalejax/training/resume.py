"""Where a segment's training continues: a checkpoint, its trunk's end, or step 0."""

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jax

from scalejax.files import check_fence, read_json
from scalejax.training import checkpoint, distributed
from scalejax.training.metrics import read_history
from scalejax.training.result import Result
from scalejax.training.segment import TrainingJob
from scalejax.training.status import Status
from scalejax.training.step import TrainState

log = logging.getLogger("scalejax")


@dataclass
class Progress:
    """How far training has come: everything that changes from step to step."""

    state: TrainState
    step: int = 0
    seconds: float = 0.0
    """Time spent in the training loop so far, including that of the trunks."""
    losses: list[jax.Array | float] = field(default_factory=list)
    """Training losses since the last metrics row; NaN for a skipped step."""
    diverged: bool = False
    code: frozenset[str] = frozenset()
    """Versions of the code that took the steps so far, trunks included."""


class StartingPoint(NamedTuple):
    """Where training continues."""

    progress: Progress
    history: str
    """The rows of metrics.jsonl up to this step."""


def starting_point(
    job: TrainingJob,
    folder: Path,
    parent: Path | None,
    initial: TrainState,
    data_hash: str,
    status: Status | None,
) -> StartingPoint:
    """Find where training continues: a checkpoint, the end of the trunk, or step 0.

    A resume restores the parameters, the optimizer state, the counters of skipped steps
    and the averages from the checkpoint's arrays; the time spent, the losses since the
    last metrics row and the position in metrics.jsonl from its notes. The data need
    nothing: the step says which rows come next. `status` is that of the folder.

    Raises ValueError when a requested average is missing from the checkpoint, and when
    the folder's checkpoints are lost.
    """
    if distributed.is_main():
        check_fence()
        checkpoint.clean(folder / "checkpoints")

    # What branches off a diverged trunk has diverged with it. The trunk has no
    # checkpoint then, or one that must not be continued.
    if parent is not None:
        end = read_json(parent / "status.json")
        if end.get("status") == "diverged":
            diverged = Progress(state=initial, step=end["step"], diverged=True)
            return StartingPoint(diverged, (parent / "metrics.jsonl").read_text("utf-8"))

    # The segment's own checkpoint is always further than its trunk's.
    sources = {folder: job.segment.id}
    if parent is not None:
        sources[parent] = Path(job.segment.parent).name
    for source, segment in sources.items():
        start = _restore(source, segment, initial, data_hash)
        if start is not None:
            return start

        # To start over would be correct but may cost days, which is for the user to
        # decide. A run that was killed before its first checkpoint simply starts over.
        if source == folder and status is not None and status["saved"]:
            raise checkpoint.CheckpointError(
                f"{folder} was trained to step {status['saved']}, but its checkpoints are gone: "
                "restore them, or delete the run's folder to train it anew"
            )

    if parent is not None:
        raise checkpoint.CheckpointError(
            f"the trunk in {parent} has no checkpoint; delete that folder and run again"
        )
    return StartingPoint(Progress(state=initial), history="")


def _restore(
    source: Path, segment: str, initial: TrainState, data_hash: str
) -> StartingPoint | None:
    """The last checkpoint in a segment's folder; None when it has none."""
    _check_averages(source, initial)
    like = checkpoint.abstract(initial)
    restored = checkpoint.restore(source / "checkpoints", like, segment, data_hash=data_hash)
    if restored is None:
        return None
    step, state, notes = restored
    progress = Progress(
        state=state,
        step=step,
        seconds=notes["seconds"],
        # JSON has no NaN: the loss of a skipped step is stored as null.
        losses=[math.nan if loss is None else loss for loss in notes["losses"]],
        code=frozenset(notes["code"]),
    )
    return StartingPoint(progress, read_history(source / "metrics.jsonl", notes["metrics"]))


def warn_of_missing_evaluations(job: TrainingJob, folder: Path, step: int) -> None:
    """Warn when `Measure.every` asks for losses along a run that is trained already."""
    path, every = folder / "result.json", job.measure.every
    if not every or step < job.segment.run.steps or not path.exists():
        return
    if Result.load(folder).measure.every != every:
        log.warning(
            "Measure.every is %d, but %s is trained already: its losses along the run cannot be "
            "measured any more, only those of the final weights; train it in another folder (a "
            "study: under another version) to measure them",
            every,
            folder,
        )


def _check_averages(folder: Path, initial: TrainState) -> None:
    """Raise ValueError when a requested average is missing from the checkpoints.

    Averages are taken at every step: a later one cannot start in the middle of a run.
    """
    arrays = checkpoint.array_names(folder / "checkpoints")
    missing = [
        name
        for name in initial.averages
        if not any(array.startswith(f".averages['{name}']") for array in arrays)
    ]
    if arrays and missing:
        raise ValueError(
            f"Measure.averages asks for {', '.join(missing)}, which {folder} was trained without, "
            "and only training takes averages: train in another folder (a study: under another "
            "version), or leave them out"
        )
