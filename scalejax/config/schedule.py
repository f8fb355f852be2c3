"""The learning-rate schedule."""

from dataclasses import dataclass
from itertools import pairwise

from scalejax.config.checks import (
    check_choice,
    check_unused,
    require,
    set_integer,
    set_number,
    set_numbers,
)

COOLDOWN_SHAPES = ("linear", "1-sqrt", "cosine", "mirror-cosine", "square", "exponential")

# The fields that each shape uses, besides the warmup.
SCHEDULE_FIELDS: dict[str, set[str]] = {
    "constant": set(),
    "linear": {"final"},
    "cosine": {"final"},
    "inverse_sqrt": set(),
    "multistep": {"milestones", "factor"},
    "cyclic": {"period", "final"},
    "wsd": {"cooldown", "cooldown_shape", "final"},
}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate of every step, as a fraction of the peak.

    Create one with the functions of `scalejax.optim.schedules`, such as `cosine(...)`.
    """

    shape: str
    """`constant`, `linear`, `cosine`, `inverse_sqrt`, `multistep`, `cyclic` or `wsd`
    (warmup, stable, decay: constant with a cooldown at the end)."""
    warmup: int
    """Tokens over which the learning rate rises from 0 to the peak."""
    warmup_shape: str = "linear"
    """`linear` or `cosine`."""
    cooldown: float = 0.0
    """Fraction of the run's tokens that the cooldown takes (wsd)."""
    cooldown_shape: str = "1-sqrt"
    """`linear`, `1-sqrt`, `cosine`, `mirror-cosine`, `square` or `exponential`
    (wsd)."""
    final: float = 0.0
    """Learning rate at the end of the run (linear, cosine, wsd) or at the bottom of
    every cycle (cyclic), as a fraction of the peak."""
    milestones: tuple[float, ...] = ()
    """Fractions of the run's tokens at which the learning rate drops (multistep)."""
    factor: float = 10**-0.5
    """Factor by which the learning rate is multiplied at each milestone (multistep)."""
    period: int = 0
    """Tokens from one peak to the next (cyclic)."""

    def __post_init__(self):
        set_numbers(self, "milestones", "fractions of the run")
        check_choice(self, "shape", SCHEDULE_FIELDS)
        check_unused(self, self.shape, "schedule", SCHEDULE_FIELDS)
        # Inverse square root decay starts from the warmup, so there must be one.
        set_integer(self, "warmup", 1 if self.shape == "inverse_sqrt" else 0)
        check_choice(self, "warmup_shape", ("linear", "cosine"))
        set_number(self, "cooldown", 0, 1, "[)")
        check_choice(self, "cooldown_shape", COOLDOWN_SHAPES)
        set_number(self, "final", 0, 1)
        set_number(self, "factor", 0, 1, "(]")
        set_integer(self, "period", 1 if self.shape == "cyclic" else 0)
        require(
            self.final > 0 or self.shape != "wsd" or self.cooldown_shape != "exponential",
            "Schedule.final must be above 0 for an exponential cooldown, which never reaches "
            "0; got 0",
        )
        require(
            self.shape != "multistep"
            or all(low < high for low, high in pairwise([0.0, *self.milestones, 1.0])),
            "Schedule.milestones must be increasing fractions of the run between 0 and 1; "
            f"got {self.milestones}",
        )
