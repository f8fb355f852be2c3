"""Confidence intervals of parameters from bootstrap fits, with open ends.

Shapes: p parameters, K bootstrap fits.
"""

import numpy as np
from jaxtyping import Bool, Float

from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.problem import Problem, coordinates_at, parameters_in_table_units

# The ends of an interval. An end that the data do not determine is None.
Interval = tuple[float | None, float | None]

# Distance from a bound, relative to 1 + |theta|, that counts as being at it.
BOUND_TOLERANCE = 1e-9


def percentile_intervals(
    law: ParametricLaw, problem: Problem, theta: Float[np.ndarray, "p K"], level: float = 0.95
) -> dict[str, Interval]:
    """Return the percentile interval of every parameter that is not held.

    theta: the bootstrap fits. An end is open if it falls among fits that are at a
    bound.

    The intervals are percentile intervals, never reflected around the fit: simulated
    for 240 rows, reflected intervals contain the truth in 89% to 93% of tables, and
    these in 95%.
    """
    below, above = at_bounds(law, problem, theta)
    tail = (1 - level) / 2 * 100
    held, leaders = dict(law.fixed), dict(law.tied)
    intervals = {}
    for name, values in parameters_in_table_units(law, problem, theta)._asdict().items():
        if name in held:
            continue
        # A tied parameter is at its bound when the one that it follows is.
        i = law.names.index(leaders.get(name, name))
        lows, highs = np.where(below[i], -np.inf, values), np.where(above[i], np.inf, values)
        ends = (
            np.percentile(lows, tail, method="inverted_cdf"),
            np.percentile(highs, 100 - tail, method="inverted_cdf"),
        )
        low, high = (float(end) if np.isfinite(end) else None for end in ends)
        intervals[name] = (low, high)
    return intervals


def size_ratios(
    law: ParametricLaw, problem: Problem, theta: Float[np.ndarray, "p K"], level: float = 0.95
) -> dict[str, float]:
    """Return the ratio of the ends of every size's interval at the centre of the data.

    theta: the bootstrap fits; without any there are no ratios. A size is a parameter
    that is solved for as a logarithm. The ratio does not depend on the units of the
    table, while that of A does: where N counts millions of parameters, A is A
    1e6^-alpha, and is known better or worse.
    """
    if not theta.shape[1]:
        return {}
    tail = (1 - level) / 2 * 100
    ends = np.percentile(
        coordinates_at(problem, theta), (tail, 100 - tail), axis=1, method="inverted_cdf"
    )
    names = zip(law.names, law.coordinates, strict=True)
    ratios = zip(names, np.exp(ends[1] - ends[0]), strict=True)
    return {name: float(ratio) for (name, coordinate), ratio in ratios if coordinate.log}


def at_bounds(
    law: ParametricLaw, problem: Problem, theta: Float[np.ndarray, "p K"]
) -> tuple[Bool[np.ndarray, "p K"], Bool[np.ndarray, "p K"]]:
    """Return masks of the parameters with no lower bound, and with no upper bound.

    Two rules extend this from a parameter at its bound to the other one of its term. If
    the size of a term is at its lower bound, the term is nil, and its exponent can be
    anything. If the exponent is zero, the term is a constant, and its size can be
    anything that the other constants compensate.
    """
    slack = BOUND_TOLERANCE * (1 + np.abs(theta))
    held = np.asarray(problem.held)[:, None]
    below = (theta <= problem.low[:, None] + slack) & ~held
    above = (theta >= problem.high[:, None] - slack) & ~held
    for i, coordinate in enumerate(law.coordinates):
        for exponent, _, _ in coordinate.units:
            if not (exponent and coordinate.scale):
                continue
            j = law.names.index(exponent)
            nil = below[i] & ~held[j]
            constant = below[j] & ~held[i] & (law.coordinates[j].low == 0)
            below[j], above[j] = below[j] | nil, above[j] | nil
            below[i], above[i] = below[i] | constant, above[i] | constant
    return below, above
