"""How well curves determine a whole-curve law: bootstraps over curves, and profiles.

Shapes: [rows] one entry per measured loss; [draws] one per bootstrap resample.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from scalejax.laws.curves.data import CurveData
from scalejax.laws.curves.separable import SEPARABLE_LAWS, Coordinate
from scalejax.laws.curves.solver import CurveFit, default_weights, fit_curves

# A draw is at a bound of the solver within this, in the solver's coordinate.
AT_BOUND = 1e-3


def bootstrap_curves(
    law: str,
    data: CurveData,
    fit: CurveFit,
    *,
    draws: int,
    seed: int = 0,
    units: Int[np.ndarray, " rows"] | None = None,
    loss: str = "huber:1e-3",
    fixed: Mapping[str, float] | None = None,
    weights: Float[np.ndarray, " rows"] | None = None,
    prior: bool = True,
) -> dict[str, Float[np.ndarray, " draws"]]:
    """Refit a law to resampled curves, from a fit to all of them.

    Whole curves are resampled, because the losses of one curve are not independent.
    units: a number from 0 for every row, to resample groups of curves in place of
    curves. The other arguments are those of `fit_curves` that gave the fit.

    Returns the draws of every parameter, nan where a resample does not determine it: if
    all its curves have one schedule, say, the refit of lambda stays where it starts.
    """
    weights = default_weights(law, data, prior) if weights is None else weights
    # A resample is a vector of weights on the same rows: how often it has each unit.
    units = data.curve if units is None else units
    count = int(units.max()) + 1
    rng = np.random.default_rng(seed)
    multiplicities = rng.multinomial(count, np.full(count, 1 / count), size=draws)
    # Few curves have few different resamples, and each of them is fitted once.
    distinct, which = np.unique(multiplicities, axis=0, return_inverse=True)
    refits = []
    for multiplicity in distinct:
        refit = fit_curves(
            law,
            data,
            loss=loss,
            fixed=fixed,
            weights=multiplicity[units] * weights,
            prior=prior,
            start=fit,
        )
        lost = refit.params if refit.verdict == "not-converged" else refit.undetermined
        refits.append(refit.params | dict.fromkeys(lost, np.nan))
    return {
        name: np.array([params[name] for params in refits])[which.ravel()] for name in fit.params
    }


def intervals(
    law: str, draws: Mapping[str, Float[np.ndarray, " draws"]], level: float = 0.95
) -> dict[str, tuple[float | None, float | None]]:
    """Percentile intervals of the draws of every parameter.

    An end is None, that is open, where it lies at a bound that only the solver has. A
    bound of zero belongs to the parameter itself, and an interval may end there. Draws
    without a value, nan, may lie beyond either end: both are open if these are more
    than the tail.
    """
    tail, ends = (1 - level) / 2, {}
    for name, coordinate in SEPARABLE_LAWS[law].coordinates.items():
        known = draws[name][np.isfinite(draws[name])]
        if len(known) < (1 - tail) * len(draws[name]):
            ends[name] = (None, None)
            continue
        low, high = np.percentile(known, [100 * tail, 100 * (1 - tail)])
        ends[name] = (_open_at_bound(coordinate, low), _open_at_bound(coordinate, high))
    return ends


def _open_at_bound(coordinate: Coordinate, end: float) -> float | None:
    bounds = [bound for bound in (coordinate.low, coordinate.high) if bound != 0]
    at_bound = np.isclose(coordinate.encode(end), bounds, rtol=0, atol=AT_BOUND).any()
    return None if at_bound else float(end)


def profile_curves(
    law: str,
    data: CurveData,
    name: str,
    values: Sequence[float],
    *,
    loss: str = "huber:1e-3",
    fixed: Mapping[str, float] | None = None,
    weights: Float[np.ndarray, " rows"] | None = None,
    prior: bool = True,
) -> Float[np.ndarray, " values"]:
    """The objective with one parameter held at each value: its profile.

    The other parameters are fitted anew at every value. Where the profile is flat, the
    curves do not tell the values apart. The other arguments are as for `fit_curves`.
    """

    def objective(value: float) -> float:
        held = dict(fixed or {}) | {name: value}
        fit = fit_curves(law, data, loss=loss, fixed=held, weights=weights, prior=prior)
        return fit.objective

    return np.array([objective(value) for value in values])
