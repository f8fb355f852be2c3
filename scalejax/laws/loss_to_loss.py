"""A loss on one corpus from the loss on another (Brandfonbrener et al. 2024)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Real

from scalejax.laws.law import OFFSET, Coordinate, Linear, Number, ParametricLaw, scale

# The least distance of a loss from E0, relative to E0: below E0 the law has no value.
LEAST_EXCESS = 1e-9


class LossToLoss(NamedTuple):
    """L1(L0) = E1 + K (L0 - E0)^kappa, a shifted power law (arXiv 2411.12925).

    L0: loss on one corpus, L1 on another, of runs with equal compute or of the same
    runs; nats per token, or bits per byte.  E0, E1: their irreducible losses; E0 > 0,
    E1 >= 0.  K: > 0.  kappa: exponent, > 0.
    """

    K: Number
    kappa: Number
    E0: Number
    E1: Number

    def loss(self, L0: Number) -> Real[Array, "..."]:
        """Return the predicted loss on the other corpus.

        >>> print(f"{LossToLoss(K=1.2, kappa=0.9, E0=1.5, E1=0.5).loss(2.5):.2f}")
        1.70
        """
        return jnp.asarray(self.E1 + self.K * self.columns(L0)[0])

    def columns(self, L0: Number) -> tuple[Number, Number]:
        """Return the factors of K and E1."""
        excess = jnp.maximum(L0 - self.E0, LEAST_EXCESS * self.E0)
        return jnp.exp(self.kappa * jnp.log(excess)), 1.0


def loss_to_loss(**fixed: float) -> ParametricLaw[LossToLoss]:
    """Return the law of target_loss against loss.

    Chained after a law of the loss it forecasts the other loss from (params, tokens).
    E0 and E1 can be held where a law of each loss gives them.  fixed: parameters to
    hold at a value.
    """
    return ParametricLaw(
        name="loss-to-loss",
        form=LossToLoss,
        predict=LossToLoss.loss,
        inputs=("loss",),
        axes=(0,),
        target="target_loss",
        coordinates=(
            # K carries (unit of the loss)^-kappa, and E0 the unit itself.
            *(scale(("kappa", 0, -1.0)), Coordinate(0.0, 10.0)),
            *(Coordinate(-8.0, 0.0, log=True, units=(("", 0, 1.0),)), OFFSET),
        ),
        linear=Linear(("K", "E1"), LossToLoss.columns),
        grid=(("kappa", (0.5, 0.8, 1.0, 1.3, 2.0)), ("E0", (0.05, 0.2, 0.4, 0.6, 0.75))),
    ).hold(**fixed)
