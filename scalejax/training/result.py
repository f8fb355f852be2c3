"""The result of a finished run: one row of the results table, stored as result.json."""

import functools
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax

from scalejax.config import Measure, Placement
from scalejax.data.shards import Shards
from scalejax.files import read_json, write_json
from scalejax.grids import as_dict, flatten, from_dict, run_id
from scalejax.model.flops import PEAK_FLOPS, flops_6nd, mfu, training_flops
from scalejax.model.transformer import counts
from scalejax.training.segment import TrainingJob
from scalejax.training.status import Status, utc_now

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
        """Read folder/result.json."""
        row = read_json(folder / "result.json")
        measure = from_dict(Measure, row.pop("measure"))
        row.pop("format")
        if row["status"] == "diverged":
            row["loss"] = math.inf
        return cls(row=row, measure=measure)


def is_finished(job: TrainingJob, folder: Path) -> bool:
    """Whether the folder is trained, and evaluated with the job's Measure."""
    if not (folder / "DONE").exists():
        return False
    # Trunks are never evaluated, so that no Measure can be out of date there.
    return not job.segment.final or Result.load(folder).measure == job.measure


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
    # that of the steps alone.
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
        "epochs": loop.epochs,
        "step": loop.step,
        "flops": training_flops(run.model, length, tokens),
        "flops_6nd": flops_6nd(run.model, tokens),
        **(scores or {"loss": math.inf}),
        "wall_seconds": loop.seconds,
        "tokens_per_second": tokens_per_second,
    }
    if peak := peak_flops(job.placement):
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


def allocator() -> str:
    """Return which memory allocator this process runs with: `mimalloc` or `system`."""
    maps = Path("/proc/self/maps")
    return "mimalloc" if maps.exists() and "libmimalloc" in maps.read_text() else "system"


def peak_flops(placement: Placement) -> float:
    """Peak FLOPs per second of the placement's devices together.

    0 when PEAK_FLOPS lacks this kind of device, as it does every CPU.
    """
    devices = placement.data * placement.fsdp * placement.tensor
    return devices * PEAK_FLOPS.get(jax.devices()[0].device_kind, 0.0)


@functools.cache
def code_version() -> str:
    """The package's version, and 12 hex digits of the sha256 of its source files."""
    from scalejax import __version__

    digest = hashlib.sha256()
    root = Path(__file__).parent.parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"
