"""The best learning rate and batch size of one cell of a sweep, in several ways.

Shapes: the axis of length 2 is (log learning rate, log batch size), and that of length
k is only the log learning rate where one batch size was trained.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from scalejax.laws.hyperparameters.sweep import Sweep, settings

# A cell's loss is close to quadratic within this fraction of its lowest loss. Farther
# out a learning rate that is too high costs more than one that is too low.
SURFACE_RANGE = 0.01

# A quadratic surface of two variables has six coefficients; noise calls for more runs.
MIN_SURFACE_RUNS = 10

# A parabola has three coefficients.
MIN_PARABOLA_RUNS = 4

# Runs whose loss is within this fraction of the lowest count as optimal in the
# published estimator (Li et al. 2025, section 4).
NEAR_RANGE = 0.0025


class Optimum(NamedTuple):
    """Where a cell's loss is lowest."""

    at: Float[np.ndarray, " k"]
    weight: Float[np.ndarray, "k k"]
    """Weight of the cell in the regression: a miss of e has the square e' weight e."""
    runs: int
    """Number of runs that determine the optimum."""


def surface_optimum(cell: Sweep) -> Optimum | None:
    """Find the lowest point of a quadratic surface through the best runs of a cell.

    With u = (log LR, log batch) - centre, least squares gives the relative loss

        L / L_min = c + g'u + u'Hu / 2

    of the settings within SURFACE_RANGE of the best. The surface is lowest at u* =
    -H^-1 g, and missing u* by e costs e'He / 2 in relative loss. H is therefore the
    weight of the optimum: an error in the direction in which learning rate and batch
    size may change together at little cost counts little.

    Returns None where fewer than MIN_SURFACE_RUNS settings are that close to the best,
    where the surface is not convex, and where its lowest point is outside of them.
    """
    pairs, lowest = settings(cell)
    near = lowest <= lowest.min() * (1 + SURFACE_RANGE)
    if near.sum() < MIN_SURFACE_RUNS:
        return None
    centre = pairs[near].mean(0)
    x, y = (pairs[near] - centre).T
    terms = np.column_stack([np.ones(near.sum()), x, y, x * x / 2, x * y, y * y / 2])
    relative_loss = lowest[near] / lowest.min()
    coefficients, _, rank, _ = np.linalg.lstsq(terms, relative_loss, rcond=None)
    _, *gradient, xx, xy, yy = coefficients
    hessian = np.array([[xx, xy], [xy, yy]])
    # A grid with too few learning rates or batch sizes does not determine the surface.
    if rank < terms.shape[1] or np.linalg.eigvalsh(hessian)[0] <= 0:
        return None
    at = centre - np.linalg.solve(hessian, gradient)
    inside = np.all((at >= pairs[near].min(0)) & (at <= pairs[near].max(0)))
    return Optimum(at, hessian, int(near.sum())) if inside else None


def parabola_optimum(cell: Sweep) -> Optimum | None:
    """Find the lowest point of a parabola in log LR, for a cell of one batch size.

    It is `surface_optimum` in one dimension: least squares over the rates within
    SURFACE_RANGE of the best, weighted by the curvature.

    Returns None where fewer than MIN_PARABOLA_RUNS rates are that close to the best,
    where the parabola opens downwards, and where its lowest point is outside of them.
    """
    pairs, lowest = settings(cell)
    near = lowest <= lowest.min() * (1 + SURFACE_RANGE)
    if near.sum() < MIN_PARABOLA_RUNS:
        return None
    rates = pairs[near, 0]
    x = rates - rates.mean()
    terms = np.column_stack([np.ones(len(x)), x, x * x / 2])
    (_, slope, curvature), *_ = np.linalg.lstsq(terms, lowest[near] / lowest.min(), rcond=None)
    if curvature <= 0:
        return None
    at = rates.mean() - slope / curvature
    if not rates.min() <= at <= rates.max():
        return None
    return Optimum(np.array([at]), np.array([[curvature]]), int(near.sum()))


def near_optimum(
    cell: Sweep, swept: tuple[str, ...] = ("learning_rate", "batch_tokens")
) -> Optimum:
    """Average the logs of what was swept over the runs within NEAR_RANGE of the best.

    The published estimator (Li et al. 2025, section 4), in which each of these runs
    counts once in the regression.
    """
    near = cell.loss <= cell.loss.min() * (1 + NEAR_RANGE)
    at = np.array([np.log(getattr(cell, name)[near]).mean() for name in swept])
    return Optimum(at, near.sum() * np.eye(len(swept)), int(near.sum()))
