"""Scaling laws as pure functions of named parameters.

Letters as in the papers: N parameters, D tokens, C FLOPs, M = D/N, L nats per token.
A law is two things: a NamedTuple with the formula, and one `Law` that tells the solver what to read, what is linear and what
is positive. Every formula keeps its shape under a change of units (N in billions, say: A becomes A (1e9)^-alpha), and the
solver uses that to work in centred units, where the problem is well conditioned.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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


def decay(x: Number, exponent: Number) -> jax.Array:
    """x^-exponent. Written out because the derivatives of a power take the logarithm of x again and again."""
    return jnp.exp(-exponent * jnp.log(x))


def logarithms(*inputs: Number) -> tuple[Number, ...]:
    """x of the decays of a power law. A module's function, not a lambda of each law: programs are cached by it."""
    return tuple(jnp.log(x) for x in inputs)


def _steps(low: float, high: float, count: int) -> tuple[float, ...]:
    return tuple(float(x) for x in np.geomspace(low, high, count))


class Chinchilla(NamedTuple):
    """L(N, D) = E + A N^-alpha + B D^-beta (Hoffmann et al. 2022, eq. 2; refitted by Besiroglu et al. 2024).

    E: irreducible loss, nats per token, >= 0.  A, B: > 0.  alpha, beta: exponents, > 0.
    """

    A: Number
    B: Number
    E: Number
    alpha: Number
    beta: Number

    def loss(self, N: Number, D: Number) -> jax.Array:
        """Predicted loss, nats per token; N and D broadcast."""
        return self.E + self.A * decay(N, self.alpha) + self.B * decay(D, self.beta)

    def optimal_params(self, C: Number) -> Number:
        """Compute-optimal N* under C = 6 N D: G (C/6)^(beta / (alpha + beta)).

        >>> hoffmann = Chinchilla(A=406.4, B=410.7, E=1.69, alpha=0.34, beta=0.28)
        >>> print(f"{hoffmann.optimal_params(5.88e23):.3g}")
        3.25e+10
        """
        G = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        return G * (C / 6) ** (self.beta / (self.alpha + self.beta))


def chinchilla(*, tied: bool = False, **fixed: float) -> ParametricLaw:
    """The Chinchilla law of (params, tokens); `tied` holds alpha = beta, keywords hold a parameter at a value."""
    return ParametricLaw(
        name="chinchilla",
        form=Chinchilla,
        predict=Chinchilla.loss,
        inputs=("params", "tokens"),
        coordinates=(scale(("alpha", 0, 1.0)), scale(("beta", 1, 1.0)), OFFSET, EXPONENT, EXPONENT),
        linear=Decays(("A", "B"), ("alpha", "beta"), "E", logarithms),
        grid=(("alpha", _steps(0.05, 1.6, 8)), ("beta", _steps(0.05, 1.6, 8))),
        tied=(("beta", "alpha"),) if tied else (),
    ).hold(**fixed)


class Power(NamedTuple):
    """L(x) = a x^b + c, b signed (power law with offset; Yao et al. 2023, arXiv 2304.06875).

    a: > 0.  b: exponent, negative where L falls with x.  c: offset in the units of L, >= 0.
    """

    a: Number
    b: Number
    c: Number

    def loss(self, x: Number) -> jax.Array:
        """Predicted loss, nats per token."""
        return self.a * decay(x, -self.b) + self.c


def _minus_log(x: Number) -> tuple[Number, ...]:
    return (-jnp.log(x),)


def power(x: str = "x", **fixed: float) -> ParametricLaw:
    """The power law with offset of one column: params, tokens or flops ("x": the one of them that the table has)."""
    exponents = _steps(0.05, 3.2, 8)
    return ParametricLaw(
        name="power",
        form=Power,
        predict=Power.loss,
        inputs=(x,),
        axes=(0,),
        coordinates=(scale(("b", 0, -1.0)), Coordinate(-5.0, 5.0), OFFSET),
        linear=Decays(("a",), ("b",), "c", _minus_log),
        grid=(("b", tuple(-b for b in exponents) + exponents),),
    ).hold(**fixed)


class Kaplan(NamedTuple):
    """L(N, D) = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D (Kaplan et al. 2020, eq. 1.5); N non-embedding.

    N_c: parameters, > 0.  D_c: tokens, > 0.  alpha_N, alpha_D: exponents, > 0.
    """

    N_c: Number
    D_c: Number
    alpha_N: Number
    alpha_D: Number

    def loss(self, N: Number, D: Number) -> jax.Array:
        """Predicted loss, nats per token."""
        size = jnp.log(self.N_c / N) * self.alpha_N / self.alpha_D
        return jnp.exp(self.alpha_D * jnp.logaddexp(size, jnp.log(self.D_c / D)))


def _kaplan_guess(law: Kaplan, typical: Number) -> Kaplan:
    """Both terms equal at the centre of the data (N = D = 1 there)."""
    half = jnp.log(typical) / law.alpha_D - jnp.log(2.0)
    return law._replace(N_c=jnp.exp(half * law.alpha_D / law.alpha_N), D_c=jnp.exp(half))


def kaplan(**fixed: float) -> ParametricLaw:
    """The Kaplan law of (params, tokens): no irreducible term; params are meant to be non-embedding."""
    exponents = (("alpha_N", _steps(0.03, 0.8, 8)), ("alpha_D", _steps(0.03, 0.8, 8)))
    size, positive = Coordinate(-90.0, 90.0, log=True, units=(("", 0, 1.0),)), Coordinate(1e-3, 5.0)
    return ParametricLaw(
        name="kaplan",
        form=Kaplan,
        predict=Kaplan.loss,
        inputs=("params", "tokens"),
        coordinates=(size, dataclasses.replace(size, units=(("", 1, 1.0),)), positive, positive),
        grid=exponents,
        guess=_kaplan_guess,
    ).hold(**fixed)


class Overtraining(NamedTuple):
    """L(C, M) = E + (a M^alpha_C + b M^-alpha_C) C^-alpha_C, C = 6 N D, M = D/N (Gadre et al. 2024, eq. 4).

    a, b: > 0.  alpha_C: > 0.  E: nats per token, >= 0.  The same law as Chinchilla with alpha = beta = 2 alpha_C.
    """

    a: Number
    b: Number
    alpha_C: Number
    E: Number

    def loss(self, N: Number, D: Number) -> jax.Array:
        """Predicted loss, nats per token: M/C = 1/(6 N^2) and 1/(M C) = 1/(6 D^2)."""
        return (
            self.E + self.a * decay(6 * N**2, self.alpha_C) + self.b * decay(6 * D**2, self.alpha_C)
        )

    def chinchilla(self) -> Chinchilla:
        """The same law in Chinchilla's letters: A = a 6^-alpha_C, B = b 6^-alpha_C, alpha = beta = 2 alpha_C.

        >>> redpajama = Overtraining(a=212.24, b=366.69, alpha_C=0.13643, E=1.8366).chinchilla()
        >>> print(f"{redpajama.A:.2f} {redpajama.B:.2f} {redpajama.alpha:.4f}")
        166.21 287.17 0.2729
        """
        shrink = 6**-self.alpha_C
        return Chinchilla(
            self.a * shrink, self.b * shrink, self.E, 2 * self.alpha_C, 2 * self.alpha_C
        )


def _log_squares(N: Number, D: Number) -> tuple[Number, ...]:
    return jnp.log(6 * N**2), jnp.log(6 * D**2)


def overtraining(**fixed: float) -> ParametricLaw:
    """The over-training law of (params, tokens), which gives C and M."""
    return ParametricLaw(
        name="overtraining",
        form=Overtraining,
        predict=Overtraining.loss,
        inputs=("params", "tokens"),
        coordinates=(
            scale(("alpha_C", 0, 2.0)),
            scale(("alpha_C", 1, 2.0)),
            Coordinate(0.0, 2.5),
            OFFSET,
        ),
        linear=Decays(("a", "b"), ("alpha_C", "alpha_C"), "E", _log_squares),
        grid=(("alpha_C", _steps(0.02, 0.8, 16)),),
    ).hold(**fixed)


class DataConstrained(NamedTuple):
    """Chinchilla's law with repeated data (Muennighoff et al. 2023, arXiv 2305.16264, section 3).

    L = E + A N'^-alpha + B D'^-beta, D' = U_D + U_D R_D (1 - exp(-(D/U_D - 1)/R_D)) for U_D unique tokens, and N' likewise
    from U_N = min(N, the compute-optimal size for U_D tokens). R_N, R_D: > 0, repetitions after which a value has decayed.
    """

    A: Number
    B: Number
    E: Number
    alpha: Number
    beta: Number
    R_N: Number
    R_D: Number

    def loss(self, N: Number, D: Number, U: Number) -> jax.Array:
        """Predicted loss, nats per token; U unique tokens (more than D counts as D)."""
        U = jnp.minimum(U, D)
        slopes = jnp.log(self.alpha * self.A) - jnp.log(self.beta * self.B)
        optimal = jnp.exp(
            (slopes + self.beta * jnp.log(U)) / self.alpha
        )  # alpha A N^-alpha = beta B U^-beta
        size = _worth(N, jnp.minimum(N, optimal), self.R_N)
        return Chinchilla(self.A, self.B, self.E, self.alpha, self.beta).loss(
            size, _worth(D, U, self.R_D)
        )

    def columns(self, N: Number, D: Number, U: Number) -> tuple[Number, ...]:
        """What multiplies A, B and E while repetition costs nothing (for starts)."""
        return decay(N, self.alpha), decay(D, self.beta), 1.0


def _worth(total: Number, unique: Number, lifetime: Number) -> jax.Array:
    """What `total` is worth when only `unique` of it is new: unique (1 + R (1 - exp(-(total/unique - 1)/R)))."""
    return unique * (1 - lifetime * jnp.expm1(-jnp.maximum(total / unique - 1, 0) / lifetime))


def data_constrained(**fixed: float) -> ParametricLaw:
    """The data-constrained law of (params, tokens, unique_tokens)."""
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
    """Err(L) = epsilon - k exp(-gamma L) (Gadre et al. 2024, eq. 5): top-1 error against loss.

    epsilon: error at high loss, a fraction, >= 0.  k: > 0.  gamma: per nat, > 0.
    """

    k: Number
    gamma: Number
    epsilon: Number

    def error(self, L: Number) -> jax.Array:
        """Predicted top-1 error, a fraction."""
        return self.epsilon - self.k * jnp.exp(-self.gamma * L)


def _as_it_is(L: Number) -> tuple[Number, ...]:
    return (L,)


def downstream(**fixed: float) -> ParametricLaw:
    """The law of top-1 error against loss; chained after a loss law it forecasts error from (params, tokens)."""
    return ParametricLaw(
        name="downstream",
        form=Downstream,
        predict=Downstream.error,
        inputs=("loss",),
        axes=(0,),
        additive=True,
        target="top1_error",
        coordinates=(scale(("gamma", 0, 1.0)), Coordinate(0.0, 50.0), FRACTION),
        linear=Decays(("k",), ("gamma",), "epsilon", _as_it_is, sign=-1),
        grid=(("gamma", _steps(0.05, 20.0, 16)),),
    ).hold(**fixed)


class Sigmoid(NamedTuple):
    """Err(L) = floor + height / (1 + exp(-steepness (L - midpoint))): top-1 error against loss (Bhagia et al. 2024).

    height: of the rise, a fraction, > 0.  steepness: per nat, > 0.  midpoint: nats per token.  floor: error at low loss, >= 0.
    """

    height: Number
    steepness: Number
    midpoint: Number
    floor: Number

    def error(self, L: Number) -> jax.Array:
        """Predicted top-1 error, a fraction."""
        return self.floor + self.height * jax.nn.sigmoid(self.steepness * (L - self.midpoint))

    def columns(self, L: Number) -> tuple[Number, ...]:
        """What multiplies height and floor."""
        return jax.nn.sigmoid(self.steepness * (L - self.midpoint)), 1.0


def sigmoid(**fixed: float) -> ParametricLaw:
    """The sigmoid law of top-1 error against loss (arXiv 2412.04403); it needs runs on both sides of the midpoint."""
    height = scale(
        ("steepness", 0, 0.0), ("midpoint", 0, 0.0)
    )  # power 0: no units, but its shape means nothing without it
    return ParametricLaw(
        name="sigmoid",
        form=Sigmoid,
        predict=Sigmoid.error,
        inputs=("loss",),
        axes=(0,),
        additive=True,
        target="top1_error",
        coordinates=(
            height,
            Coordinate(0.0, 50.0),
            Coordinate(-20.0, 20.0, units=(("", 0, 1.0),)),
            OFFSET,
        ),
        linear=Linear(("height", "floor"), Sigmoid.columns),
        grid=(
            ("steepness", _steps(0.5, 20.0, 6)),
            ("midpoint", (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)),
        ),
    ).hold(**fixed)
