"""Laws of a whole loss curve, given the learning rate of every step.

eta_t is the learning rate of step t (counted from 0), L the loss in nats per token, N
the number of parameters of the model, and S1(t) = eta_0 + ... + eta_t, warm-up
included. The laws lower the loss by what the learning rate has dropped, d_k = eta_{k-1}
- eta_k, from the first step at the peak on. They are scans in O(T): a curve of 72,000
steps takes about 40 ms on one core.

Shapes: [steps] one entry per optimizer step of a curve.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from scalejax.laws.curves.power_kernel import power_kernel_sum, single_steps
from scalejax.laws.curves.rates import Parameter, checked_rates, decrements
from scalejax.laws.law import Law


class Annealing(NamedTuple):
    """L(t) = L0 + A S1^-alpha - C S2, S2 = sum_{i<=t} m_i, m_i = momentum m_{i-1} + d_i
    (Tissue et al. 2024, arXiv 2408.11029, eq. 1).

    L0: nats per token, >= 0.  A: > 0.  alpha: > 0.  C: >= 0, nats per unit of learning
    rate.  momentum: the paper's lambda, in [0, 1).
    """

    L0: Parameter
    A: Parameter
    alpha: Parameter
    C: Parameter
    momentum: Parameter

    def loss(self, learning_rates: Float[jax.Array, " steps"]) -> Float[jax.Array, " steps"]:
        """Predicted loss after every step, nats per token."""
        total = self.L0 + self.A * jnp.cumsum(learning_rates) ** -self.alpha
        return jnp.asarray(total - self.C * annealing_area(learning_rates, self.momentum))


class AnnealingSize(NamedTuple):
    """L(t, N) = L0 + A S1^-alpha + B N^-beta - C N^gamma S2, with S2 as in `Annealing`
    (Tissue et al. 2024, arXiv 2408.11029, section 5).

    L0: nats per token, >= 0.  A, B: > 0.  alpha, beta: > 0.  C: >= 0, nats per unit of
    learning rate at N = 1.  momentum: the paper's lambda, in [0, 1).  gamma: of either
    sign; positive where larger models gain more from annealing.
    """

    L0: Parameter
    A: Parameter
    alpha: Parameter
    B: Parameter
    beta: Parameter
    C: Parameter
    momentum: Parameter
    gamma: Parameter

    def at(self, N: Parameter) -> Annealing:
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
        self, learning_rates: Float[jax.Array, " steps"], N: Parameter
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

    L0: Parameter
    A: Parameter
    alpha: Parameter
    B: Parameter
    C: Parameter
    beta: Parameter
    gamma: Parameter

    def loss(self, learning_rates: Float[jax.Array, " steps"]) -> Float[jax.Array, " steps"]:
        """Predicted loss after every step, nats per token."""
        steps = single_steps(learning_rates)
        reduction = self.B * power_kernel_sum(steps, self.C, self.beta, self.gamma)
        total = self.L0 + self.A * jnp.cumsum(learning_rates) ** -self.alpha
        return jnp.asarray(total - reduction)


CurveFormula = Annealing | AnnealingSize | MultiPower

# By the name on the command line.
LAWS: dict[str, type[CurveFormula]] = {
    "annealing": Annealing,
    "annealing-size": AnnealingSize,
    "multipower": MultiPower,
}

# The papers' names of fields, where Python reserves the name.
PAPER_NAMES = {"momentum": "lambda"}


def annealing_area(
    learning_rates: Float[jax.Array, " steps"], momentum: Parameter
) -> Float[jax.Array, " steps"]:
    """Return S2 of the annealing law after every step.

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


@runtime_checkable
class FittedCurves(Protocol):
    """A fit of a whole-curve law, to arrays or to a table."""

    @property
    def law(self) -> CurveFormula | Law: ...

    @property
    def params(self) -> Mapping[str, float]: ...


def predict_curve(
    fit: CurveFormula | FittedCurves, learning_rates: ArrayLike, *, params: float | None = None
) -> Float[np.ndarray, " steps"]:
    """Predict the loss after every step, nats per token, in float64.

    fit: a law of this module, or a fit of one to arrays or to a table. learning_rates:
    (steps,), the learning rate of every step from step 0, warm-up included. params: the
    number of parameters of the model, for a law of several sizes.

    Raises ValueError for a learning rate that is negative or not finite, when no
    learning rate is positive, and for `params` that the law needs and does not get or
    the reverse.
    """
    rates = checked_rates(learning_rates)
    # Sums over tens of thousands of steps need double precision.
    with jax.enable_x64(True):
        return np.asarray(_loss(curve_law(fit, params), jnp.asarray(rates)))


@jax.jit
def _loss(
    law: Annealing | MultiPower, learning_rates: Float[jax.Array, " steps"]
) -> Float[jax.Array, " steps"]:
    return law.loss(learning_rates)


def curve_law(
    fit: CurveFormula | FittedCurves, params: float | None = None
) -> Annealing | MultiPower:
    """Return the law for one size of model, whose loss depends on learning rates only.

    Its parameters are arrays, in float64 where that is enabled. The arguments are those
    of `predict_curve`.
    """
    law = fit if isinstance(fit, CurveFormula) else _law_of_fit(fit)
    if isinstance(law, AnnealingSize):
        if params is None or not 0 < params < np.inf:
            raise ValueError(
                "the annealing-size law depends on the size of the model: give params, the "
                f"number of its parameters, positive; got {params}"
            )
        law = law.at(params)
    elif params is not None:
        raise ValueError(
            f"this law was fitted to one model size and does not read params; got {params}. "
            "Remove params, or fit annealing-size to several sizes"
        )
    return type(law)(*(jnp.asarray(x, float) for x in law))


def law_from_parameters(name: str, params: Mapping[str, float]) -> CurveFormula:
    """Return the law of a name at parameters with the papers' names.

    >>> params = {"L0": 3, "A": 1, "alpha": 0.5, "C": 1, "lambda": 0.9}
    >>> law_from_parameters("annealing", params)
    Annealing(L0=3, A=1, alpha=0.5, C=1, momentum=0.9)

    Raises ValueError for a law that does not read learning rates.
    """
    if name not in LAWS:
        raise ValueError(
            f"the law {name!r} does not read learning rates; it must be one of {', '.join(LAWS)}"
        )
    paper_names = {field: PAPER_NAMES.get(field, field) for field in LAWS[name]._fields}
    return LAWS[name](**{field: params[paper] for field, paper in paper_names.items()})


def _law_of_fit(fit: FittedCurves) -> CurveFormula:
    if not hasattr(fit, "law"):
        raise ValueError(f"expected a whole-curve law or a fit of one; got {fit!r}")
    if isinstance(fit.law, CurveFormula):
        return fit.law
    return law_from_parameters(fit.law.name, fit.params)
