"""Bootstraps: what each draw is fitted to, and its fit.

All give theta (p, draws) in the solver's coordinates (see `fit.natural`), nan where a draw's fit did not converge, so that draws
of two laws on the same rows stay in step.
"""

import numpy as np

from scalejax.laws.inference.convergence import converged
from scalejax.laws.inference.identification import linearize
from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.multistart import Optimum, refit
from scalejax.laws.solver.newton import State


def pairs_bootstrap(
    law: ParametricLaw,
    at: Optimum,
    count: int,
    rng: np.random.Generator,
    clusters: np.ndarray | None = None,
) -> np.ndarray:
    """Rows drawn with replacement, inputs and target together: the errors may differ from row to row.

    clusters: (rows,) of labels 0, 1, ..; rows of one label are drawn together: they share an error (one run, say).
    """
    weights = _weights(at)
    return _settled(
        at, refit(law, at, resample_counts(rng, len(weights), count, clusters) * weights)
    )


def residual_bootstrap(
    law: ParametricLaw, at: Optimum, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Targets rebuilt from the fit and residuals drawn from all rows, scaled by sqrt(n / (n - k)): k parameters bent to them.

    It takes the errors for exchangeable (row weights for inverse variances), and is too narrow where they are not: on the 240
    points of Besiroglu et al. 2024 the standard deviation of alpha comes out .0084, and .0154 by pairs. Use it where a design is
    too small for pairs and its noise is known to be even.
    """
    weights, found = _weights(at), linearize(law, at).residuals
    rows = len(weights)
    even = found * np.sqrt(weights * rows / max(rows - law.free, 1))
    return _refit_to(law, at, even[rng.integers(rows, size=(count, rows))] / np.sqrt(weights))


def noise_bootstrap(
    law: ParametricLaw, at: Optimum, std: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Targets redrawn around the fit with a known Gaussian noise: parametric, and right only if the law is.

    std: (rows,) in the units of the target; log losses draw the logarithm, with std / predicted, so that targets stay positive.
    """
    found = linearize(law, at).residuals
    targets = np.asarray(at.problem.targets)[: len(found)]
    sizes = std / (targets * np.exp(found)) if at.loss.residual == "log" else std
    return _refit_to(law, at, sizes * rng.standard_normal((count, len(found))))


def resample_counts(
    rng: np.random.Generator, rows: int, count: int, clusters: np.ndarray | None = None
) -> np.ndarray:
    """Bootstrap weights (count, rows): how often each row is drawn; with clusters, rows are drawn together."""
    groups = rows if clusters is None else int(clusters.max()) + 1
    picks = rng.integers(groups, size=(count, groups)) + groups * np.arange(count)[:, None]
    counts = (
        np.bincount(picks.ravel(), minlength=count * groups)
        .reshape(count, groups)
        .astype(np.float64)
    )
    return counts if clusters is None else counts[:, clusters]


def chance_of_too_few_points(rows: int, points: int, free: int) -> float:
    """Chance that a draw of `rows` rows over `points` distinct inputs hits fewer points than a law has free parameters.

    Such a draw has no single best fit, and would stay where it starts: at the fit to all rows, as if nothing were in doubt.

    >>> [round(chance_of_too_few_points(rows, rows, 5), 3) for rows in (6, 8, 10, 20)]
    [0.753, 0.19, 0.018, 0.0]
    """
    if not free:
        return 0.0
    share = (
        np.arange(free) / points
    )  # of the points that are hit already: a chain over 0 .. free - 1 distinct ones
    step = np.diag(share) + np.diag(1 - share[:-1], 1)
    return float(np.linalg.matrix_power(step, rows)[0].sum())


def _refit_to(law: ParametricLaw, at: Optimum, errors: np.ndarray) -> np.ndarray:
    """Fits to the law's own predictions moved by errors (draws, rows), predicted minus observed."""
    rows = errors.shape[1]
    targets, found = np.asarray(at.problem.targets)[:rows], linearize(law, at).residuals
    redrawn = (
        targets * np.exp(found - errors) if at.loss.residual == "log" else targets + found - errors
    )
    return _settled(at, refit(law, at, np.broadcast_to(_weights(at), errors.shape), redrawn))


def _weights(at: Optimum) -> np.ndarray:
    return at.weights[at.weights > 0]


def _settled(at: Optimum, state: State) -> np.ndarray:
    return np.where(converged(state, at.problem, at.weights), np.asarray(state.theta), np.nan)
