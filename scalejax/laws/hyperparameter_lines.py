"""Power laws of hyperparameters: AdamW's timescale, the best and the critical batch.

Bergsma et al. 2025, arXiv 2505.13738. Each reads one row per sweep: the best value of
the hyperparameter that a sweep at one size and number of tokens gave.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Real

from scalejax.laws.forms import geometric
from scalejax.laws.law import Coordinate, Linear, Number, ParametricLaw, scale

# Starting values of an exponent of either sign.
EXPONENTS = (*(-b for b in geometric(0.05, 1.2, 6)), *geometric(0.05, 1.2, 6))


class Timescale(NamedTuple):
    """tau(N, D) = c (D/N)^m, the best timescale of AdamW (arXiv 2505.13738, eq. 3).

    tau = B / (lr wd D): the share of the run over which AdamW averages its updates, for
    B tokens per step, learning rate lr, weight decay wd and D tokens.  c: > 0, at one
    token per parameter.  m: exponent of either sign; the paper finds about -.53.
    """

    c: Number
    m: Number

    def timescale(self, N: Number, D: Number) -> Real[Array, "..."]:
        """Return the best timescale, a fraction of the run; N and D broadcast."""
        return jnp.asarray(self.c * self.columns(N, D)[0])

    def columns(self, N: Number, D: Number) -> tuple[Number]:
        """Return the factor of c."""
        return (jnp.exp(self.m * (jnp.log(D) - jnp.log(N))),)


def timescale(**fixed: float) -> ParametricLaw[Timescale]:
    """Return the law of AdamW's best timescale against (params, tokens).

    The column is timescale = batch_tokens / (learning_rate x weight_decay x tokens) of
    the best run of each sweep.  fixed: parameters to hold at a value.
    """
    # c carries (unit of N / unit of D)^m.
    units = (("m", 0, 1.0), ("m", 1, -1.0))
    return ParametricLaw(
        name="timescale",
        form=Timescale,
        predict=Timescale.timescale,
        inputs=("params", "tokens"),
        target="timescale",
        coordinates=(scale(*units), Coordinate(-5.0, 5.0)),
        linear=Linear(("c",), Timescale.columns),
        grid=(("m", EXPONENTS),),
    ).hold(**fixed)


class BatchLine(NamedTuple):
    """B(D) = c D^m, a batch size against the tokens (arXiv 2505.13738, section 3).

    The best batch size has the lowest loss after D tokens. The critical one is where
    doubling the batch begins to need many more tokens for the same loss. In the paper
    both depend on D and not on the size.  B, D: tokens.  c: > 0.  m: exponent.
    """

    c: Number
    m: Number

    def batch(self, D: Number) -> Real[Array, "..."]:
        """Return the batch size, in tokens per step."""
        return jnp.asarray(self.c * self.columns(D)[0])

    def columns(self, D: Number) -> tuple[Number]:
        """Return the factor of c."""
        return (jnp.exp(self.m * jnp.log(D)),)


def best_batch(**fixed: float) -> ParametricLaw[BatchLine]:
    """Return the law of the best batch_tokens against tokens.

    fixed: parameters to hold at a value.
    """
    return _batch_line("best-batch", "batch_tokens").hold(**fixed)


def critical_batch(**fixed: float) -> ParametricLaw[BatchLine]:
    """Return the law of critical_batch_tokens against tokens.

    fixed: parameters to hold at a value.
    """
    return _batch_line("critical-batch", "critical_batch_tokens").hold(**fixed)


def _batch_line(name: str, target: str) -> ParametricLaw[BatchLine]:
    return ParametricLaw(
        name=name,
        form=BatchLine,
        predict=BatchLine.batch,
        inputs=("tokens",),
        axes=(0,),
        target=target,
        coordinates=(scale(("m", 0, -1.0)), Coordinate(-5.0, 5.0)),
        linear=Linear(("c",), BatchLine.columns),
        grid=(("m", EXPONENTS),),
    )
