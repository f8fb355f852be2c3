"""Scaling laws as pure functions of named parameters.

Letters follow the papers: N parameters, D tokens, C FLOPs, M = D/N, L nats per token.
Each law is a NamedTuple with the formula, and a function that returns the
`ParametricLaw` of it: what it reads, what is linear, what is positive and where the
solver starts.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Real

from scalejax.laws.law import (
    EXPONENT,
    FRACTION,
    OFFSET,
    Coordinate,
    Decays,
    Linear,
    Number,
    ParametricLaw,
    scale,
)


def decay(x: Number, exponent: Number) -> Real[Array, "..."]:
    """Return x^-exponent.

    >>> print(f"{decay(100.0, 0.5):.2f}")
    0.10

    It is written with exp and log because the derivative of a power takes the logarithm
    of x again each time.
    """
    return jnp.exp(-exponent * jnp.log(x))


# The solver caches its compiled programs by the functions of a law. Functions of the
# module are therefore shared by all values of a law; lambdas made with each value would
# not be.
def logarithms(*inputs: Number) -> tuple[Number, ...]:
    """Return the logarithm of each input: the x_k of a power law's decays."""
    return tuple(jnp.log(x) for x in inputs)


# Formulas end in jnp.asarray, which does nothing to a jax array. It tells type checkers
# that a sum with numpy arrays, such as bootstrap draws of E, is one.
class Chinchilla(NamedTuple):
    """L(N, D) = E + A N^-alpha + B D^-beta (Hoffmann et al. 2022, eq. 2).

    E: irreducible loss, nats per token, >= 0.  A, B: > 0.  alpha, beta: exponents, > 0.

    Besiroglu et al. 2024 published the refit that the tests reproduce.
    """

    A: Number
    B: Number
    E: Number
    alpha: Number
    beta: Number

    def loss(self, N: Number, D: Number) -> Real[Array, "..."]:
        """Return the predicted loss, nats per token; N and D broadcast.

        >>> hoffmann = Chinchilla(A=406.4, B=410.7, E=1.69, alpha=0.34, beta=0.28)
        >>> print(f"{hoffmann.loss(70e9, 1.4e12):.3f}")
        1.937
        """
        total = self.E + self.A * decay(N, self.alpha) + self.B * decay(D, self.beta)
        return jnp.asarray(total)

    def optimal_params(self, C: Number) -> Number:
        """Return the compute-optimal N* = G (C/6)^(beta / (alpha + beta)), C = 6 N D.

        >>> hoffmann = Chinchilla(A=406.4, B=410.7, E=1.69, alpha=0.34, beta=0.28)
        >>> print(f"{hoffmann.optimal_params(5.88e23):.3g}")
        3.25e+10
        """
        G = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        return G * (C / 6) ** (self.beta / (self.alpha + self.beta))


def chinchilla(*, tied: bool = False, **fixed: float) -> ParametricLaw[Chinchilla]:
    """Return the Chinchilla law of (params, tokens).

    tied: hold beta equal to alpha.  fixed: parameters to hold at a value, as in
    `Law.hold`.
    """
    return ParametricLaw(
        name="chinchilla",
        form=Chinchilla,
        predict=Chinchilla.loss,
        inputs=("params", "tokens"),
        coordinates=(scale(("alpha", 0, 1.0)), scale(("beta", 1, 1.0)), OFFSET, EXPONENT, EXPONENT),
        linear=Decays(("A", "B"), ("alpha", "beta"), "E", logarithms),
        grid=(("alpha", geometric(0.05, 1.6, 8)), ("beta", geometric(0.05, 1.6, 8))),
        tied=(("beta", "alpha"),) if tied else (),
    ).hold(**fixed)


class Power(NamedTuple):
    """L(x) = a x^b + c, with b of either sign (Yao et al. 2023, arXiv 2304.06875).

    a: > 0.  b: exponent, negative where L falls with x.  c: offset, units of L, >= 0.
    """

    a: Number
    b: Number
    c: Number

    def loss(self, x: Number) -> Real[Array, "..."]:
        """Return the predicted loss, nats per token."""
        return jnp.asarray(self.a * decay(x, -self.b) + self.c)


def power(x: str = "x", **fixed: float) -> ParametricLaw[Power]:
    """Return the power law with offset of one column.

    x: params, tokens or flops; "x" means whichever of the three the table has.  fixed:
    parameters to hold at a value.
    """
    exponents = geometric(0.05, 3.2, 8)
    return ParametricLaw(
        name="power",
        form=Power,
        predict=Power.loss,
        inputs=(x,),
        axes=(0,),
        coordinates=(scale(("b", 0, -1.0)), Coordinate(-5.0, 5.0), OFFSET),
        linear=Decays(("a",), ("b",), "c", _minus_logarithm),
        grid=(("b", tuple(-b for b in exponents) + exponents),),
    ).hold(**fixed)


def _minus_logarithm(x: Number) -> tuple[Number, ...]:
    return (-jnp.log(x),)


class Kaplan(NamedTuple):
    """L(N, D) = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D (Kaplan et al. 2020).

    Equation 1.5.  N: non-embedding.  N_c: parameters, > 0.  D_c: tokens, > 0.  alpha_N,
    alpha_D: > 0.
    """

    N_c: Number
    D_c: Number
    alpha_N: Number
    alpha_D: Number

    def loss(self, N: Number, D: Number) -> Real[Array, "..."]:
        """Return the predicted loss, nats per token; N and D broadcast."""
        # The bracket is summed as logarithms: N_c / N to a power overflows float32.
        size = jnp.log(self.N_c / N) * self.alpha_N / self.alpha_D
        return jnp.exp(self.alpha_D * jnp.logaddexp(size, jnp.log(self.D_c / D)))


def kaplan(**fixed: float) -> ParametricLaw[Kaplan]:
    """Return the Kaplan law of (params, tokens), which has no irreducible loss.

    Kaplan et al. count non-embedding parameters.  fixed: parameters to hold at a value.
    """
    size = Coordinate(-90.0, 90.0, log=True, units=(("", 0, 1.0),))
    exponent = Coordinate(1e-3, 5.0)
    return ParametricLaw(
        name="kaplan",
        form=Kaplan,
        predict=Kaplan.loss,
        inputs=("params", "tokens"),
        coordinates=(size, dataclasses.replace(size, units=(("", 1, 1.0),)), exponent, exponent),
        grid=(("alpha_N", geometric(0.03, 0.8, 8)), ("alpha_D", geometric(0.03, 0.8, 8))),
        guess=_equal_terms,
    ).hold(**fixed)


def _equal_terms(law: Kaplan, typical: Number) -> Kaplan:
    """Set N_c and D_c so that both terms are equal at the centre, N = D = 1."""
    half = jnp.log(typical) / law.alpha_D - jnp.log(2.0)
    return law._replace(N_c=jnp.exp(half * law.alpha_D / law.alpha_N), D_c=jnp.exp(half))


class Overtraining(NamedTuple):
    """L(C, M) = E + (a M^alpha_C + b M^-alpha_C) C^-alpha_C (Gadre et al. 2024, eq. 4).

    C = 6 N D, M = D/N.  a, b: > 0.  alpha_C: > 0.  E: nats per token, >= 0.

    It is Chinchilla's law with alpha = beta = 2 alpha_C.
    """

    a: Number
    b: Number
    alpha_C: Number
    E: Number

    def loss(self, N: Number, D: Number) -> Real[Array, "..."]:
        """Return the predicted loss, nats per token; N and D broadcast."""
        # M/C = 1/(6 N^2) and 1/(M C) = 1/(6 D^2), so each term reads one input.
        size, data = decay(6 * N**2, self.alpha_C), decay(6 * D**2, self.alpha_C)
        return jnp.asarray(self.E + self.a * size + self.b * data)

    def chinchilla(self) -> Chinchilla:
        """Return the Chinchilla law that is the same: alpha = beta = 2 alpha_C.

        >>> redpajama = Overtraining(a=212.24, b=366.69, alpha_C=0.13643, E=1.8366)
        >>> same = redpajama.chinchilla()
        >>> print(f"{same.A:.2f} {same.B:.2f} {same.alpha:.4f}")
        166.21 287.17 0.2729
        """
        shrink = 6**-self.alpha_C
        exponent = 2 * self.alpha_C
        return Chinchilla(self.a * shrink, self.b * shrink, self.E, exponent, exponent)


def overtraining(**fixed: float) -> ParametricLaw[Overtraining]:
    """Return the over-training law of (params, tokens), from which C and M follow.

    fixed: parameters to hold at a value.
    """
    a, b = scale(("alpha_C", 0, 2.0)), scale(("alpha_C", 1, 2.0))
    return ParametricLaw(
        name="overtraining",
        form=Overtraining,
        predict=Overtraining.loss,
        inputs=("params", "tokens"),
        coordinates=(a, b, Coordinate(0.0, 2.5), OFFSET),
        linear=Decays(("a", "b"), ("alpha_C", "alpha_C"), "E", _logarithms_of_squares),
        grid=(("alpha_C", geometric(0.02, 0.8, 16)),),
    ).hold(**fixed)


def _logarithms_of_squares(N: Number, D: Number) -> tuple[Number, ...]:
    return jnp.log(6 * N**2), jnp.log(6 * D**2)


class DataConstrained(NamedTuple):
    """L = E + A N'^-alpha + B D'^-beta for repeated data (Muennighoff et al. 2023).

    D' = U_D + U_D R_D (1 - exp(-(D/U_D - 1)/R_D)) for U_D unique tokens, and N'
    likewise from U_N = min(N, the compute-optimal size for U_D tokens). R_N, R_D: > 0,
    repetitions after which a value has decayed.

    Section 3 of arXiv 2305.16264.
    """

    A: Number
    B: Number
    E: Number
    alpha: Number
    beta: Number
    R_N: Number
    R_D: Number

    def loss(self, N: Number, D: Number, U: Number) -> Real[Array, "..."]:
        """Return the predicted loss, nats per token; inputs broadcast.

        U: unique tokens; more than D of them count as D.
        """
        U = jnp.minimum(U, D)
        # At the compute-optimal size for U tokens, alpha A N^-alpha = beta B U^-beta.
        slopes = jnp.log(self.alpha * self.A) - jnp.log(self.beta * self.B)
        optimal = jnp.exp((slopes + self.beta * jnp.log(U)) / self.alpha)
        size = _effective(N, jnp.minimum(N, optimal), self.R_N)
        data = _effective(D, U, self.R_D)
        return Chinchilla(self.A, self.B, self.E, self.alpha, self.beta).loss(size, data)

    def columns(self, N: Number, D: Number, U: Number) -> tuple[Number, ...]:
        """Return the factors of A, B and E when repetition costs nothing.

        The law is not linear in A and B, which set the optimal size. The factors serve
        the starts only.
        """
        return decay(N, self.alpha), decay(D, self.beta), 1.0


def _effective(total: Number, unique: Number, lifetime: Number) -> Real[Array, "..."]:
    """Return how many fresh units `total` units are worth when `unique` are new.

    It is unique (1 + R (1 - exp(-(total/unique - 1)/R))) with R the lifetime.
    """
    repetitions = jnp.maximum(total / unique - 1, 0)
    return jnp.asarray(unique * (1 - lifetime * jnp.expm1(-repetitions / lifetime)))


def data_constrained(**fixed: float) -> ParametricLaw[DataConstrained]:
    """Return the data-constrained law of (params, tokens, unique_tokens).

    fixed: parameters to hold at a value.
    """
    base = chinchilla()
    repetitions = Coordinate(float(np.log(1e-3)), float(np.log(1e5)), log=True)
    return ParametricLaw(
        name="data-constrained",
        form=DataConstrained,
        predict=DataConstrained.loss,
        inputs=("params", "tokens", "unique_tokens"),
        axes=(0, 1, 1),
        coordinates=(*base.coordinates, repetitions, repetitions),
        linear=Linear(("A", "B", "E"), DataConstrained.columns),
        grid=(
            ("alpha", (0.2, 0.4)),
            ("beta", (0.2, 0.4)),
            ("R_N", (1.0, 4.0, 16.0, 64.0)),
            ("R_D", (3.0, 12.0, 48.0, 192.0)),
        ),
    ).hold(**fixed)


class Downstream(NamedTuple):
    """Err(L) = epsilon - k exp(-gamma L) (Gadre et al. 2024, eq. 5).

    Top-1 error against loss.  epsilon: error at high loss, a fraction, >= 0.  k: > 0.
    gamma: per nat, > 0.
    """

    k: Number
    gamma: Number
    epsilon: Number

    def error(self, L: Number) -> Real[Array, "..."]:
        """Return the predicted top-1 error, a fraction."""
        return jnp.asarray(self.epsilon - self.k * jnp.exp(-self.gamma * L))


def downstream(**fixed: float) -> ParametricLaw[Downstream]:
    """Return the law of top-1 error against loss.

    Chained after a law of the loss it forecasts error from (params, tokens).  fixed:
    parameters to hold at a value.
    """
    return ParametricLaw(
        name="downstream",
        form=Downstream,
        predict=Downstream.error,
        inputs=("loss",),
        axes=(0,),
        additive=True,
        target="top1_error",
        coordinates=(scale(("gamma", 0, 1.0)), Coordinate(0.0, 50.0), FRACTION),
        linear=Decays(("k",), ("gamma",), "epsilon", _unchanged, sign=-1),
        grid=(("gamma", geometric(0.05, 20.0, 16)),),
    ).hold(**fixed)


def _unchanged(L: Number) -> tuple[Number, ...]:
    return (L,)


class Sigmoid(NamedTuple):
    """Err(L) = floor + height / (1 + exp(-steepness (L - midpoint))) (Bhagia et al.).

    Bhagia et al. 2024, arXiv 2412.04403.  Top-1 error against loss.  height: of the
    rise, a fraction, > 0.  steepness: per nat, > 0.  midpoint: nats per token.  floor:
    error at low loss, >= 0.
    """

    height: Number
    steepness: Number
    midpoint: Number
    floor: Number

    def error(self, L: Number) -> Real[Array, "..."]:
        """Return the predicted top-1 error, a fraction."""
        rise = jax.nn.sigmoid(self.steepness * (L - self.midpoint))
        return jnp.asarray(self.floor + self.height * rise)

    def columns(self, L: Number) -> tuple[Number, ...]:
        """Return the factors of height and floor."""
        return jax.nn.sigmoid(self.steepness * (L - self.midpoint)), 1.0


def sigmoid(**fixed: float) -> ParametricLaw[Sigmoid]:
    """Return the sigmoid law of top-1 error against loss.

    The table needs runs on both sides of the midpoint.  fixed: parameters to hold at a
    value.
    """
    # A change of units does not touch the height (power 0). The entries say that
    # steepness and midpoint have no effect once the height is zero.
    height = scale(("steepness", 0, 0.0), ("midpoint", 0, 0.0))
    midpoint = Coordinate(-20.0, 20.0, units=(("", 0, 1.0),))
    return ParametricLaw(
        name="sigmoid",
        form=Sigmoid,
        predict=Sigmoid.error,
        inputs=("loss",),
        axes=(0,),
        additive=True,
        target="top1_error",
        coordinates=(height, Coordinate(0.0, 50.0), midpoint, OFFSET),
        linear=Linear(("height", "floor"), Sigmoid.columns),
        grid=(
            ("steepness", geometric(0.5, 20.0, 6)),
            ("midpoint", (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)),
        ),
    ).hold(**fixed)


def geometric(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return starting values of an exponent, equally spaced in the logarithm."""
    return tuple(float(x) for x in np.geomspace(low, high, count))
