"""The law of routed models, mixtures of experts (Clark et al. 2022)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Real

from scalejax.laws.law import Coordinate, Number, ParametricLaw


class Routed(NamedTuple):
    """log L = a log N + b log M + c log N log M + d (arXiv 2202.01169, eq. 1 and 2).

    N: parameters of the dense model.  M: effective number of experts, which saturates
    with their number E: 1/M = 1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max, with E_max
    = E_start + span.  a, b: exponents, negative where the loss falls.  c: how much less
    experts help a larger model.  d: log of the loss at N = M = 1.  E_start: M of one
    expert, > 0.  span: how far M can grow beyond it, > 0.
    """

    a: Number
    b: Number
    c: Number
    d: Number
    E_start: Number
    span: Number

    def experts(self, E: Number) -> Real[Array, "..."]:
        """Return the effective number of experts.

        >>> law = Routed(a=-0.08, b=-0.1, c=0.01, d=2.7, E_start=1.5, span=298.5)
        >>> print(f"{law.experts(1.0):.2f} {law.experts(1e9):.2f}")
        1.50 300.00
        """
        most = self.E_start + self.span
        # 1 / (1/E_start - 1/E_max), without the difference of two large numbers.
        first = self.E_start * most / self.span
        return jnp.asarray(1 / (1 / (E - 1 + first) + 1 / most))

    def loss(self, N: Number, E: Number) -> Real[Array, "..."]:
        """Return the predicted loss, nats per token; N and E broadcast."""
        log_N, log_M = jnp.log(N), jnp.log(self.experts(E))
        return jnp.exp(self.a * log_N + self.b * log_M + self.c * log_N * log_M + self.d)


def routed(**fixed: float) -> ParametricLaw[Routed]:
    """Return the law of (params, experts) of routed models trained on equal tokens.

    params: of the dense model, as in the paper.  experts: 1 for a dense model.  fixed:
    parameters to hold at a value.
    """
    slope = Coordinate(-5.0, 5.0)
    return ParametricLaw(
        name="routed",
        form=Routed,
        predict=Routed.loss,
        inputs=("params", "experts"),
        # log E has no unit to centre: E = 1 is a dense model.
        raw=("experts",),
        coordinates=(
            # In centred units log N is smaller by log(unit), which b and d make up for.
            slope,
            Coordinate(-5.0, 5.0, units=(("c", 0, -1.0),)),
            Coordinate(-1.0, 1.0),
            Coordinate(-50.0, 50.0, units=(("a", 0, -1.0),)),
            *(Coordinate(-3.0, 5.0, log=True), Coordinate(-3.0, 14.0, log=True)),
        ),
        grid=(
            *(("a", (-0.15, -0.05)), ("b", (-0.15, -0.03)), ("c", (0.0, 0.02))),
            *(("E_start", (1.2, 3.0)), ("span", (30.0, 300.0))),
        ),
        guess=_typical_at_centre,
    ).hold(**fixed)


def _typical_at_centre(law: Routed, typical: Number) -> Routed:
    """Start with the typical loss at N = 1 of the centred units and eight experts."""
    return law._replace(d=jnp.log(typical) - law.b * jnp.log(8.0))
