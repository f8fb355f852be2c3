"""Which run reaches a loss: a fitted law read backwards."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from scalejax.fitting.extrapolation import extrapolation
from scalejax.fitting.parametric.evaluate import evaluate
from scalejax.fitting.resampling import percentile_ends
from scalejax.fitting.result import LEVEL, Estimate, Forecast, Interval
from scalejax.laws import optimal
from scalejax.laws.law import ParametricLaw

# A run is looked for this many times beyond the fitted rows, and below them.
SEARCH_DISTANCE = 1e9

# Narrows the bracket of the logarithm to float64 resolution.
BISECTIONS = 60

# (params of the law, log of the input that is looked for) -> the law's prediction. Both
# may be arrays of draws.
Prediction = Callable[[dict[str, Any], np.ndarray], np.ndarray]


class FittedLaw(NamedTuple):
    """What a fit knows of its law."""

    law: ParametricLaw[Any]
    params: dict[str, float]
    draws: dict[str, np.ndarray]
    """Bootstrap draws of each parameter that converged, (draws,); may be empty."""
    ranges: dict[str, tuple[float, float]]
    """Smallest and largest fitted value of each input."""


def required_run(fit: FittedLaw, given: dict[str, float]) -> Forecast:
    """Return the run that reaches a target, such as the params for a loss and tokens.

    given: the target, and all inputs of the law but one; for a law of (params, tokens)
    also the target by itself: then the run is the compute-optimal one of lowest
    compute, and the estimate is its FLOPs under C = 6 N D.

    The interval is that of the law, over its bootstrap draws. A single run differs from
    the law by its noise.

    Raises ValueError for other inputs, and for a target that no run reaches.
    """
    law, target = fit.law, given[fit.law.target]
    known = {name: value for name, value in given.items() if name != law.target}
    missing = [name for name in law.inputs if name not in known]
    if not known and law.inputs == ("params", "tokens"):
        return _cheapest_run(fit, target)
    if len(missing) != 1 or missing[0] in law.signed or len(known) != len(law.inputs) - 1:
        raise ValueError(
            f"to find the run of a {law.target}, the {law.name} law needs all of "
            f"{', '.join(law.inputs)} but one; got {', '.join(known) or 'none of them'}"
        )
    (wanted,) = missing

    def predict(params: dict[str, Any], log_value: np.ndarray) -> np.ndarray:
        inputs = known | {wanted: np.exp(log_value)}
        return evaluate(law, params, [np.asarray(inputs[name]) for name in law.inputs])

    low, high = fit.ranges[wanted]
    value, ends, method = _solve(fit, predict, target, (low, high), wanted)
    run = known | {wanted: value}
    distance = extrapolation(run, fit.ranges)
    estimate = Estimate(value, *ends, LEVEL, "; ".join([method, *distance]))
    return Forecast(estimate, run | {law.target: target}, {})


def _cheapest_run(fit: FittedLaw, target: float) -> Forecast:
    """Return the compute-optimal run of a target."""
    law = fit.law

    def best(params: dict[str, Any], flops: Any) -> optimal.Allocation:
        return optimal.compute_optimal(law.form(**params), flops)

    def predict(params: dict[str, Any], log_flops: np.ndarray) -> np.ndarray:
        run = best(params, np.exp(log_flops))
        return evaluate(law, params, [run.params, run.tokens])

    ends_of_inputs = [fit.ranges[name] for name in law.inputs]
    low, high = (6 * float(np.prod(ends)) for ends in zip(*ends_of_inputs, strict=True))
    value, ends, method = _solve(fit, predict, target, (low, high), "flops")
    at = best(fit.params, value)
    run = {"flops": value, "params": float(at.params), "tokens": float(at.tokens)}
    distance = extrapolation(run, fit.ranges)
    estimate = Estimate(value, *ends, LEVEL, "; ".join([method, *distance]))
    return Forecast(estimate, run | {law.target: target}, {})


def _solve(
    fit: FittedLaw,
    predict: Prediction,
    target: float,
    span: tuple[float, float],
    wanted: str,
) -> tuple[float, Interval, str]:
    """Return the value at which the law predicts the target, its interval, and how.

    span: smallest and largest fitted value of what is wanted.
    """
    bracket = (span[0] / SEARCH_DISTANCE, span[1] * SEARCH_DISTANCE)
    value = float(_bisect(predict, fit.params, target, bracket, shape=(1,))[0])
    if not 0 < value < np.inf:
        nearest = float(predict(fit.params, np.log([bracket[1] if value else bracket[0]]))[0])
        raise ValueError(
            f"no run reaches a {fit.law.target} of {target:g}: at {wanted} of "
            f"{bracket[1] if value else bracket[0]:.2g} the law predicts {nearest:.4g}"
        )
    draws = fit.draws
    if not draws:
        return value, (None, None), "no interval"
    count = len(next(iter(draws.values())))
    values = _bisect(predict, draws, target, bracket, shape=(count,))
    # A draw that reaches the target nowhere leaves the end on its side open.
    ((low, high),) = percentile_ends(np.clip(values, bracket[0] / 2, bracket[1] * 2)[:, None])
    interval = (
        low if low is not None and low >= bracket[0] else None,
        high if high is not None and high <= bracket[1] else None,
    )
    return value, interval, f"{count} bootstrap draws, of the law without the noise of a run"


def _bisect(
    predict: Prediction,
    params: dict[str, Any],
    target: float,
    bracket: tuple[float, float],
    shape: tuple[int, ...],
) -> np.ndarray:
    """Find where predictions cross the target: 0 or inf where that is off the bracket.

    It is nan where the law predicts nothing.
    """
    low, high = (np.full(shape, np.log(end)) for end in bracket)
    at_low, at_high = predict(params, low), predict(params, high)
    # Losses fall with size and tokens; an exponent of a hyperparameter may rise.
    falls = at_high < at_low
    too_low = np.where(falls, at_low < target, at_low > target)
    too_high = np.where(falls, at_high > target, at_high < target)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        predicted = predict(params, middle)
        beyond = np.where(falls, predicted > target, predicted < target)
        low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
    found = np.where(too_low, 0.0, np.where(too_high, np.inf, np.exp((low + high) / 2)))
    return np.where(np.isfinite(at_low + at_high), found, np.nan)
