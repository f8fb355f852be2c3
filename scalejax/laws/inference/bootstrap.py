"""Bootstrap fits: four ways to redraw a table, and the fit to each redrawn table.

All of them return theta (p, draws) in the solver's coordinates. A draw whose fit did
not converge is nan, so that draw i of two laws on the same rows stays draw i.

Shapes: n rows (without padding), p parameters.
"""

import numpy as np
from jaxtyping import Float, Int

from scalejax.laws.inference.convergence import converged
from scalejax.laws.inference.identification import Linearization, linearize
from scalejax.laws.inference.replicates import design_points
from scalejax.laws.inference.spread import residual_spread
from scalejax.laws.inference.trunks import (
    TrunkErrors,
    clipped,
    draw_errors,
    repeated_trunks,
    trunk_errors,
)
from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.multistart import Optimum, refit
from scalejax.laws.solver.newton import State


def pairs_bootstrap(
    law: ParametricLaw,
    optimum: Optimum,
    count: int,
    rng: np.random.Generator,
    clusters: Int[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, "p draws"]:
    """Refit to rows drawn with replacement, inputs and target together.

    It does not assume that the noise is the same in all rows. clusters: labels 0, 1,
    ...; rows with one label are drawn together, because they share an error (of one
    run, say).
    """
    weights = _weights(optimum)
    counts = resample_counts(rng, len(weights), count, clusters)
    return _converged_theta(optimum, refit(law, optimum, counts * weights))


def residual_bootstrap(
    law: ParametricLaw, optimum: Optimum, count: int, rng: np.random.Generator
) -> Float[np.ndarray, "p draws"]:
    """Refit to the law's predictions plus residuals drawn from all rows.

    The residuals are scaled by sqrt(n / (n - k)), because the k free parameters were
    fitted to them, and clipped if the loss is robust. The method assumes exchangeable
    errors, or errors with variances inverse to the row weights, and is too narrow where
    they are not: on the 240 points of Besiroglu et al. 2024 the standard deviation of
    alpha is .0084, and .0154 by pairs. Use it where a design is too small for pairs and
    its noise is known to be even.
    """
    weights, residuals = _weights(optimum), believed_residuals(law, optimum)
    rows = len(weights)
    standardized = residuals * np.sqrt(weights * rows / max(rows - law.free, 1))
    drawn = standardized[rng.integers(rows, size=(count, rows))]
    return refit_to_errors(law, optimum, drawn / np.sqrt(weights))


def noise_bootstrap(
    law: ParametricLaw,
    optimum: Optimum,
    std: Float[np.ndarray, " n"],
    count: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "p draws"]:
    """Refit to the law's predictions plus Gaussian noise of known standard deviations.

    This is a parametric bootstrap, and right only if the law is. std: in units of the
    target. For a loss of logarithms the noise is drawn in the logarithm, with std /
    predicted, so that targets stay positive.
    """
    residuals = linearize(law, optimum).residuals
    targets = np.asarray(optimum.problem.targets)[: len(residuals)]
    relative = optimum.loss.residual == "log"
    scale = std / (targets * np.exp(residuals)) if relative else std
    errors = scale * rng.standard_normal((count, len(residuals)))
    return refit_to_errors(law, optimum, errors)


def trunk_bootstrap(
    law: ParametricLaw,
    optimum: Optimum,
    trunks: Int[np.ndarray, " n"],
    count: int,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "p draws"], Float[np.ndarray, " draws"], TrunkErrors]:
    """Refit to the law's predictions plus effects of trunks and noise of rows.

    trunks: labels 0, 1, ...; rows of one trunk share an effect. Returns theta, the
    errors of one run of another trunk, and what the residuals say of the errors.
    """
    weights, (residuals, jacobian) = _weights(optimum), linearized_errors(law, optimum)
    known = trunk_errors(residuals, jacobian, trunks, repeats(optimum, trunks))
    of_rows, of_new_run = draw_errors(known, trunks, count, rng)
    theta = refit_to_errors(law, optimum, of_rows / np.sqrt(weights))
    return theta, of_new_run, known


def linearized_errors(law: ParametricLaw, optimum: Optimum) -> Linearization:
    """Return the residuals of a law and their derivatives, both at weight 1.

    The columns of parameters that cannot move are zero. Residuals of a robust fit are
    clipped.
    """
    weights, local = _weights(optimum), linearize(law, optimum)
    residuals = believed_residuals(law, optimum) * np.sqrt(weights)
    moving = ~np.asarray(optimum.problem.fixed_at(optimum.theta))
    jacobian = np.where(moving, local.jacobian, 0.0) * np.sqrt(weights)[:, None]
    return Linearization(residuals, jacobian)


def believed_residuals(law: ParametricLaw, optimum: Optimum) -> Float[np.ndarray, " n"]:
    """Return the residuals of a law, clipped if the loss is robust.

    A robust fit hardly moves towards a run that diverged. Redrawn at its full size, the
    residual of that run would count again, as noise of every other run.
    """
    weights, residuals = _weights(optimum), linearize(law, optimum).residuals
    if not np.isfinite(optimum.loss.deltas[-1]):
        return residuals
    spread = residual_spread(residuals, weights, law.free, robust=True)
    return clipped(residuals * np.sqrt(weights), spread) / np.sqrt(weights)


def repeats(optimum: Optimum, trunks: Int[np.ndarray, " n"]) -> int:
    """Return how many trunks of a fitted table repeat the inputs of another trunk."""
    inputs = [np.asarray(x)[: len(trunks)] for x in optimum.problem.inputs]
    return repeated_trunks(design_points(inputs), trunks)


def resample_counts(
    rng: np.random.Generator,
    rows: int,
    count: int,
    clusters: Int[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, "count n"]:
    """Return how often each row is drawn in each of `count` bootstrap resamples.

    With clusters, whole clusters are drawn: labels 0, 1, ..., one per row.
    """
    units = rows if clusters is None else int(clusters.max()) + 1
    picks = rng.integers(units, size=(count, units))
    # All resamples are counted at once: draw d's units are numbered from units * d.
    numbered = picks + units * np.arange(count)[:, None]
    counted = np.bincount(numbered.ravel(), minlength=count * units)
    counts = counted.reshape(count, units).astype(np.float64)
    return counts if clusters is None else counts[:, clusters]


def chance_of_too_few_points(rows: int, points: int, free: int) -> float:
    """Return the chance that a resample has fewer distinct points than parameters.

    rows: rows drawn with replacement. points: distinct inputs among the rows. free:
    free parameters. The fit to such a resample is not unique. It would stay at its
    start, the fit to all rows, and the interval would look better than it is.

    >>> [round(chance_of_too_few_points(rows, rows, 5), 3) for rows in (6, 8, 10, 20)]
    [0.753, 0.19, 0.018, 0.0]
    """
    if not free:
        return 0.0
    # A Markov chain over the number of distinct points so far, 0 to free - 1. A row
    # hits one of them again with this probability; otherwise the number grows by one.
    again = np.arange(free) / points
    transition = np.diag(again) + np.diag(1 - again[:-1], 1)
    return float(np.linalg.matrix_power(transition, rows)[0].sum())


def refit_to_errors(
    law: ParametricLaw, optimum: Optimum, errors: Float[np.ndarray, "draws n"]
) -> Float[np.ndarray, "p draws"]:
    """Refit to the law's own predictions minus errors, predicted - observed."""
    residuals = linearize(law, optimum).residuals
    targets = np.asarray(optimum.problem.targets)[: errors.shape[1]]
    if optimum.loss.residual == "log":
        redrawn = targets * np.exp(residuals - errors)
    else:
        redrawn = targets + residuals - errors
    weights = np.broadcast_to(_weights(optimum), errors.shape)
    return _converged_theta(optimum, refit(law, optimum, weights, redrawn))


def _weights(optimum: Optimum) -> Float[np.ndarray, " n"]:
    """Return the row weights without the padding."""
    return optimum.weights[optimum.weights > 0]


def _converged_theta(optimum: Optimum, state: State) -> Float[np.ndarray, "p draws"]:
    ok = converged(state, optimum.problem, optimum.weights)
    return np.where(ok, np.asarray(state.theta), np.nan)
