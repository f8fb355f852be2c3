"""How to spend compute under a Chinchilla-like law.

The compute-optimal run, its confidence bands, the price of over-training, and the run
that is cheapest in training and inference together.

Training costs C = 6 N D FLOPs and inference 2 N FLOPs per token, with N in the
parameter count that the law was fitted on. The fields of a law may be scalars, or
arrays of bootstrap draws. Everything broadcasts as numpy does, in float64.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import ArrayLike, Float

from scalejax.laws.forms import Chinchilla
from scalejax.laws.law import Number

# Narrows the bracket [e^-60, 1] to float64 resolution.
BISECTIONS = 60


@runtime_checkable
class ChinchillaView(Protocol):
    """A law that can be written as Chinchilla's, such as `Overtraining`."""

    def chinchilla(self) -> Chinchilla: ...


class LawWithOptimum(Protocol):
    """A law that knows its compute-optimal size, such as `Interaction`."""

    def optimal_params(self, C: Number) -> Number: ...


class Allocation(NamedTuple):
    """How a run spends its compute."""

    params: Float[np.ndarray, "..."]
    tokens: Float[np.ndarray, "..."]
    tokens_per_param: Float[np.ndarray, "..."]


def compute_optimal(
    law: Chinchilla | ChinchillaView | LawWithOptimum, flops: ArrayLike
) -> Allocation:
    """Return the run of lowest loss at a budget C = 6 N D.

    N* = G (C/6)^(beta / (alpha + beta)) and D* = C / (6 N*).  flops: C, > 0. Bootstrap
    draws without an optimum, whose exponents are both zero, give nan.

    >>> epoch = Chinchilla(477.826, 2143.417, 1.817218, 0.347310, 0.367172)
    >>> best = compute_optimal(epoch, 5.88e23)
    >>> print(f"{best.params:.3g} {best.tokens:.4g} {best.tokens_per_param:.1f}")
    7.4e+10 1.325e+12 17.9

    Raises ValueError for flops that are not positive, or for a law without an optimum.
    """
    flops, wide = _positive("flops", flops), _law_with_optimum(law)
    with np.errstate(all="ignore"):
        params = np.asarray(wide.optimal_params(flops))
        return Allocation(params, flops / 6 / params, flops / 6 / params**2)


def params_exponent(
    law: Chinchilla | ChinchillaView, growth: float = 1.0
) -> Float[np.ndarray, "..."]:
    """Return beta / (alpha + g beta), the exponent of N* in C when C = c N^g D.

    The exponent of D* is 1 - g times it.

    growth: g, which is 1 for C = 6 N D. It is below 1 when N leaves out parameters
    whose FLOPs C counts (the head, or attention), because these are a larger share of
    small models. At the optimum, alpha A N^-alpha = g beta B D^-beta.

    >>> hoffmann = Chinchilla(A=406.4, B=410.7, E=1.69, alpha=0.34, beta=0.28)
    >>> print(f"{params_exponent(hoffmann):.3f}")
    0.452

    Raises ValueError for a law that is not Chinchilla's.
    """
    wide = _in_float64(law)
    return wide.beta / (wide.alpha + growth * wide.beta)


def compute_optimal_bands(
    draws: Chinchilla | ChinchillaView | LawWithOptimum, flops: ArrayLike, level: float = 0.95
) -> tuple[Allocation, Allocation]:
    """Return the ends of percentile intervals of the compute-optimal run.

    draws: the law with fields of shape (draws,).  flops: a scalar or (budgets,), and so
    are the ends.  level: coverage of the interval.

    An end is open, 0 or inf, when enough draws put the optimum at zero or infinity, or
    have none.
    """
    wide, flops = _law_with_optimum(draws), np.asarray(flops, np.float64)
    columns = type(wide)._make(x.reshape(-1, *(1,) * flops.ndim) for x in wide)
    optima, tail = compute_optimal(columns, flops), 50 * (1 - level)
    low = (_percentile(x, tail, missing=0.0) for x in optima)
    high = (_percentile(x, 100 - tail, missing=np.inf) for x in optima)
    return Allocation(*low), Allocation(*high)


def overtraining_penalty(
    law: Chinchilla | ChinchillaView, flops: ArrayLike, factor: ArrayLike
) -> Float[np.ndarray, "..."]:
    """Return the loss above the compute-optimal one at equal C, in nats per token.

    factor: tokens per parameter relative to the compute-optimal ratio; below 1 is
    under-training. At M = factor x D*/N*, N = N* factor^-1/2 and D = D* factor^1/2, so
    the penalty is A N*^-alpha (factor^(alpha/2) - 1) + B D*^-beta (factor^(-beta/2) -
    1).

    Raises ValueError for flops or a factor that is not positive.
    """
    best, wide = compute_optimal(law, flops), _in_float64(law)
    stretch = np.log(_positive("factor", factor)) / 2
    size, data = wide.A * best.params**-wide.alpha, wide.B * best.tokens**-wide.beta
    return size * np.expm1(wide.alpha * stretch) + data * np.expm1(-wide.beta * stretch)


def inference_optimal(
    law: Chinchilla | ChinchillaView, loss: ArrayLike, inference_tokens: ArrayLike
) -> Allocation:
    """Return the run that is cheapest in training and inference at a given loss.

    It minimizes 6 N D + 2 N T for T tokens of inference (Sardana et al. 2023, arXiv
    2401.00448).

    loss: nats per token.  inference_tokens: T, >= 0; 0 gives the compute-optimal run of
    that loss. Bootstrap draws that never reach the loss give nan.

    Raises ValueError when no draw of the law reaches the loss, or for a negative T.
    """
    wide = _in_float64(law)
    target = np.asarray(loss, np.float64)
    served = np.asarray(inference_tokens, np.float64)
    if not np.all(served >= 0):
        raise ValueError(f"inference_tokens must be 0 or more; got {inference_tokens}")
    if not np.any(target > wide.E):
        raise ValueError(
            f"no run reaches a loss of {loss}: the law's irreducible loss is {wide.E} "
            "nats per token"
        )
    reducible = np.where(target > wide.E, target - wide.E, np.nan)
    with np.errstate(over="ignore"):
        share = _data_share(wide, reducible, served)
        tokens = _tokens_at_share(wide, reducible, share)
        params = (wide.A / (reducible * (1 - share))) ** (1 / wide.alpha)
        return Allocation(params, tokens, tokens / params)


class _Float64(NamedTuple):
    """The fields of a Chinchilla law as float64 arrays."""

    A: np.ndarray
    B: np.ndarray
    E: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray


def _law_with_optimum(law: Any) -> Any:
    """The law with fields in float64, or its view as Chinchilla's law."""
    if callable(getattr(law, "optimal_params", None)):
        return type(law)(*(np.asarray(x, np.float64) for x in law))
    return Chinchilla._make(_in_float64(law))


def _in_float64(law: Chinchilla | ChinchillaView) -> _Float64:
    if isinstance(law, ChinchillaView):
        law = law.chinchilla()
    if not isinstance(law, Chinchilla):
        raise ValueError(
            f"the {type(law).__name__} law has no compute-optimal run; "
            "Chinchilla, Overtraining and Interaction have"
        )
    return _Float64(*(np.asarray(x, np.float64) for x in law))


def _positive(name: str, value: ArrayLike) -> np.ndarray:
    number = np.asarray(value, np.float64)
    if not np.all((number > 0) & (number < np.inf)):
        raise ValueError(f"{name} must be positive; got {value}")
    return number


def _percentile(values: np.ndarray, percent: float, *, missing: float) -> np.ndarray:
    """Percentile over the draws, with nan counted as the value `missing`."""
    values = np.nan_to_num(values, nan=missing, posinf=np.inf)
    return np.percentile(values, percent, axis=0, method="inverted_cdf")


def _data_share(law: _Float64, reducible: np.ndarray, served: np.ndarray) -> np.ndarray:
    """The share v of the reducible loss L - E that the data term should hold.

    D = (B / (r v))^(1/beta) and N = (A / (r (1 - v)))^(1/alpha) with r the reducible
    loss. The cost is least where alpha (1 - v) / (beta v) = 1 + T / (3 D). The left
    side falls with v and the right side rises, so bisection of log v finds the only
    root.
    """
    shape = np.broadcast_shapes(reducible.shape, served.shape, law.A.shape)
    low, high = np.full(shape, -60.0), np.zeros(shape)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        v = np.exp(middle)
        tokens = _tokens_at_share(law, reducible, v)
        beyond = law.alpha * (1 - v) / (law.beta * v) < 1 + served / (3 * tokens)
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return np.exp((low + high) / 2)


def _tokens_at_share(law: _Float64, reducible: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Tokens at which the data term is this share of the reducible loss."""
    return (law.B / (reducible * share)) ** (1 / law.beta)
