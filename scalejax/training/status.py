"""The state of a run's folder, as its files `status.json` and `DONE` record it.

`status.json` is written while the run is trained, and `DONE` when it is finished. A
folder without `DONE` can be trained further, whatever else it holds.
"""

import functools
import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import jax

from scalejax.config import Placement
from scalejax.files import check_fence, read_json, sha256, write_json, write_text, wrong_field
from scalejax.training import distributed

# The files of a finished run whose hashes are in DONE.
SEALED = ("result.json", "metrics.jsonl")

# How a status and a result name devices: `8 x TPU v5 lite`.
DEVICES = re.compile(r"[1-9][0-9]{0,9} x .+")

# The other fields of a Placement change no bit of a step.
SPLIT = ("data", "fsdp", "tensor", "accumulate", "remat", "scan_layers")


class Environment(TypedDict):
    """What the bits of a result depend on besides the run itself."""

    devices: str
    """Those of the run's mesh, as `NUMBER x KIND`."""
    visible: int
    """Number of devices of all processes. On a CPU, XLA starts threads for each."""
    split: dict[str, int | str | bool]
    """The fields of the Placement that change how a step is computed."""
    threads: int | None
    processes: int
    jax: str
    machine: str
    cpu: str
    population: NotRequired[int]
    """Number of runs that are trained as one program; absent for a run by itself."""


class Status(TypedDict):
    """The content of status.json."""

    status: str
    """`running`, `done` or `diverged`."""
    started: str
    """Time of the first start."""
    placement: Environment
    """Where its steps are trained, or were trained last."""
    placement_changed: bool
    """Whether some of its steps, those of its trunks included, were trained in another
    environment."""
    data_hash: str
    """Hash of the data that it is trained on."""
    saved: int
    """Step of its last checkpoint, 0 before the first."""


def read_status(folder: Path) -> Status | None:
    """Read status.json; None when the folder has none yet.

    Raises ValueError when the file is damaged.
    """
    path = folder / "status.json"
    if not path.exists():
        return None
    content = read_json(path)
    kinds = {"started": str, "placement": dict, "placement_changed": bool}
    kinds |= {"data_hash": str, "saved": int}
    damaged = wrong_field(content, kinds)
    damaged = damaged or wrong_field(content["placement"], {"devices": str, "jax": str, "cpu": str})
    # A result has these in its row.
    if not damaged and not DEVICES.fullmatch(content["placement"]["devices"]):
        damaged = "devices"
    if damaged:
        raise ValueError(
            f"{path} is damaged: its field {damaged} is missing or has the wrong type; "
            "delete the run's folder to train it anew"
        )
    return cast(Status, content)


def check_data(folder: Path, status: Status | None, data_hash: str) -> None:
    """Raise ValueError when a folder was trained on other data than those at hand.

    Half of the steps on one corpus and half on another is a run that nobody asked for.
    """
    if status is not None and status["data_hash"] != data_hash:
        raise ValueError(
            f"{folder} was trained on data with the hash {status['data_hash']}, but the data at "
            f"hand have {data_hash}: restore the earlier data, or train in another folder (a "
            "study: under another version)"
        )


def open_folder(
    folder: Path,
    previous: Status | None,
    data_hash: str,
    here: Environment,
    *,
    trunk: Status | None = None,
    is_trained: bool = False,
) -> Status:
    """Write status.json at a start or a resume.

    Keeps the time of the first start, and notes when devices, threads, versions or the
    CPU differ from those of earlier steps: floating-point results may then differ, too.

    previous: the folder's status so far.
    here: the environment of this process.
    trunk: the status of the trunk that the segment begins from.
    is_trained: whether no step is left, as when a run is evaluated again.
    """
    status: Status = {
        "status": "running",
        "started": utc_now(),
        "placement": here,
        "placement_changed": False,
        "data_hash": data_hash,
        "saved": 0,
    }
    if previous is not None:
        status["started"], status["saved"] = previous["started"], previous["saved"]
    if (before := previous or trunk) is not None:
        # The speed of a run, in its result, is that of the devices that trained it.
        if is_trained:
            status["placement"] = before["placement"]
        moved = before["placement"] != status["placement"]
        status["placement_changed"] = before["placement_changed"] or moved
    if distributed.is_main():
        check_fence()
        (folder / "DONE").unlink(missing_ok=True)
        write_json(folder / "status.json", {**status})
    return status


def record_checkpoint(folder: Path, status: Status, step: int) -> None:
    """Note in status.json that the checkpoint of `step` is complete.

    A later start can then tell a run whose checkpoints were lost from a run that was
    killed before its first one.
    """
    status["saved"] = step
    if distributed.is_main():
        write_json(folder / "status.json", {**status})


def close_folder(folder: Path, status: Status, *, step: int, diverged: bool) -> None:
    """Write the final status.json, then `DONE` with the hashes of the other files."""
    if distributed.is_main():
        # Branches of a trunk read this: those of a diverged one are not trained.
        final = "diverged" if diverged else "done"
        write_json(folder / "status.json", {**status, "status": final, "step": step})
        # The lines of `sha256sum`, below the time.
        seals = [f"{sha256(folder / name)}  {name}" for name in SEALED if (folder / name).exists()]
        # Written last: a kill before this line leaves a folder that can be trained
        # further.
        write_text(folder / "DONE", "\n".join([utc_now(), *seals, ""]))
    distributed.wait_for_all(f"closed {folder}")


def check_seal(path: Path) -> None:
    """Raise ValueError when a file of a finished run is not the one that it ended with.

    A loss that was edited by hand, or a curve that was copied from another run, would
    otherwise enter every fit.
    """
    done = path.parent / "DONE"
    if not done.exists():
        return
    seals = [line.split() for line in done.read_text(errors="replace").split("\n")[1:]]
    sealed = {words[1]: words[0] for words in seals if len(words) == 2}
    if path.name in sealed and (not path.exists() or sealed[path.name] != sha256(path)):
        raise ValueError(
            f"{path} is not as the run left it: it was damaged or changed by hand; restore it, or "
            "delete it and run again, which evaluates the last checkpoint anew"
        )


def environment(placement: Placement, population: int = 1) -> Environment:
    """Devices, threads, jax version and CPU of this process.

    population: the number of runs that are trained as one program.
    """
    devices = jax.devices()
    # A worker pinned to one core has one thread, however many cores the machine has.
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    here: Environment = {
        "devices": f"{placement.devices} x {devices[0].device_kind}",
        "visible": len(devices),
        "split": {name: getattr(placement, name) for name in SPLIT},
        "threads": threads,
        "processes": jax.process_count(),
        "jax": jax.__version__,
        "machine": platform.machine(),
        "cpu": cpu_model(),
    }
    if population > 1:
        here["population"] = population
    return here


def utc_now() -> str:
    """The time as ISO 8601, in UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@functools.cache
def cpu_model() -> str:
    """The CPU's model name; outside Linux, what Python knows of it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().split("\n"):
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()
