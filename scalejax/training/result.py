"""What a finished run leaves: one row of the results table, written whole, with `DONE` last."""

import functools
import hashlib
import math
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scalejax.config import Measure, Placement
from scalejax.data.shards import Shards
from scalejax.files import read_json, write_json, write_text
from scalejax.grids import as_dict, flatten, from_dict, run_id
from scalejax.model.flops import PEAK_FLOPS, flops_6nd, mfu, training_flops
from scalejax.model.transformer import counts
from scalejax.training.segment import Job


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished run: `row` has the columns of results.parquet."""

    row: dict[str, Any]
    measure: Measure
    """What was measured; another Measure measures the run again."""

    @property
    def loss(self) -> float:
        """Held-out loss, nats per token; infinite for a run that diverged."""
        return self.row["loss"]

    def save(self, folder: Path) -> None:
        """Writes folder/result.json; numbers that are not finite are left out, JSON has none."""
        row = {
            name: value
            for name, value in self.row.items()
            if not (isinstance(value, float) and not math.isfinite(value))
        }
        write_json(folder / "result.json", {**row, "measure": as_dict(self.measure)})

    @classmethod
    def load(cls, folder: Path) -> "Result":
        """Reads folder/result.json; the loss of a diverged run is infinite."""
        row = read_json(folder / "result.json")
        measure = from_dict(Measure, row.pop("measure"))
        row.pop("format")
        if row["status"] == "diverged":
            row["loss"] = math.inf
        return cls(row=row, measure=measure)


def result_row(
    job: Job, shards: Shards, found: dict[str, float | None], status: dict[str, Any], **counted: Any
) -> dict[str, Any]:
    """The row of a run: its config flattened, its counts, and what was `found`; empty `found` means it diverged.

    Seconds are those of the whole loop, compilation and evaluations included: `mfu` is below that of the steps alone.
    """
    run = job.segment.run
    tokens = run.batch_schedule.tokens_after(counted["step"])
    size = counts(run.model)
    flops = training_flops(run.model, run.data.sequence_length, tokens)
    row = {
        "run": run_id(run),
        "study": job.study,
        "status": "done" if found else "diverged",
        **flatten(run),
    }
    row |= {
        "params": size.params,
        "params_non_embedding": size.params_non_embedding,
        "params_with_head": size.params_with_head,
    }
    row |= {"tokens": tokens, "tokens_skipped": counted["skipped"] * run.data.sequence_length}
    row |= {
        "epochs": counted["epochs"],
        "step": counted["step"],
        "flops": flops,
        "flops_6nd": flops_6nd(run.model, tokens),
    }
    row |= found or {"loss": math.inf}
    speed = tokens / max(counted["seconds"], 1e-9)
    row |= {"wall_seconds": counted["seconds"], "tokens_per_second": speed}
    if peak := peak_flops(job.placement):
        row |= {"mfu": mfu(run.model, run.data.sequence_length, speed, peak_flops=peak)}
    row |= {
        "devices": status["placement"]["devices"],
        "placement_changed": status["placement_changed"],
        "data_hash": shards.hash,
    }
    row |= {
        "code": code_version(),
        "jax": status["placement"]["jax"],
        "started": status["started"],
        "finished": now(),
    }
    return row


def peak_flops(placement: Placement) -> float:
    """FLOPs per second of the placement's devices together; 0 where PEAK_FLOPS does not know them, as on any CPU."""
    import jax

    devices = placement.data * placement.fsdp * placement.tensor
    return devices * PEAK_FLOPS.get(jax.devices()[0].device_kind, 0.0)


def mark_done(folder: Path) -> None:
    """The last file of a finished folder: without it the folder is resumable."""
    write_text(folder / "DONE", now() + "\n")


def now() -> str:
    """The time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def here() -> dict[str, Any]:
    """What the bits of a result depend on besides the run: devices, threads, jax, and the kind of CPU."""
    import jax

    devices = jax.devices()
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kinds = f"{len(devices)} x {devices[0].device_kind}"
    return {
        "devices": kinds,
        "threads": threads,
        "jax": jax.__version__,
        "machine": platform.machine(),
        "cpu": _cpu_kind(),
    }


@functools.cache
def code_version() -> str:
    """The package's version and the first 12 hex digits of the sha256 of its sources."""
    from scalejax import __version__

    digest = hashlib.sha256()
    root = Path(__file__).parent.parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"


@functools.cache
def _cpu_kind() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line for line in info.read_text().split("\n") if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0].split(":")[1].strip() if names else platform.processor()
