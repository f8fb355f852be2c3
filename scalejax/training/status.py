"""The state of a run's folder: `status.json` while it is trained, `DONE` when it is
finished.

A folder without `DONE` can be trained further, whatever else it holds.
"""

import functools
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict, cast

import jax

from scalejax.files import read_json, write_json, write_text


class Environment(TypedDict):
    """What the bits of a result depend on besides the run itself."""

    devices: str
    threads: int | None
    jax: str
    machine: str
    cpu: str


class Status(TypedDict):
    """The content of status.json."""

    status: str
    """`running`, `done` or `diverged`."""
    started: str
    """Time of the first start."""
    placement: Environment
    """Where the folder is trained now."""
    placement_changed: bool
    """Whether some of its steps were trained in another environment."""


def open_folder(folder: Path) -> Status:
    """Write status.json at a start or a resume.

    Keeps the time of the first start, and notes when devices, threads, versions or the
    CPU differ from those of earlier steps: floating-point results may then differ, too.
    """
    (folder / "DONE").unlink(missing_ok=True)
    path, here = folder / "status.json", environment()
    status: Status = {
        "status": "running",
        "started": utc_now(),
        "placement": here,
        "placement_changed": False,
    }
    if path.exists():
        previous = cast(Status, read_json(path))
        status["started"] = previous["started"]
        moved = previous["placement"] != here
        status["placement_changed"] = previous["placement_changed"] or moved
    write_json(path, {**status})
    return status


def close_folder(folder: Path, status: Status, *, step: int, diverged: bool) -> None:
    """Write the final status.json, then `DONE`."""
    # Branches of a trunk read this: those of a diverged one are not trained.
    final = "diverged" if diverged else "done"
    write_json(folder / "status.json", {**status, "status": final, "step": step})
    # Written last: a kill before this line leaves a folder that can be trained further.
    write_text(folder / "DONE", utc_now() + "\n")


def environment() -> Environment:
    """Devices, threads, jax version and CPU of this process."""
    devices = jax.devices()
    # A worker pinned to one core has one thread, however many cores the machine has.
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "threads": threads,
        "jax": jax.__version__,
        "machine": platform.machine(),
        "cpu": _cpu_model(),
    }


def utc_now() -> str:
    """The time as ISO 8601, in UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@functools.cache
def _cpu_model() -> str:
    """The CPU's model name; outside Linux, what Python knows of it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().split("\n"):
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()
