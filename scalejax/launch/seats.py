"""What each worker of a machine uses: one core, or accelerators of its own."""

import fcntl
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scalejax.config import Placement

# The core of a worker that is not pinned, because it uses accelerators or several
# virtual devices.
NOT_PINNED = -1

# Device files of NVIDIA's GPUs, of TPUs (two generations of drivers) and of AMD's GPUs.
DEVICES = Path("/dev")
NVIDIA, TPU, AMD = r"nvidia(\d+)", r"(?:accel|vfio/)(\d+)", r"(kfd)"

# The flag of XLA that divides a CPU into devices.
VIRTUAL = "--xla_force_host_platform_device_count"

# How libtpu arranges the chips of a process that uses only some of its machine's.
TPU_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1"}


@dataclass(frozen=True)
class Seat:
    """What one worker uses of its machine."""

    name: str
    """Different for every worker of the machine; a part of file names."""
    core: int = NOT_PINNED
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that hide the accelerators of other workers from this one, or that
    give it virtual devices."""


def worker_seats(devices: int | None, placement: Placement) -> list[Seat]:
    """The seats of the workers that this machine has room for.

    With accelerators, each worker has as many of them as the placement needs. On CPU
    there is one worker per core, or a single one when the placement needs several
    virtual devices.

    devices: the largest number of accelerators or cores to use; 0 gives no seat, None
        uses all.
    Raises ValueError if `devices` is negative, more than there are, or fewer than one
    run needs, and if this machine has fewer than that.
    """
    if devices == 0:
        return []
    size = placement.devices
    if has_accelerator():
        ids = visible_accelerators()
        _check(devices, len(ids), "accelerators")
        if devices is not None and devices < size:
            raise ValueError(
                f"--devices {devices}: a run of this study uses {size} (Placement data x fsdp x "
                f"tensor); give a multiple of {size}, or change the placement"
            )
        # AMD's GPUs are not counted one by one.
        if size > len(ids) and not _numbers(AMD):
            raise ValueError(
                f"a run of this study uses {size} accelerators (data x fsdp x tensor), and "
                f"this process may use {len(ids)}; lower data, fsdp or tensor"
            )
        groups = [ids[i : i + size] for i in range(0, len(ids[:devices]) - size + 1, size)]
        if len(groups) > 1 or (groups and groups[0] != ids):
            return [Seat("-".join(group), environment=_hide_others(group)) for group in groups]
        # The one worker uses everything.
        return [Seat("0")]
    if size > 1:
        if devices is not None:
            raise ValueError(
                f"--devices {devices} is not used by a placement on {size} virtual devices, which "
                "has one worker on all cores; remove it"
            )
        return [Seat("0", environment=_virtual_devices(size))]
    cores = usable_cores()
    _check(devices, len(cores), "cores")
    return [Seat(str(core), core) for core in cores[:devices]]


def take_seat(placement: Placement) -> Seat:
    """Take a seat that no other worker on this machine has, and sit down.

    Pins this process to its core, or hides the accelerators of others from it; so it
    must be called before JAX looks for devices. The seat is free again when the process
    ends, however it ends. When every core has a worker, this one shares the last.

    Raises ValueError when every accelerator has a worker.
    """
    seats = worker_seats(None, placement)
    # Schedulers give each of their tasks one device, and may give all the same number:
    # what there is only once needs no lock.
    if len(seats) == 1 and seats[0].core == NOT_PINNED:
        os.environ.update(seats[0].environment)
        return seats[0]
    seat = next((seat for seat in seats if _lock(seat)), None)
    if seat is None and seats[-1].environment:
        raise ValueError(
            f"each of the {len(seats)} accelerators or groups of them on this machine has a "
            "worker already; start this one on another machine"
        )
    seat = seat or seats[-1]
    os.environ.update(seat.environment)
    pin(seat.core)
    return seat


def pin(core: int) -> None:
    """Pin this process to a core, unless that is NOT_PINNED or cannot be done here.

    To be called before jax is imported: jax starts as many threads as there are cores
    to run on, and XLA's results depend on that number in their last bits.
    """
    if core != NOT_PINNED and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def usable_cores() -> list[int]:
    """The CPU cores that this process may run on."""
    # macOS has no affinity: a worker cannot be pinned there, but the numbers still
    # count the workers.
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def has_accelerator() -> bool:
    """Whether jax would use a GPU or TPU on this machine.

    This looks at device files and does not ask jax. If the launcher initialized jax, it
    would hold the accelerator that its worker needs.
    """
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return False
    return any(_numbers(pattern) for pattern in (NVIDIA, TPU, AMD))


def visible_accelerators() -> list[str]:
    """The accelerators that this process may use, as JAX's variables name them."""
    # A scheduler, or the user, has chosen some of the GPUs.
    if _numbers(NVIDIA) and (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")):
        return chosen.split(",")
    if _numbers(TPU) and (chosen := os.environ.get("TPU_VISIBLE_CHIPS")):
        return chosen.split(",")
    # AMD's driver has one file for all GPUs: they count as one.
    return _numbers(NVIDIA) or _numbers(TPU) or _numbers(AMD)


def _hide_others(group: list[str]) -> dict[str, str]:
    """The variables that make JAX see only the accelerators of a group."""
    if _numbers(NVIDIA):
        return {"CUDA_VISIBLE_DEVICES": ",".join(group)}
    bounds = TPU_BOUNDS.get(len(group))
    if bounds is None:
        raise ValueError(
            f"this placement needs {len(group)} of the TPU chips of this machine; a process can "
            "use 1, 2, 4 or all of them"
        )
    return {
        "TPU_VISIBLE_CHIPS": ",".join(group),
        "TPU_CHIPS_PER_PROCESS_BOUNDS": bounds,
        "TPU_PROCESS_BOUNDS": "1,1,1",
    }


def _virtual_devices(count: int) -> dict[str, str]:
    """The variables that make JAX see a CPU as this many devices.

    A number of devices that the user has set is left as it is. Raises ValueError when
    there are too few.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    given = [int(number) for number in re.findall(rf"{VIRTUAL}=(\d+)", flags)]
    if given and given[-1] < count:
        raise ValueError(
            f"XLA_FLAGS divides the CPU into {given[-1]} devices, but a run of this study uses "
            f"{count} (Placement data x fsdp x tensor); unset it, or change the placement"
        )
    return {} if given else {"XLA_FLAGS": f"{flags} {VIRTUAL}={count}".strip()}


def _numbers(pattern: str) -> list[str]:
    """The numbers of the device files whose path in DEVICES matches, in order."""
    paths = [*DEVICES.glob("*"), *DEVICES.glob("vfio/*")]
    names = [path.relative_to(DEVICES).as_posix() for path in paths]
    matches = [match for name in names if (match := re.fullmatch(pattern, name))]
    return sorted((match[1] for match in matches), key=lambda number: (len(number), number))


def _check(devices: int | None, count: int, kind: str) -> None:
    if devices is not None and not 1 <= devices <= count:
        raise ValueError(
            f"--devices {devices}: this process may use {count} {kind}; "
            f"give a number from 1 to {count}, or 0 to train nothing in this process"
        )


def _lock(seat: Seat) -> bool:
    """Lock a seat for as long as this process lives; say whether that worked."""
    kind = "core" if seat.core != NOT_PINNED else "device"
    path = Path(tempfile.gettempdir()) / f"scalejax-{os.getuid()}-{kind}-{seat.name}.lock"
    # Never closed: the kernel releases the lock when the process has ended.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True
