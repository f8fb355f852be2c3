"""Laws in which size and tokens interact: more tokens help large models more, or less.

Chinchilla's law adds a term of the size and a term of the tokens, so that the gain from
more tokens is the same at every size. These laws let it depend on the size.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Real

from scalejax.laws.forms import Chinchilla, decay, geometric
from scalejax.laws.law import (
    EXPONENT,
    OFFSET,
    Coordinate,
    Linear,
    Number,
    ParametricLaw,
    scale,
)


class Interaction(NamedTuple):
    """L(N, D) = E + (A N^-alpha + B D^-beta)^k (arXiv 2608.07222).

    E: irreducible loss, nats per token, >= 0.  A, B: > 0.  alpha, beta: exponents, > 0.
    k: interaction, > 0. With k = 1 the law is Chinchilla's; with k below 1, more tokens
    help a larger model more.
    """

    A: Number
    B: Number
    E: Number
    alpha: Number
    beta: Number
    k: Number

    def loss(self, N: Number, D: Number) -> Real[Array, "..."]:
        """Return the predicted loss, nats per token; N and D broadcast.

        >>> law = Interaction(A=406.4, B=410.7, E=1.69, alpha=0.34, beta=0.28, k=1.0)
        >>> print(f"{law.loss(70e9, 1.4e12):.3f}")
        1.937
        """
        terms = self.A * decay(N, self.alpha) + self.B * decay(D, self.beta)
        # A power of a positive number as exp and log, as in `decay`.
        return jnp.asarray(self.E + jnp.exp(self.k * jnp.log(terms)))

    def optimal_params(self, C: Number) -> Number:
        """Return the compute-optimal N* at C = 6 N D.

        It is that of the Chinchilla law with the same A, B, alpha and beta, because a
        power of the sum has its minimum where the sum has it.
        """
        A, B, E, alpha, beta, _ = self
        return Chinchilla(A, B, E, alpha, beta).optimal_params(C)


def interaction(**fixed: float) -> ParametricLaw[Interaction]:
    """Return the interaction law of (params, tokens).

    fixed: parameters to hold at a value, as in `Law.hold`.
    """
    # Both exponents have starts on either side of those that k multiplies.
    exponents, low, high = geometric(0.1, 1.2, 4), float(np.log(0.05)), float(np.log(20.0))
    return ParametricLaw(
        name="interaction",
        form=Interaction,
        predict=Interaction.loss,
        inputs=("params", "tokens"),
        coordinates=(
            *(scale(("alpha", 0, 1.0)), scale(("beta", 1, 1.0)), OFFSET, EXPONENT, EXPONENT),
            Coordinate(low, high, log=True),
        ),
        grid=(("alpha", exponents), ("beta", exponents), ("k", (0.4, 0.8, 1.6))),
        guess=_half_of_the_loss,
    ).hold(**fixed)


def _half_of_the_loss(law: Interaction, typical: Number) -> Interaction:
    """Start with half of the loss reducible at the centre, in equal terms."""
    half = jnp.full_like(jnp.asarray(law.k), typical / 2)
    term = jnp.exp(jnp.log(half) / law.k) / 2
    return law._replace(A=term, B=term, E=half)


class Farseer(NamedTuple):
    """L(N, D) = S exp(-s N^q) + Q exp(B N^-b) D^-g with g = G exp(-A N^a).

    Li et al. 2025, arXiv 2506.10972. The exponent g of the tokens depends on the size.
    S, Q: > 0, units of the loss.  s, B, A: > 0.  q, b, a: exponents, > 0.  G: > 0.

    The paper writes e^S, e^Q and e^E for S, Q and G, and s, A and b with the opposite
    sign. A change of the unit of D changes the shape of the law: tokens are counted one
    by one.
    """

    S: Number
    s: Number
    q: Number
    Q: Number
    B: Number
    b: Number
    G: Number
    A: Number
    a: Number

    def loss(self, N: Number, D: Number) -> Real[Array, "..."]:
        """Return the predicted loss, in the units of S and Q; N and D broadcast."""
        of_size, of_tokens = self.columns(N, D)
        return jnp.asarray(self.S * of_size + self.Q * of_tokens)

    def columns(self, N: Number, D: Number) -> tuple[Number, Number]:
        """Return the factors of S and Q."""
        log_N = jnp.log(N)
        exponent = self.G * jnp.exp(-self.A * jnp.exp(self.a * log_N))
        log_tokens = self.B * jnp.exp(-self.b * log_N) - exponent * jnp.log(D)
        return jnp.exp(-self.s * jnp.exp(self.q * log_N)), jnp.exp(log_tokens)


def farseer(**fixed: float) -> ParametricLaw[Farseer]:
    """Return Farseer's law of (params, tokens), with tokens in units of one.

    It has nine parameters, which move together: give it dozens of runs, and trust its
    predictions more than its parameters.  fixed: parameters to hold at a value.
    """
    exponent = Coordinate(1e-3, 2.0)

    def factor(name: str, power: float) -> Coordinate:
        """The coordinate of a factor of N^name, between 1e-4 and 55 at the centre."""
        return Coordinate(-9.0, 4.0, log=True, units=((name, 0, power),))

    return ParametricLaw(
        name="farseer",
        form=Farseer,
        predict=Farseer.loss,
        inputs=("params", "tokens"),
        raw=("tokens",),
        coordinates=(
            # A change of the unit of N multiplies s by unit^-q, and likewise B and A.
            *(scale(), factor("q", -1.0), exponent),
            *(scale(), factor("b", 1.0), exponent),
            *(Coordinate(-6.0, 12.0, log=True), factor("a", -1.0), exponent),
        ),
        linear=Linear(("S", "Q"), Farseer.columns),
        # Of the 32 starts about half reach the optimum. At the centre, G exp(-A) is the
        # exponent of the tokens.
        grid=(
            *(("s", (0.2, 1.0)), ("q", (0.1, 0.3)), ("B", (1.0, 5.0)), ("b", (0.2,))),
            *(("G", (0.6, 4.0)), ("A", (0.5, 2.5)), ("a", (0.1,))),
        ),
    ).hold(**fixed)
