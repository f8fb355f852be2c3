"""Robust losses: what a residual costs, as data that one compiled solver reads."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LAD_DELTAS = (
    1e-3,
    1e-4,
    1e-5,
    1e-6,
    1e-7,
)  # Huber with delta -> 0; the last is 2e-5 from the exact LAD optimum


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Sum over rows of Huber(delta) on a residual, over-predictions weighted `over` times, in units of 1/`units`.

    Huber: h(r) = r^2/2 if |r| <= delta, else delta (|r| - delta/2). Infinite delta is least squares.
    """

    name: str
    residual: str
    """log: log predicted - log observed; raw: predicted - observed."""
    deltas: tuple[float, ...]
    """Solved one after the other; the last one counts."""
    over_weight: float = 1.0
    normalizer: float = 1.0

    @property
    def stages(self) -> tuple["Huber", ...]:
        """One Huber per stage of the continuation."""
        return tuple(
            Huber(np.float64(delta), np.float64(self.over_weight)) for delta in self.deltas
        )


class Huber(NamedTuple):
    """Huber of width delta whose positive side weighs `over` times: traced, so all losses share a program."""

    delta: jax.Array | np.float64
    over_weight: jax.Array | np.float64

    def cost(self, r: jax.Array) -> jax.Array:
        size = jnp.abs(r)
        return self._side(r) * jnp.where(
            size <= self.delta, r * r / 2, self.delta * (size - self.delta / 2)
        )

    def slope(self, r: jax.Array) -> jax.Array:
        return self._side(r) * jnp.clip(r, -self.delta, self.delta)

    def curvature(self, r: jax.Array) -> jax.Array:
        return self._side(r) * (jnp.abs(r) <= self.delta)

    def irls_weight(self, r: jax.Array) -> jax.Array:
        """slope / r: the weight of iteratively reweighted least squares, positive everywhere."""
        return self._side(r) * jnp.minimum(1.0, self.delta / jnp.maximum(jnp.abs(r), 1e-300))

    def _side(self, r: jax.Array) -> jax.Array:
        return jnp.where(r > 0, self.over_weight, 1.0)


def parse_loss(text: str) -> Loss:
    """Reads huber:DELTA, lad, mse, log-mse or asymmetric:FACTOR.

    >>> parse_loss("huber:1e-3").deltas
    (0.001,)

    Raises ValueError for another name, or for a number that is not positive.
    """
    name, _, number = text.partition(":")
    match name, number:
        case "lad", "":
            return Loss(name=text, residual="log", deltas=LAD_DELTAS, normalizer=LAD_DELTAS[-1])
        case "mse", "":
            return Loss(name=text, residual="raw", deltas=(np.inf,), normalizer=0.5)
        case "log-mse", "":
            return Loss(name=text, residual="log", deltas=(np.inf,), normalizer=0.5)
        case "huber", _:
            return Loss(name=text, residual="log", deltas=(_positive(text, number, 1e-3),))
        case "asymmetric", _:
            return Loss(
                name=text, residual="log", deltas=(1e-3,), over_weight=_positive(text, number, 10.0)
            )
    raise ValueError(f"loss {text!r} is not one of huber:1e-3, lad, mse, log-mse, asymmetric:10")


def _positive(text: str, number: str, default: float) -> float:
    try:
        value = float(number) if number else default
    except ValueError:
        value = np.nan
    if not 0 < value < np.inf:
        raise ValueError(
            f"the number in loss {text!r} is positive, as in huber:1e-3 or asymmetric:10; got {number!r}"
        )
    return value
