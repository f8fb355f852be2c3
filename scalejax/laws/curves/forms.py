"""Laws of a whole loss curve, given the learning rate of every step.

eta_t is the learning rate of step t (counted from 0), L the loss in nats per token, N
the number of parameters of the model, and S1(t) = eta_0 + ... + eta_t, warm-up
included. The laws lower the loss by what the learning rate has dropped, d_k = eta_{k-1}
- eta_k, from the first step at the peak on. They are scans in O(T): a curve of 72,000
steps takes about 40 ms on one core.

Shapes: [steps] one entry per optimizer step of a curve.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from scalejax.laws.curves.power_kernel import power_kernel_sum, single_steps
from scalejax.laws.curves.rates import checked_rates, decrements
from scalejax.laws.law import Number


class Annealing(NamedTuple):
    """L(t) = L0 + A S1^-alpha - C S2, S2 = sum_{i<=t} m_i, m_i = momentum m_{i-1} + d_i
    (Tissue et al. 2024, arXiv 2408.11029, eq. 1).

    L0: nats per token, >= 0.  A: > 0.  alpha: > 0.  C: >= 0, nats per unit of learning
    rate.  momentum: the paper's lambda, in [0, 1).
    """

    L0: Number
    A: Number
    alpha: Number
    C: Number
    momentum: Number

    def loss(self, learning_rates: Float[jax.Array, " steps"]) -> Float[jax.Array, " steps"]:
        """Predicted loss after every step, nats per token."""
        return (
            self.L0
            + self.A * jnp.cumsum(learning_rates) ** -self.alpha
            - self.C * annealing_area(learning_rates, self.momentum)
        )


class AnnealingSize(NamedTuple):
    """L(t, N) = L0 + A S1^-alpha + B N^-beta - C N^gamma S2, with S2 as in `Annealing`
    (Tissue et al. 2024, arXiv 2408.11029, section 5).

    L0: nats per token, >= 0.  A, B: > 0.  alpha, beta: > 0.  C: >= 0, nats per unit of
    learning rate at N = 1.  momentum: the paper's lambda, in [0, 1).  gamma: of either
    sign; positive where larger models gain more from annealing.
    """

    L0: Number
    A: Number
    alpha: Number
    B: Number
    beta: Number
    C: Number
    momentum: Number
    gamma: Number

    def at(self, N: Number) -> Annealing:
        """The annealing law of one size: L0 + B N^-beta for L0, C N^gamma for C.

        >>> law = AnnealingSize(2.0, 0.5, 0.5, 400.0, 0.3, 1e-3, 0.999, 0.3)
        >>> print(f"{law.at(1e8).L0:.3f} {law.at(1e8).C:.3f}")
        3.592 0.251
        """
        return Annealing(
            self.L0 + self.B * N**-self.beta,
            self.A,
            self.alpha,
            self.C * N**self.gamma,
            self.momentum,
        )

    def loss(
        self, learning_rates: Float[jax.Array, " steps"], N: Number
    ) -> Float[jax.Array, " steps"]:
        """Predicted loss after every step of a model of size N, nats per token."""
        return self.at(N).loss(learning_rates)

    def in_units(self, unit: float) -> "AnnealingSize":
        """The same law as a function of N / unit."""
        return self._replace(B=self.B * unit**-self.beta, C=self.C * unit**self.gamma)


class MultiPower(NamedTuple):
    """L(t) = L0 + A S1^-alpha - B sum_{k<=t} d_k G(eta_k^-gamma S_k(t)),
    G(x) = 1 - (1 + C x)^-beta, S_k(t) = eta_k + ... + eta_t
    (Luo et al. 2025, arXiv 2503.12811, eq. 3).

    L0: nats per token, >= 0.  A, alpha, B, C, beta, gamma: >= 0.
    """

    L0: Number
    A: Number
    alpha: Number
    B: Number
    C: Number
    beta: Number
    gamma: Number

    def loss(self, learning_rates: Float[jax.Array, " steps"]) -> Float[jax.Array, " steps"]:
        """Predicted loss after every step, nats per token."""
        steps = single_steps(learning_rates)
        reduction = self.B * power_kernel_sum(steps, self.C, self.beta, self.gamma)
        return self.L0 + self.A * jnp.cumsum(learning_rates) ** -self.alpha - reduction


CurveFormula = Annealing | AnnealingSize | MultiPower

LAWS = {"annealing": Annealing, "annealing-size": AnnealingSize, "multipower": MultiPower}
PAPER = {"momentum": "lambda"}
"""Fields whose name in the papers, in tables and in files Python keeps for itself."""


def annealing_area(
    learning_rates: Float[jax.Array, " steps"], momentum: Number
) -> Float[jax.Array, " steps"]:
    """Returns S2 of the annealing law after every step.

    S2 is the running sum of m_i = momentum m_{i-1} + d_i: a drop of the learning rate
    takes effect over about 1 / (1 - momentum) steps.
    """

    def step(carry, drop):
        m, total = carry
        m = momentum * m + drop
        return (m, total + m), total + m

    # The product gives the carry the dtype of the sums also where momentum is wider.
    zero = jnp.zeros((), learning_rates.dtype) * momentum
    return jax.lax.scan(step, (zero, zero), decrements(learning_rates))[1]


@jax.jit
def _loss(law, learning_rates):
    return law.loss(learning_rates)


def predict_curve(fit: Any, learning_rates, *, params: float | None = None) -> np.ndarray:
    """Loss after every step, nats per token, in float64.

    fit: a law of this module, or a fit of one: from arrays or from a table, the file
    that `scalejax fit --out` wrote, or the record that `scalejax fit --json` printed.
    learning_rates: the rate of EVERY step from step 0, warm-up included, (steps,).
    params: the model's parameters, for the law that reads them.

    Raises ValueError on a negative or missing rate, when no rate is above zero, or when
    params is missing or not read.
    """
    rates = checked_rates(learning_rates)
    with jax.enable_x64(True):
        return np.asarray(_loss(curve_law(fit, params), jnp.asarray(rates)))


def curve_law(fit: Any, params: float | None = None) -> Annealing | MultiPower:
    """The law of learning rates alone that a law, or a fit of one, gives at a size; its
    parameters in float64 where enabled."""
    law = fit if isinstance(fit, tuple(LAWS.values())) else _fitted(fit)
    if isinstance(law, AnnealingSize):
        if params is None or not 0 < params < np.inf:
            raise ValueError(
                f"the annealing-size law reads the parameters of the model: give params, positive; got {params}"
            )
        law = law.at(params)
    elif params is not None:
        raise ValueError(
            "this law was fitted to one model size and does not read params; fit annealing-size to several sizes"
        )
    return type(law)(*(jnp.asarray(x, float) for x in law))


def _fitted(fit: Any) -> Annealing | AnnealingSize | MultiPower:
    """The law of a file, of what it holds, or of a fit."""
    if isinstance(fit, str | os.PathLike):
        fit = json.loads(Path(fit).read_text(encoding="utf-8"))
    if isinstance(fit, Mapping):
        name, values = fit.get("law"), fit.get("params", {})
    elif isinstance(fit.law, tuple(LAWS.values())):
        return fit.law
    else:
        name, values = fit.law.name, fit.params
    if name not in LAWS:
        raise ValueError(f"the law {name!r} does not read learning rates; fit {', '.join(LAWS)}")
    named = {field: PAPER.get(field, field) for field in LAWS[name]._fields}
    return LAWS[name](**{field: values[paper] for field, paper in named.items()})
