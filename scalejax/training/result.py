"""The result of a finished run: one row of the results table, stored as result.json."""

import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from scalejax.config import Measure
from scalejax.data.shards import Shards
from scalejax.evaluation.run_metrics import tasks_hash
from scalejax.files import read_json, write_json, wrong_field
from scalejax.grids import as_dict, flatten, from_dict, run_id
from scalejax.model.flops import PEAK_FLOPS, flops_6nd, mfu, training_flops
from scalejax.model.transformer import counts
from scalejax.training.segment import TrainingJob
from scalejax.training.status import Status, check_seal, utc_now

# A run that skipped this share of its tokens or more has diverged: its weights are
# those of a much shorter run.
MOST_SKIPPED = 0.5

# The columns of results.parquet. Which ones a row has depends on what was evaluated.
ResultRow = dict[str, Any]


class RunCounts(NamedTuple):
    """What the training loop counted."""

    step: int
    """Steps taken, skipped ones included."""
    skipped: int
    """Sequences in skipped steps."""
    seconds: float
    """Time in the training loop, trunks, compilation and evaluations included."""
    epochs: float
    """Passes over the training data."""
    unique_tokens: int
    """Tokens that were read, each counted once however often it was repeated."""
    spike_score: float
    """See `metrics.spike_score`."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished run."""

    row: ResultRow
    """Its row of results.parquet."""
    measure: Measure
    """What was evaluated; under another Measure the run is evaluated again."""

    @property
    def loss(self) -> float:
        """Held-out loss in nats per token; infinite for a run that diverged."""
        return self.row["loss"]

    def save(self, folder: Path) -> None:
        """Write folder/result.json.

        Numbers that are not finite are left out, because JSON has none.
        """
        row = {
            name: value
            for name, value in self.row.items()
            if not isinstance(value, float) or math.isfinite(value)
        }
        write_json(folder / "result.json", {**row, "measure": as_dict(self.measure)})

    @classmethod
    def load(cls, folder: Path) -> "Result":
        """Read folder/result.json.

        Raises ValueError, naming the file, when it is damaged or was changed by hand.
        """
        path = folder / "result.json"
        row = read_json(path)
        del row["format"]
        try:
            measure = from_dict(Measure, row.pop("measure"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(_damaged(path, "measure")) from error
        if row.get("status") == "diverged":
            row["loss"] = math.inf
        if wrong := _wrong_field(row):
            raise ValueError(_damaged(path, wrong))
        check_seal(path)
        return cls(row=row, measure=measure)


def is_finished(job: TrainingJob, folder: Path) -> bool:
    """Whether the folder is trained, and evaluated with the job's Measure.

    Raises ValueError when it holds another run, such as a copied folder does.
    """
    if not (folder / "DONE").exists():
        return False
    job.check(folder)
    # Trunks are never evaluated, so that no Measure can be out of date there.
    if not job.segment.final:
        return True
    # Without a result the last checkpoint is evaluated again.
    if not (folder / "result.json").exists():
        return False
    result = Result.load(folder)
    if result.row["run"] != job.segment.id:
        raise ValueError(
            f"{folder / 'result.json'} is the result of run {result.row['run']}, but its folder "
            f"is that of run {job.segment.id}; delete the file and run again"
        )
    return result.measure == job.measure


def has_diverged(scores: Mapping[str, float | None], shards: Shards, skipped: float) -> bool:
    """Whether a finished run is of no use to a law.

    That is a run whose held-out loss is not below that of guessing, ln V for V token
    ids, and one that skipped MOST_SKIPPED of its tokens or more.

    scores: its held-out losses; empty when they are not finite.
    skipped: the share of its tokens that it skipped.
    """
    loss = scores.get("loss")
    # Weights that have exploded can give every token the same probability, and so ln V
    # up to rounding.
    return loss is None or loss >= math.log(shards.vocabulary) - 1e-5 or skipped >= MOST_SKIPPED


def result_row(
    job: TrainingJob,
    shards: Shards,
    scores: dict[str, float | None],
    status: Status,
    loop: RunCounts,
) -> ResultRow:
    """The results table's row of a finished run.

    `scores` are its losses and errors by column; empty when the run diverged.
    """
    run = job.segment.run
    length, tokens = run.data.sequence_length, run.batch_schedule.tokens_after(loop.step)
    size = counts(run.model)
    # Compilation and evaluations are part of the time, so that `mfu` is a little below
    # that of the steps.
    tokens_per_second = tokens / max(loop.seconds, 1e-9)
    row: ResultRow = {
        "run": run_id(run),
        "study": job.study,
        "status": "done" if scores else "diverged",
        **flatten(run),
        "params": size.params,
        "params_non_embedding": size.params_non_embedding,
        "params_with_head": size.params_with_head,
        # The tokens that were read: whole batches, and fewer of them after divergence.
        # They take the place of the planned `tokens` from `flatten`.
        "tokens": tokens,
        "tokens_skipped": loop.skipped * length,
        "unique_tokens": loop.unique_tokens,
        "spike_score": loop.spike_score,
        "epochs": loop.epochs,
        "step": loop.step,
        "flops": training_flops(run.model, length, tokens),
        "flops_6nd": flops_6nd(run.model, tokens),
        **(scores or {"loss": math.inf}),
        "wall_seconds": loop.seconds,
        "tokens_per_second": tokens_per_second,
    }
    if tasks := tasks_hash(job.measure):
        row["tasks_hash"] = tasks
    if peak := peak_flops(status["placement"]["devices"]):
        row["mfu"] = mfu(run.model, length, tokens_per_second, peak_flops=peak)
    return row | {
        "devices": status["placement"]["devices"],
        "allocator": allocator(),
        "placement_changed": status["placement_changed"],
        "data_hash": shards.hash,
        "code": code_version(),
        "jax": status["placement"]["jax"],
        "started": status["started"],
        "finished": utc_now(),
    }


def _wrong_field(row: ResultRow) -> str:
    """The first field of a result row that is missing or of the wrong kind, or ""."""
    number = (int, float)
    kinds = {"run": str, "study": str, "status": str, "step": int, "tokens": int, "loss": number}
    kinds |= {"params_with_head": int, "wall_seconds": number}
    if wrong := wrong_field(row, kinds):
        return wrong
    nested = [name for name, value in row.items() if isinstance(value, (dict, list))]
    if nested:
        return nested[0]
    return "" if row["status"] in ("done", "diverged") else "status"


def _damaged(path: Path, field: str) -> str:
    return (
        f"{path} is damaged: its field {field} is missing or has a value that it cannot have; "
        "delete the file and run again, which evaluates the last checkpoint anew"
    )


def allocator() -> str:
    """Return which memory allocator this process runs with: `mimalloc` or `system`."""
    maps = Path("/proc/self/maps")
    return "mimalloc" if maps.exists() and "libmimalloc" in maps.read_text() else "system"


def peak_flops(devices: str) -> float:
    """Peak FLOPs per second of devices together, given as `NUMBER x KIND`.

    0 when PEAK_FLOPS lacks this kind of device, as it does every CPU.

    >>> peak_flops("4 x TPU v5 lite") / peak_flops("1 x TPU v5 lite")
    4.0
    """
    number, _, kind = devices.partition(" x ")
    return int(number) * PEAK_FLOPS.get(kind, 0.0)


@functools.cache
def code_version() -> str:
    """The package's version, and 12 hex digits of the sha256 of its source files."""
    from scalejax import __version__

    digest = hashlib.sha256()
    root = Path(__file__).parent.parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"
