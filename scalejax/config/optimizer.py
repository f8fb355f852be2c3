"""The optimizer and its hyperparameters."""

import math
from dataclasses import dataclass

from scalejax.config.checks import check_choice, check_unused, require, set_float32

# The fields that each optimizer uses, besides those that all of them use:
# learning_rate, weight_decay, decay, clip and z_loss.
OPTIMIZER_FIELDS: dict[str, set[str]] = {
    "adamw": {"beta1", "beta2", "epsilon"},
    "lion": {"beta1", "beta2"},
    "muon": {"beta1", "beta2", "epsilon", "momentum"},
    "schedule-free-adamw": {"beta1", "beta2", "epsilon"},
}


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """An optimizer and its hyperparameters.

    The numbers are traced arrays of the compiled step, so one compilation serves a
    whole sweep over them.
    """

    name: str = "adamw"
    """`adamw`, `lion`, `muon` (for hidden matrices, with AdamW for the other tensors)
    or `schedule-free-adamw`."""
    learning_rate: float
    """Peak learning rate."""
    beta1: float = 0.9
    """Decay of the first moment per step. Under `schedule-free-adamw` it is the weight
    of the average in the parameters at which gradients are taken."""
    beta2: float = 0.98
    """Decay of the second moment per step. Under `lion` it is the decay of the
    momentum, for which 0.99 is usual."""
    epsilon: float = 1e-8
    """Added to the square root of the second moment."""
    momentum: float = 0.95
    """Decay of Muon's momentum per step."""
    weight_decay: float = 0.0
    """Weight decay of matrices, in the units that `decay` sets. Embeddings and the
    gains of norms are not decayed."""
    decay: str = "independent"
    """What weight decay is multiplied by at each step. `independent`: the learning rate
    divided by its peak. `standard`: the learning rate, as in PyTorch's AdamW."""
    clip: float = 1.0
    """Maximum of the global gradient norm; 0 disables clipping."""
    z_loss: float = 0.0
    """Weight of log(Z)^2 in the training loss; 1e-4 is usual."""

    def __post_init__(self):
        check_choice(self, "name", OPTIMIZER_FIELDS)
        check_unused(self, self.name, "optimizer", OPTIMIZER_FIELDS)
        set_float32(self, "learning_rate", 0, math.inf, "()")
        set_float32(self, "beta1", 0, 1, "()" if self.name == "schedule-free-adamw" else "[)")
        set_float32(self, "momentum", 0, 1, "[)")
        set_float32(self, "beta2", 0, 1, "[)")
        set_float32(self, "epsilon", 0, 1, "()")
        for name in ("weight_decay", "clip", "z_loss"):
            set_float32(self, name, 0, math.inf, "[)")
        require(
            self.decay in ("independent", "standard"),
            f"Optimizer.decay must be `independent` or `standard`; got {self.decay!r}",
        )
