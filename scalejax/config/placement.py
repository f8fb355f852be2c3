"""Where a run executes."""

import math
from dataclasses import dataclass

from scalejax.config.checks import check_interval, set_integer


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where and how a run executes. It is never part of a run's identity.

    A run uses data x fsdp x tensor devices.
    """

    data: int = 1
    """Number of parts that the batch is split into; each holds a copy of the
    parameters."""
    fsdp: int = 1
    """Number of further parts of the batch, over which the parameters are split too."""
    tensor: int = 1
    """Number of devices over which attention heads and MLP are split."""
    accumulate: int = 1
    """Microbatches per step, which save memory. Their gradients are summed over
    tokens."""
    checkpoint_seconds: float = 60.0
    """Seconds of training between checkpoints. One is always written at the end."""

    def __post_init__(self):
        for name in ("data", "fsdp", "tensor", "accumulate"):
            set_integer(self, name, 1)
        check_interval(self, "checkpoint_seconds", 0, math.inf, "()")
