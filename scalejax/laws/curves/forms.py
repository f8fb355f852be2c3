"""Laws of a whole loss curve as a function of the learning rate of every step.

eta_t learning rate of step t (0-based), L nats per token, S1(t) = sum of eta_0..eta_t, the true rates of the warm-up included.
The laws give credit for what the rate falls by, d_k = eta_{k-1} - eta_k, from the first step at the peak on: the rise of the
warm-up is no annealing. They are scans in O(T): a curve of 72,000 steps takes about 40 ms on one core.
"""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.scipy.special import gammaln

NODES = 64  # exponentials that stand for the power kernel: within 1e-8 of the whole fall for C .001..100, beta .05..10, gamma 0..1.2
FLOOR = 1e-6  # share of the peak below which eta_k^-gamma stops growing; a schedule may end at zero


class Annealing(NamedTuple):
    """L(t) = L0 + A S1^-alpha - C S2, S2(t) = sum_{i<=t} m_i, m_i = momentum m_{i-1} + d_i (Tissue et al. 2024, eq. 1).

    L0: nats per token, >= 0.  A: > 0.  alpha: > 0.  C: >= 0, nats per unit of rate.  momentum: the paper's lambda, in [0, 1).
    """

    L0: jax.Array | float
    A: jax.Array | float
    alpha: jax.Array | float
    C: jax.Array | float
    momentum: jax.Array | float

    def loss(self, learning_rates: jax.Array) -> jax.Array:
        """Predicted loss after every step, nats per token, (steps,), from the rate of every step."""
        return (
            self.L0
            + self.A * jnp.cumsum(learning_rates) ** -self.alpha
            - self.C * annealed(learning_rates, self.momentum)
        )


class AnnealingSize(NamedTuple):
    """L(t, N) = L0 + A S1^-alpha + B N^-beta - C N^gamma S2 (Tissue et al. 2024, section 5); N parameters, S2 as in Annealing.

    L0: nats per token, >= 0.  A, B: > 0.  alpha, beta: > 0.  C: >= 0, nats per unit of rate at N = 1.  momentum: the paper's
    lambda, in [0, 1).  gamma: either sign; positive where larger models gain more from annealing.
    """

    L0: jax.Array | float
    A: jax.Array | float
    alpha: jax.Array | float
    B: jax.Array | float
    beta: jax.Array | float
    C: jax.Array | float
    momentum: jax.Array | float
    gamma: jax.Array | float

    def at(self, N: jax.Array | float) -> Annealing:
        """The annealing law of a model of N parameters: L0 + B N^-beta for L0, C N^gamma for C.

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

    def loss(self, learning_rates: jax.Array, N: jax.Array | float) -> jax.Array:
        """Predicted loss after every step, nats per token, (steps,), from the rate of every step and the parameters N."""
        return self.at(N).loss(learning_rates)

    def in_units(self, unit: float) -> "AnnealingSize":
        """The same law of N / unit."""
        return self._replace(B=self.B * unit**-self.beta, C=self.C * unit**self.gamma)


class MultiPower(NamedTuple):
    """L(t) = L0 + A S1^-alpha - B sum_{k<=t} d_k G(eta_k^-gamma S_k(t)), G(x) = 1 - (1 + C x)^-beta, S_k(t) = eta_k + .. + eta_t.

    Luo et al. 2025 (arXiv 2503.12811), eq. 3.  L0: nats per token, >= 0.  A, alpha, B, C, beta: >= 0.  gamma: >= 0.
    """

    L0: jax.Array | float
    A: jax.Array | float
    alpha: jax.Array | float
    B: jax.Array | float
    C: jax.Array | float
    beta: jax.Array | float
    gamma: jax.Array | float

    def loss(self, learning_rates: jax.Array) -> jax.Array:
        """Predicted loss after every step, nats per token, (steps,), from the rate of every step."""
        steps = every_step(learning_rates)
        gain = self.B * power_annealed(steps, self.C, self.beta, self.gamma)
        return self.L0 + self.A * jnp.cumsum(learning_rates) ** -self.alpha - gain


LAWS = {"annealing": Annealing, "annealing-size": AnnealingSize, "multipower": MultiPower}
PAPER = {"momentum": "lambda"}
"""Fields whose name in the papers, in tables and in files Python keeps for itself."""


def decrements(learning_rates, xp: Any = jnp):
    """d_k = eta_{k-1} - eta_k after the first step at the peak, 0 up to it; xp is jax.numpy or numpy."""
    fall = -xp.diff(learning_rates, prepend=learning_rates[:1])
    return xp.where(xp.arange(fall.size) > xp.argmax(learning_rates), fall, 0)


def annealed(learning_rates: jax.Array, momentum: jax.Array | float) -> jax.Array:
    """S2 of the annealing law after every step: the running sum of m_i = momentum m_{i-1} + d_i."""

    def step(carry, fall):
        m, total = carry
        m = momentum * m + fall
        return (m, total + m), total + m

    zero = jnp.zeros((), learning_rates.dtype) * momentum
    return jax.lax.scan(step, (zero, zero), decrements(learning_rates))[1]


class Steps(NamedTuple):
    """Steps, or blocks of steps, of curves end to end: each advances S by before + after, and `drop` falls in between."""

    before: jax.Array | np.ndarray
    after: jax.Array | np.ndarray
    drop: jax.Array | np.ndarray
    log_rate: jax.Array | np.ndarray
    carry: jax.Array | np.ndarray
    """0 at the first block of a curve, 1 elsewhere."""


def every_step(learning_rates: jax.Array) -> Steps:
    """The finest blocks: S_k(t) counts step k itself."""
    low = FLOOR * learning_rates.max()
    rates = jnp.log(jnp.maximum(learning_rates, low))
    nothing = jnp.zeros_like(learning_rates)
    return Steps(nothing, learning_rates, decrements(learning_rates), rates, nothing + 1)


def power_annealed(steps: Steps, C, beta, gamma) -> jax.Array:
    """sum_k d_k [1 - (1 + C eta_k^-gamma S_k(t))^-beta] over the curve's blocks k up to each block t, in O(T).

    (1 + c x)^-beta is a mixture of exponentials exp(-r x) with a gamma density in r (shape beta, scale c), so that the sum over
    all k is one first-order recurrence per exponential. The density is integrated by the trapezoid rule in log r, which
    converges exponentially; its ends leave out about 1e-10 of the sum.
    """
    log_c = jnp.log(C) - gamma * steps.log_rate
    falls = steps.drop != 0
    high, low = jnp.where(falls, log_c, -jnp.inf).max(), jnp.where(falls, log_c, jnp.inf).min()
    high, low = jnp.where(falls.any(), high, 0.0), jnp.where(falls.any(), low, 0.0)
    longest = jnp.log((steps.before + steps.after).sum())
    top = high + jnp.log(beta + 8 * jnp.sqrt(beta) + 30)
    tail = jnp.log(1e-10) + gammaln(beta) + jnp.log1p(beta) - jnp.maximum(low + longest, 0)
    bottom = jnp.minimum(low + tail / (beta + 1), top - 1)
    log_r = jax.lax.stop_gradient(jnp.linspace(bottom, top, NODES))
    r, width = jnp.exp(log_r), log_r[1] - log_r[0]

    def step(sums, block):
        before, after, drop, c, carry = block
        waiting, total = (carry * x for x in sums)
        share = drop * jnp.exp(beta * (log_r - c) - jnp.exp(log_r - c))
        waiting = jnp.exp(-r * after) * (jnp.exp(-r * before) * waiting + share)
        total = total + share
        return (waiting, total), jnp.sum(total - waiting)

    zero = jnp.zeros(NODES, log_r.dtype) * (C * beta * gamma)
    _, sums = jax.lax.scan(step, (zero, zero), (*steps[:3], log_c, steps.carry))
    return sums * width * jnp.exp(-gammaln(beta))


@jax.jit
def _loss(law, learning_rates):
    return law.loss(learning_rates)


def predict_curve(fit: Any, learning_rates, *, params: float | None = None) -> np.ndarray:
    """Loss after every step, nats per token, in float64.

    fit: a law of this module, or a fit of one, to arrays or to a table.  learning_rates: the
    rate of EVERY step from step 0, warm-up included, (steps,).
    params: the model's parameters, for the law that reads them.

    Raises ValueError on a negative or missing rate, when no rate is above zero, or when params is missing or not read.
    """
    rates = checked_rates(learning_rates)
    with jax.enable_x64(True):
        return np.asarray(_loss(curve_law(fit, params), jnp.asarray(rates)))


def curve_law(fit: Any, params: float | None = None) -> Annealing | MultiPower:
    """The law of learning rates alone that a law, or a fit of one, gives at a size; its parameters in float64 where enabled."""
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


def law_from_parameters(
    name: str, params: Mapping[str, float]
) -> Annealing | AnnealingSize | MultiPower:
    """Returns the law of a name such as "annealing" at parameters with the papers' names.

    >>> law_from_parameters("annealing", dict(L0=3, A=1, alpha=0.5, C=1, **{"lambda": 0.9}))
    Annealing(L0=3, A=1, alpha=0.5, C=1, momentum=0.9)

    Raises ValueError for a law that does not read learning rates.
    """
    if name not in LAWS:
        raise ValueError(f"the law {name!r} does not read learning rates; fit {', '.join(LAWS)}")
    named = {field: PAPER.get(field, field) for field in LAWS[name]._fields}
    return LAWS[name](**{field: params[paper] for field, paper in named.items()})


def _fitted(fit: Any) -> Annealing | AnnealingSize | MultiPower:
    """The law of a fit to arrays, or of a fit to a table."""
    if not hasattr(fit, "law"):
        raise ValueError(f"expected a whole-curve law or a fit of one; got {fit!r}")
    if isinstance(fit.law, tuple(LAWS.values())):
        return fit.law
    return law_from_parameters(fit.law.name, fit.params)


def checked_rates(learning_rates, name: str = "learning_rates") -> np.ndarray:
    """The rates in float64; ValueError unless they are finite, not negative and not all zero."""
    rates = np.asarray(learning_rates, np.float64)
    if rates.ndim != 1 or not rates.size:
        raise ValueError(
            f"{name}: expected the learning rate of every step, one dimension, got shape {rates.shape}"
        )
    bad = np.flatnonzero(~(np.isfinite(rates) & (rates >= 0)))
    if bad.size:
        raise ValueError(
            f"{name}: the rate of step {bad[0]} is {rates[bad[0]]}; rates are finite and not negative"
        )
    if not rates.any():
        raise ValueError(f"{name}: every rate is zero, nothing is trained")
    return rates


class BestSchedule(NamedTuple):
    """Rates of every step, the loss predicted at the last one, and where the law was asked beyond the curves it was fitted on."""

    learning_rates: np.ndarray
    loss: float
    reasons: tuple[str, ...]


def best_schedule(
    fit,
    *,
    steps: int,
    peak: float,
    floor: float,
    warmup: int = 0,
    knots: int = 64,
    seen=(),
    params: float | None = None,
) -> BestSchedule:
    """The rates that minimize the predicted final loss: linear warm-up, then never rising, never below the floor.

    peak, floor: learning rates, 0 < floor < peak.  steps, warmup: counts of steps.  seen: the rates of the curves the law was
    fitted on (each an array); beyond their range of rates, steps or summed rates a warning says that the law extrapolates.
    params: as in `predict_curve`.
    Gradients through the law (L-BFGS over the falls between `knots`). The annealing law is linear in S2 and asks for ever
    longer annealing, hence the floor has no default.
    """
    if not 0 < floor < peak:
        raise ValueError(f"best_schedule needs 0 < floor < peak, got floor={floor}, peak={peak}")
    if not 0 <= warmup < steps - knots:
        raise ValueError(
            f"best_schedule needs warmup + knots < steps, got warmup={warmup}, knots={knots}, steps={steps}"
        )
    position = np.linspace(0, knots, steps - warmup)
    rise = peak * np.arange(1, warmup + 1) / (warmup + 1)

    def rates(z):  # falls between knots are a softmax; its last share is what is never spent
        spent = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jax.nn.softmax(z))[:-1]])
        return jnp.concatenate(
            [
                jnp.asarray(rise),
                peak - (peak - floor) * jnp.interp(position, np.arange(knots + 1), spent),
            ]
        )

    with jax.enable_x64(True):
        law = curve_law(fit, params)
        final = jax.jit(jax.value_and_grad(lambda z: law.loss(rates(z))[-1]))
        start = np.r_[np.zeros(knots), 0.0]
        found = scipy.optimize.minimize(
            lambda z: [np.asarray(x) for x in final(z)],
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(-30, 30)] * (knots + 1),
        )
        best = np.asarray(rates(jnp.asarray(found.x)))
    reasons = _beyond(best, [checked_rates(curve) for curve in seen])
    for reason in reasons:
        warnings.warn(reason, stacklevel=2)
    return BestSchedule(best, float(found.fun), reasons)


def _beyond(rates, seen) -> tuple[str, ...]:
    if not seen:
        return (
            "the law extrapolates where it has not been fitted; pass the fitted curves as `seen` to be told where",
        )
    lowest = min(curve[np.argmax(curve) :].min() for curve in seen)
    facts = (
        (
            rates[-1] < 0.999 * lowest,
            f"the last rate {rates[-1]:.3g} is below {lowest:.3g}, the lowest after the peak",
        ),
        (
            rates.max() > 1.001 * max(c.max() for c in seen),
            f"the peak {rates.max():.3g} is above every peak",
        ),
        (
            len(rates) > max(map(len, seen)),
            f"{len(rates)} steps are more than the longest curve has",
        ),
        (
            rates.sum() > 1.001 * max(c.sum() for c in seen),
            f"the summed rate {rates.sum():.3g} is above the largest",
        ),
    )
    return tuple(
        f"the law extrapolates: {what} of the curves it was fitted on"
        for beyond, what in facts
        if beyond
    )
