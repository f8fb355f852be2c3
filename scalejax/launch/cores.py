"""How many workers a machine gets, and the core that each one is pinned to."""

import os
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
    is one worker that uses all of them.

    Raises ValueError if `devices` is below 1 or above the number of cores.
    """
    if has_accelerator() or placement.data * placement.fsdp * placement.tensor > 1:
        return [NOT_PINNED]
    cores = usable_cores()
    if devices is not None and not 1 <= devices <= len(cores):
        raise ValueError(
            f"--devices {devices}: this process may use {len(cores)} cores; "
            f"give a number from 1 to {len(cores)}"
        )
    return cores[:devices]


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
