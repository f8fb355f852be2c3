"""Branches of one trunk: how far their errors agree, and what a new run's error may be.

The residual of a row is an effect of its trunk plus the row's own noise. Both are
Gaussian, and the intra-trunk correlation rho is the trunk's share of the variance.
Trunks repeated with other seeds measure rho. Without them, a study has few trunks and
its law absorbs most of their effects. The residuals then say little about rho, and the
rest is an assumption, which `PRIOR` states.

Shapes: n rows, q directions in which the law can move, G values of rho, K draws.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

# With at least this many trunks, whole trunks are resampled and nothing is assumed.
MANY_TRUNKS = 20

# The values of rho that correlated branches may have, equally likely. On the quickstart
# .54 was measured; higher values are assumed, because forecasts from four trunks whose
# rho is .8 would otherwise cover too rarely.
PRIOR = np.linspace(0.8, 0.95, 4)

# Branches count as correlated unless their residuals favour independence by more than
# this. Of the thresholds that were simulated for four trunks without replicates, it is
# the lowest one at which forecasts cover 90% at correlations of .5 and .8.
ODDS = 4.5

# With at least this many trunks that repeat another with a new seed, no correlation is
# assumed: all values of OPEN_PRIOR are equally likely before the residuals are seen.
# Three seeds of two sizes are four repeats.
MEASURING_REPEATS = 4
OPEN_PRIOR = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95])

# A direction of the law counts if its singular value exceeds this, relatively.
MIN_DIRECTION = 1e-7

# Residuals of a robust fit count at most this many spreads: a diverged run says nothing
# of the noise of the others.
CLIP = 4.0


class TrunkErrors(NamedTuple):
    """What residuals say of the errors of trunks and rows."""

    correlations: Float[np.ndarray, " G"]
    """Values of rho; only 0 if the branches count as independent."""
    probabilities: Float[np.ndarray, " G"]
    squares: Float[np.ndarray, " G"]
    """Sum of squared errors at each rho; divided by a chi-square variable on `degrees`
    degrees of freedom it is a draw of the variance of a row."""
    degrees: int
    measured: bool = False
    """Whether repeated trunks tell the correlation, without an assumption."""

    @property
    def correlation(self) -> float:
        """Mean of rho."""
        return float(self.correlations @ self.probabilities)


def trunk_errors(
    residuals: Float[np.ndarray, " n"],
    jacobian: Float[np.ndarray, "n p"],
    trunks: Int[np.ndarray, " n"],
    repeats: int = 0,
) -> TrunkErrors:
    """Judge the correlation of branches from the residuals of a linearized law.

    residuals, jacobian: multiplied by the square roots of the row weights; the columns
    of parameters that cannot move are zero. trunks: labels 0, 1, ... of the rows.
    repeats: number of trunks that repeat another one; see `repeated_trunks`.

    The likelihood of rho is the restricted one (REML), which knows that the law was
    fitted to the same residuals.
    """
    basis, singular, _ = np.linalg.svd(
        jacobian / np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300), full_matrices=False
    )
    basis = basis[:, singular > MIN_DIRECTION * singular.max(initial=1e-300)]
    degrees = max(len(residuals) - basis.shape[1], 1)
    measured = repeats >= MEASURING_REPEATS
    squares, log_likelihoods = np.transpose(
        [
            _restricted(residuals, basis, trunks, rho, degrees)
            for rho in (OPEN_PRIOR if measured else (0.0, *PRIOR))
        ]
    )
    likelihoods = np.exp(log_likelihoods - log_likelihoods.max())
    if measured:
        probabilities = likelihoods / likelihoods.sum()
        return TrunkErrors(OPEN_PRIOR, probabilities, squares, degrees, measured=True)
    if ODDS * likelihoods[1:].mean() <= likelihoods[0]:
        return TrunkErrors(np.zeros(1), np.ones(1), squares[:1], degrees)
    probabilities = likelihoods[1:] / likelihoods[1:].sum()
    return TrunkErrors(PRIOR, probabilities, squares[1:], degrees)


def repeated_trunks(points: Int[np.ndarray, " n"], trunks: Int[np.ndarray, " n"]) -> int:
    """Count the trunks whose rows lie at the same design points as those of another.

    points: labels of rows with equal inputs. trunks: labels 0, 1, ... of the rows. Of
    three trunks at the same points, two are repeats.
    """
    count = int(trunks.max()) + 1
    return count - len({tuple(np.unique(points[trunks == trunk])) for trunk in range(count)})


def draw_errors(
    errors: TrunkErrors, trunks: Int[np.ndarray, " n"], count: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "K n"], Float[np.ndarray, " K"]]:
    """Draw errors of all rows, and of one run of another trunk, at weight 1.

    Each draw has its own correlation and variance, so that intervals are as wide as
    Student's t where degrees of freedom are few.
    """
    picked = rng.choice(len(errors.correlations), size=count, p=errors.probabilities)
    rho = errors.correlations[picked][:, None]
    std = np.sqrt(errors.squares[picked] / rng.chisquare(errors.degrees, size=count))
    effects = rng.standard_normal((count, int(trunks.max()) + 1))[:, trunks]
    noise = rng.standard_normal((count, len(trunks)))
    of_rows = np.sqrt(rho) * effects + np.sqrt(1 - rho) * noise
    return std[:, None] * of_rows, std * rng.standard_normal(count)


def clipped(residuals: Float[np.ndarray, " n"], spread: float) -> Float[np.ndarray, " n"]:
    """Return residuals of a robust fit, limited to CLIP spreads."""
    return np.clip(residuals, -CLIP * spread, CLIP * spread)


def _restricted(
    residuals: Float[np.ndarray, " n"],
    basis: Float[np.ndarray, "n q"],
    trunks: Int[np.ndarray, " n"],
    rho: float,
    degrees: int,
) -> tuple[float, float]:
    """Return the sum of squares and the log restricted likelihood at a correlation."""
    sizes = np.bincount(trunks)
    # The rows of a trunk are equally correlated, so the inverse of their covariance and
    # its determinant have closed forms.
    shared = rho / (1 - rho + rho * sizes)
    by_trunk = trunks[:, None] == np.arange(len(sizes))

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """A^T V^-1 B with the correlation matrix V of the rows."""
        within = (by_trunk.T @ a) * shared[:, None]
        return (a.T @ b - within.T @ (by_trunk.T @ b)) / (1 - rho)

    column = residuals[:, None]
    normal, right = product(basis, basis), product(basis, column)
    squares = float((product(column, column) - right.T @ np.linalg.solve(normal, right))[0, 0])
    squares = max(squares, np.finfo(np.float64).tiny)
    log_determinant = np.sum((sizes - 1) * np.log1p(-rho) + np.log1p(rho * (sizes - 1)))
    log_normal = float(np.linalg.slogdet(normal)[1])
    return squares, -0.5 * (log_determinant + log_normal + degrees * np.log(squares))
