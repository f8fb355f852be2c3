"""What a Chinchilla-like law says about spending compute: the optimal run, its bands, and two what-ifs.

Training costs C = 6 N D FLOPs and inference 2 N per token, with N in the count of parameters that the law was fitted on.
Fields of a law may be scalars, or arrays of bootstrap draws; everything broadcasts as numpy does, in float64.
"""

from typing import Any, NamedTuple

import numpy as np

from scalejax.laws.forms import Chinchilla

HALVINGS = 60  # of the bracket e^-60..1: to rounding


class Allocation(NamedTuple):
    """How a run spends its compute."""

    params: np.ndarray
    tokens: np.ndarray
    tokens_per_param: np.ndarray


def compute_optimal(law: Any, flops: Any) -> Allocation:
    """N* and D* of the lowest loss at C = 6 N D: N* = G (C/6)^(beta / (alpha + beta)), D* = C / (6 N*).

    law: Chinchilla, or a law with a `chinchilla` view.  flops: C, > 0. Draws without an optimum (both exponents zero) give nan.

    >>> epoch = Chinchilla(A=477.826, B=2143.417, E=1.817218, alpha=0.347310, beta=0.367172)
    >>> best = compute_optimal(epoch, 5.88e23)
    >>> print(f"{best.params:.3g} {best.tokens:.4g} {best.tokens_per_param:.1f}")
    7.4e+10 1.325e+12 17.9

    Raises ValueError for flops that are not positive.
    """
    law, flops = _chinchilla(law), _positive("flops", flops)
    with np.errstate(all="ignore"):
        params = np.asarray(law.optimal_params(flops))
        return Allocation(params, flops / 6 / params, flops / 6 / params**2)


def params_exponent(law: Any, growth: float = 1.0) -> np.ndarray:
    """beta / (alpha + g beta), the exponent of N* in C where the FLOPs of a token grow as N^g; that of D* is 1 - g times it.

    growth: g, 1 for C = 6 N D. It is below 1 where N leaves out what the FLOPs hold (attention, the head), since that is a larger
    share of small models: alpha A N^-alpha = g beta B D^-beta at the optimum, with D = C / (c N^g).

    >>> print(f"{params_exponent(Chinchilla(A=406.4, B=410.7, E=1.69, alpha=0.34, beta=0.28)):.3f}")
    0.452

    Raises ValueError for a law that is no Chinchilla's.
    """
    law = _chinchilla(law)
    return law.beta / (law.alpha + growth * law.beta)


def compute_optimal_bands(
    draws: Any, flops: Any, level: float = 0.95
) -> tuple[Allocation, Allocation]:
    """Low and high percentile ends of the compute-optimal run at each budget, from a law whose fields are (draws,).

    flops: scalar or (budgets,), as are the ends. An end that enough draws put at nothing, infinity or nowhere is open: 0 or inf.
    """
    law, flops = _chinchilla(draws), np.asarray(flops, np.float64)
    several = law._make(x.reshape(-1, *(1,) * flops.ndim) for x in law)
    found, tail = compute_optimal(several, flops), 50 * (1 - level)
    lows, highs = (
        Allocation(
            *(
                np.percentile(
                    np.nan_to_num(x, nan=at, posinf=np.inf), q, axis=0, method="inverted_cdf"
                )
                for x in found
            )
        )
        for q, at in ((tail, 0.0), (100 - tail, np.inf))
    )
    return lows, highs


def overtraining_penalty(law: Any, flops: Any, factor: Any) -> np.ndarray:
    """Loss above the compute-optimal one at the same C, nats per token, with `factor` times the optimal tokens per parameter.

    At M = factor x D*/N*, N = N* factor^-1/2 and D = D* factor^1/2, so the penalty is
    A N*^-alpha (factor^(alpha/2) - 1) + B D*^-beta (factor^(-beta/2) - 1); a factor below 1 is under-training.

    Raises ValueError for flops or a factor that is not positive.
    """
    best, law = compute_optimal(law, flops), _chinchilla(law)
    stretch = np.log(_positive("factor", factor)) / 2
    size, data = law.A * best.params**-law.alpha, law.B * best.tokens**-law.beta
    return size * np.expm1(law.alpha * stretch) + data * np.expm1(-law.beta * stretch)


def inference_optimal(law: Any, loss: Any, inference_tokens: Any) -> Allocation:
    """N and D of the least 6 N D + 2 N T FLOPs that reach a loss, T tokens of inference (Sardana et al. 2023, arXiv 2401.00448).

    With v the share of the reducible loss r = L - E that is left to the data, D = (B / (r v))^(1/beta),
    N = (A / (r (1 - v)))^(1/alpha), and the cost is least where alpha (1 - v) / (beta v) = 1 + T / (3 D): the left side falls
    with v and the right side rises, so bisection of log v finds the one root. Draws that never reach the loss give nan.

    loss: nats per token.  inference_tokens: T, >= 0; 0 is the compute-optimal run of that loss.
    Raises ValueError when no law reaches the loss, or for a negative T.
    """
    law, target, served = (
        _chinchilla(law),
        np.asarray(loss, np.float64),
        np.asarray(inference_tokens, np.float64),
    )
    if not np.all(served >= 0):
        raise ValueError(
            f"inference_tokens is a number of tokens, 0 or more; got {inference_tokens}"
        )
    if not np.any(target > law.E):
        raise ValueError(
            f"no run reaches a loss of {loss}: the law's irreducible loss is {law.E} nats per token"
        )
    reducible = np.where(target > law.E, target - law.E, np.nan)
    tokens = lambda v: (law.B / (reducible * v)) ** (1 / law.beta)
    with np.errstate(over="ignore"):
        low = np.full(np.broadcast_shapes(reducible.shape, served.shape, law.A.shape), -60.0)
        high = np.zeros_like(low)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            v = np.exp(middle)
            beyond = law.alpha * (1 - v) / (law.beta * v) < 1 + served / (3 * tokens(v))
            low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
        v = np.exp((low + high) / 2)
        params = (law.A / (reducible * (1 - v))) ** (1 / law.alpha)
        return Allocation(params, tokens(v), tokens(v) / params)


def _chinchilla(law: Any) -> Any:
    law = law.chinchilla() if hasattr(law, "chinchilla") else law
    if not isinstance(law, Chinchilla):
        raise ValueError(
            f"the {type(law).__name__} law has no compute-optimal run; Chinchilla and Overtraining have"
        )
    return law._make(np.asarray(x, np.float64) for x in law)


def _positive(name: str, value: Any) -> np.ndarray:
    number = np.asarray(value, np.float64)
    if not np.all((number > 0) & (number < np.inf)):
        raise ValueError(f"{name} is a positive number; got {value}")
    return number
