"""Whether a solution of a whole-curve law can be trusted: its verdict, with reasons.

Shapes: [parameters] one entry per parameter of the law, in the solver's coordinates.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from scalejax.laws.curves.problem import TINY, Objective, Problem

# A coordinate is at a bound within this fraction of its range.
BOUND_TOLERANCE = 1e-6

# The data do not identify the parameters when the smallest singular value of the scaled
# Jacobian is below this fraction of the largest.
MIN_SINGULAR_VALUE = 1e-7

# A parameter takes part in the direction that the data leave open when its loading in
# it exceeds this.
FLAT_DIRECTION_LOADING = 0.3


class Diagnosis(NamedTuple):
    """How far a solution can be trusted."""

    gradient_norm: float
    """Of the minimized objective, without the coordinates at a bound."""
    verdict: str
    """ok, at-boundary, unidentified or not-converged."""
    reasons: tuple[str, ...]
    undetermined: tuple[str, ...]
    """Parameters that the losses leave free to take other values."""


def diagnose(
    problem: Problem,
    x: Float[np.ndarray, " parameters"],
    objective: Objective,
    converged: bool,
) -> Diagnosis:
    """Judge a solution by its gradient, its bounds and its open directions."""
    names = np.array(problem.names)
    r, jacobian = problem.residuals(x, objective)
    weights = problem.irls_weights(r, objective.delta)
    at_bound = problem.free & _at_bound(problem, x)
    inside = problem.free & ~at_bound

    # Linear parameters but L0 span orders of magnitude: their gradient is taken with
    # respect to the logarithm.
    is_coefficient = np.isin(np.arange(len(x)), problem.linear[1:])
    unit = np.where(is_coefficient, np.abs(x), 1.0)
    gradient = (jacobian * unit).T @ (weights * r)
    norm = float(np.linalg.norm(gradient[inside]))

    reasons = [f"{name} is at its bound" for name in names[at_bound]]
    by_design = problem.law.unidentified(
        set(names[problem.free]), problem.n_schedules, problem.n_sizes
    )
    open_names = _open_direction((jacobian * np.sqrt(weights)[:, None])[:, inside], names[inside])
    # Where the design explains it, the same statement about the losses is redundant.
    if by_design.reasons:
        reasons = [*by_design.reasons, *reasons]
    elif open_names:
        reasons.append(f"the losses do not tell {', '.join(open_names)} apart")

    verdict = "at-boundary" if at_bound.any() else "ok"
    undetermined = by_design.parameters | {*open_names}
    if undetermined:
        verdict = "unidentified"
    if not converged:
        verdict, reasons = "not-converged", ["the solver stopped before it converged", *reasons]
    return Diagnosis(norm, verdict, tuple(reasons), tuple(sorted(undetermined)))


def _at_bound(
    problem: Problem, x: Float[np.ndarray, " parameters"]
) -> Bool[np.ndarray, " parameters"]:
    span = problem.high - problem.low
    # A coordinate without an upper bound is compared with its own size.
    width = np.where(np.isfinite(span), span, np.maximum(np.abs(x), 1e-3))
    near_low = x - problem.low < BOUND_TOLERANCE * width
    near_high = problem.high - x < BOUND_TOLERANCE * width
    return near_low | near_high


def _open_direction(
    jacobian: Float[np.ndarray, "residuals inside"], names: np.ndarray
) -> list[str]:
    """Parameters that may change, each or together, at no cost.

    jacobian: weighted by the square root of the IRLS weights. Its columns are scaled to
    unit length, so that the units of the parameters do not matter.
    """
    length = np.linalg.norm(jacobian, axis=0)
    _, values, vectors = np.linalg.svd(jacobian / np.maximum(length, TINY), full_matrices=False)
    if not values.size:
        return []
    flat = vectors[values <= MIN_SINGULAR_VALUE * values[0]]
    return names[np.any(np.abs(flat) > FLAT_DIRECTION_LOADING, axis=0)].tolist()
