"""A power law whose exponent changes once, smoothly (Caballero et al. 2022)."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Real

from scalejax.laws.forms import decay, geometric
from scalejax.laws.law import EXPONENT, OFFSET, Coordinate, Linear, Number, ParametricLaw, scale


class BrokenPower(NamedTuple):
    """L(x) = a + b x^-c0 (1 + (x/d)^(1/f))^(-c1 f) (arXiv 2210.14891, eq. 1, n = 1).

    a: offset, units of L, >= 0.  b: > 0.  c0: exponent far below the break, > 0.  c1:
    what the exponent gains beyond it, of either sign.  d: where the break is, in units
    of x, > 0.  f: its width, > 0; small is sharp.
    """

    a: Number
    b: Number
    c0: Number
    c1: Number
    d: Number
    f: Number

    def loss(self, x: Number) -> Real[Array, "..."]:
        """Return the predicted loss.

        >>> law = BrokenPower(a=1.0, b=2.0, c0=0.5, c1=0.5, d=1e4, f=0.1)
        >>> print(f"{law.loss(1e2):.4f} {law.loss(1e6):.6f}")
        1.2000 1.000200
        """
        return jnp.asarray(self.a + self.b * self.columns(x)[1])

    def columns(self, x: Number) -> tuple[Number, Number]:
        """Return the factors of a and b."""
        # The logarithm of 1 + (x/d)^(1/f), which overflows for a sharp break.
        beyond = jnp.logaddexp(0.0, (jnp.log(x) - jnp.log(self.d)) / self.f)
        return 1.0, decay(x, self.c0) * jnp.exp(-self.c1 * self.f * beyond)


def broken_power(x: str = "x", **fixed: float) -> ParametricLaw[BrokenPower]:
    """Return the power law with one break, of one column.

    x: params, tokens or flops; "x" means whichever of the three the table has.  fixed:
    parameters to hold at a value. Six parameters need runs well below and well beyond
    the break.
    """
    width = Coordinate(float(np.log(0.01)), float(np.log(10.0)), log=True)
    return ParametricLaw(
        name="broken-power",
        form=BrokenPower,
        predict=BrokenPower.loss,
        inputs=(x,),
        axes=(0,),
        coordinates=(
            *(OFFSET, scale(("c0", 0, 1.0)), EXPONENT, Coordinate(-5.0, 5.0)),
            # The break is within a factor of e^20 of the centre of the runs.
            *(Coordinate(-20.0, 20.0, log=True, units=(("", 0, 1.0),)), width),
        ),
        linear=Linear(("a", "b"), BrokenPower.columns),
        grid=(
            *(("c0", geometric(0.05, 0.8, 3)), ("c1", (-0.15, 0.15, 0.5))),
            *(("d", (0.03, 1.0, 30.0)), ("f", (0.1, 0.5))),
        ),
    ).hold(**fixed)
