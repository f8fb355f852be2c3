"""How many workers a machine gets, and the core that each one is pinned to."""

import fcntl
import os
import tempfile
from pathlib import Path

from scalejax.config import Placement

# The entry of a worker that is not pinned to a core, because it uses the accelerators
# or several virtual devices.
NOT_PINNED = -1

# Device files of NVIDIA GPUs, TPUs (two generations of drivers) and AMD GPUs.
ACCELERATOR_FILES = ("/dev/nvidia0", "/dev/accel0", "/dev/vfio/0", "/dev/kfd")


def worker_cores(devices: int | None, placement: Placement) -> list[int]:
    """One entry per worker: the core that it is pinned to, or NOT_PINNED.

    On CPU there is one worker per core, `devices` of them or one for every core that
    this process may use. With an accelerator, or a placement on several devices, there
    is one worker that uses all of them. With `devices` 0 there is none.

    Raises ValueError if `devices` is negative or above the number of cores.
    """
    if devices == 0:
        return []
    if has_accelerator() or placement.data * placement.fsdp * placement.tensor > 1:
        return [NOT_PINNED]
    cores = usable_cores()
    if devices is not None and not 1 <= devices <= len(cores):
        raise ValueError(
            f"--devices {devices}: this process may use {len(cores)} cores; "
            f"give a number from 1 to {len(cores)}, or 0 to train nothing in this process"
        )
    return cores[:devices]


def take_core() -> int:
    """Pin this process to a core that no other worker on this machine has, if any.

    Returns the core, or NOT_PINNED where processes cannot be pinned. The core is free
    again when the process ends, however it ends.
    """
    if not hasattr(os, "sched_setaffinity"):
        return NOT_PINNED
    cores = usable_cores()
    core = next((core for core in cores if _lock(core)), cores[-1])
    os.sched_setaffinity(0, {core})
    return core


def _lock(core: int) -> bool:
    """Lock a core for as long as this process lives; say whether that worked."""
    path = Path(tempfile.gettempdir()) / f"scalejax-{os.getuid()}-core-{core}.lock"
    # Never closed: the kernel releases the lock when the process has ended.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True


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
    return any(Path(path).exists() for path in ACCELERATOR_FILES)
