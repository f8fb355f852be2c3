"""Robust losses: what a residual costs.

All losses are Huber losses with other numbers, and compiled programs take the numbers
as data. So one program serves them all.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from scalejax.laws.law import AnyArray

# What a loss compares: "log" is log predicted - log observed, "raw" predicted -
# observed.
ResidualKind = Literal["log", "raw"]

# Least absolute deviations is solved as Huber with delta -> 0, each stage from the
# optimum of the one before. The last stage is within 2e-5 of the exact optimum.
LAD_DELTAS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A sum over rows of Huber(residual), in which over-predictions may weigh more.

    Huber: h(r) = r^2 / 2 if |r| <= delta, else delta (|r| - delta / 2). With infinite
    delta it is least squares.
    """

    name: str
    """As `parse_loss` reads it."""
    residual: ResidualKind
    """What the loss compares."""
    deltas: tuple[float, ...]
    """Widths of the Huber loss, solved one after the other; the last one is the
    loss."""
    over_weight: float = 1.0
    """Weight of an over-prediction, relative to an under-prediction."""
    normalizer: float = 1.0
    """Objectives are reported in this unit: with 1/2, least squares reports the sum of
    squares, and not half of it."""

    @property
    def stages(self) -> tuple["Huber", ...]:
        """One Huber loss for each of `deltas`."""
        over_weight = np.float64(self.over_weight)
        return tuple(Huber(np.float64(delta), over_weight) for delta in self.deltas)


class Huber(NamedTuple):
    """The Huber loss of width `delta` whose positive side weighs `over_weight` times.

    A pytree, so that programs are compiled for all widths and weights at once. Its
    methods take residuals of any shape.
    """

    delta: Array | np.float64
    over_weight: Array | np.float64

    def cost(self, r: Float[AnyArray, "..."]) -> Float[Array, "..."]:
        """The loss itself."""
        size = jnp.abs(r)
        inside, outside = r * r / 2, self.delta * (size - self.delta / 2)
        return self._side(r) * jnp.where(size <= self.delta, inside, outside)

    def slope(self, r: Float[AnyArray, "..."]) -> Float[Array, "..."]:
        """First derivative of the loss."""
        return self._side(r) * jnp.clip(r, -self.delta, self.delta)

    def curvature(self, r: Float[AnyArray, "..."]) -> Float[Array, "..."]:
        """Second derivative of the loss, zero outside `delta`."""
        return self._side(r) * (jnp.abs(r) <= self.delta)

    def irls_weight(self, r: Float[AnyArray, "..."]) -> Float[Array, "..."]:
        """Weight of iteratively reweighted least squares: slope / r, positive."""
        return self._side(r) * jnp.minimum(1.0, self.delta / jnp.maximum(jnp.abs(r), 1e-300))

    def _side(self, r: Float[AnyArray, "..."]) -> Float[Array, "..."]:
        return jnp.where(r > 0, self.over_weight, 1.0)


def residuals(kind: ResidualKind, predicted: AnyArray, targets: AnyArray) -> Array:
    """Return predicted minus observed, of logarithms or of values; broadcasts."""
    if kind == "log":
        return jnp.log(predicted) - jnp.log(targets)
    return jnp.subtract(predicted, targets)


def parse_loss(text: str) -> Loss:
    """Parse huber:DELTA, lad, mse, log-mse or asymmetric:FACTOR.

    >>> parse_loss("huber:1e-3").deltas
    (0.001,)

    Raises ValueError for another name, or for a number that is not positive.
    """
    name, _, number = text.partition(":")
    match name, number:
        case "lad", "":
            # Huber(r) / delta tends to |r|.
            return Loss(name=text, residual="log", deltas=LAD_DELTAS, normalizer=LAD_DELTAS[-1])
        case "mse", "":
            return Loss(name=text, residual="raw", deltas=(np.inf,), normalizer=0.5)
        case "log-mse", "":
            return Loss(name=text, residual="log", deltas=(np.inf,), normalizer=0.5)
        case "huber", _:
            delta = _positive_number(text, number, default=1e-3)
            return Loss(name=text, residual="log", deltas=(delta,))
        case "asymmetric", _:
            factor = _positive_number(text, number, default=10.0)
            return Loss(name=text, residual="log", deltas=(1e-3,), over_weight=factor)
    raise ValueError(
        f"loss {text!r} is unknown; expected one of huber:1e-3, lad, mse, log-mse, asymmetric:10"
    )


def _positive_number(text: str, number: str, default: float) -> float:
    try:
        value = float(number) if number else default
    except ValueError:
        value = np.nan
    if not 0 < value < np.inf:
        raise ValueError(
            f"loss {text!r} has the number {number!r}; expected a positive number, as in "
            "huber:1e-3 or asymmetric:10"
        )
    return value
