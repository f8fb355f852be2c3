"""Errors of two laws on matching rows: how far they agree, and draws of both.

Runs of two recipes that share size, budget and seed share part of their error, so their
difference is better known than either. The errors of a pair are Gaussian with a 2 x 2
covariance S. Those of pairs of one trunk have the correlation rho besides, as in
`scalejax.laws.inference.trunks`.

Shapes: m pairs, p parameters, G values of rho, K draws.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from scalejax.laws.inference.identification import Linearization
from scalejax.laws.inference.trunks import MANY_TRUNKS, MIN_DIRECTION, ODDS, PRIOR

# With fewer degrees of freedom than this, the pairs say too little of S.
MIN_DEGREES = 3

# With many trunks their residuals tell rho, and nothing is assumed of it.
FLAT_PRIOR = np.linspace(0.0, 0.95, 20)


class PairErrors(NamedTuple):
    """What residuals say of the errors of pairs."""

    correlations: Float[np.ndarray, " G"]
    """Values of rho; only 0 if the branches of a trunk count as independent."""
    probabilities: Float[np.ndarray, " G"]
    roots: Float[np.ndarray, "G 2 2"]
    """Square roots of the sum over pairs of r r^T, at each rho."""
    degrees: int
    """Of freedom, those of a single difference of the two errors."""

    @property
    def correlation(self) -> float:
        """Correlation of the two errors of a pair."""
        scatter = np.einsum("gij,gkj,g->ik", self.roots, self.roots, self.probabilities)
        return float(scatter[0, 1] / max(np.sqrt(scatter[0, 0] * scatter[1, 1]), 1e-300))


def pair_errors(
    first: Linearization, second: Linearization, trunks: Int[np.ndarray, " m"]
) -> PairErrors | None:
    """Judge how the errors of pairs agree, from the residuals of two linearized laws.

    first, second: the residuals of pair i are in row i of both; the columns of
    parameters that cannot move are zero. trunks: labels 0, 1, ... of the pairs.

    Returns None if the pairs leave fewer than MIN_DEGREES degrees of freedom.
    """
    bases = [_basis(law.jacobian) for law in (first, second)]
    degrees = len(trunks) - max(basis.shape[1] for basis in bases)
    if degrees < MIN_DEGREES:
        return None
    residuals = np.stack([first.residuals, second.residuals], axis=1)
    prior = PRIOR if int(trunks.max()) + 1 < MANY_TRUNKS else FLAT_PRIOR
    fits = [_restricted(residuals, bases, trunks, rho, degrees) for rho in (0.0, *prior)]
    roots, log_likelihoods = np.stack([root for root, _ in fits]), np.array([x for _, x in fits])
    likelihoods = np.exp(log_likelihoods - log_likelihoods.max())
    # Without trunks of several rows all values of rho say the same.
    alone = int(trunks.max()) + 1 == len(trunks)
    if alone or ODDS * likelihoods[1:].mean() <= likelihoods[0]:
        return PairErrors(np.zeros(1), np.ones(1), roots[:1], degrees)
    return PairErrors(prior, likelihoods[1:] / likelihoods[1:].sum(), roots[1:], degrees)


def draw_pair_errors(
    errors: PairErrors, trunks: Int[np.ndarray, " m"], count: int, rng: np.random.Generator
) -> Float[np.ndarray, "K m 2"]:
    """Draw the errors of pairs; each draw has its own S and rho.

    S is drawn from the inverse Wishart distribution of degrees + 1: the variance of any
    difference of the two errors is then a sum of squares over a chi-square variable on
    `degrees`, so that intervals of a difference are as wide as Student's t.
    """
    picked = rng.choice(len(errors.correlations), size=count, p=errors.probabilities)
    rho = errors.correlations[picked][:, None, None]
    # Bartlett's factor T of a Wishart matrix; S = root (T T^T)^-1 root^T.
    factor = np.zeros((count, 2, 2))
    factor[:, 0, 0] = np.sqrt(rng.chisquare(errors.degrees + 1, size=count))
    factor[:, 1, 1] = np.sqrt(rng.chisquare(errors.degrees, size=count))
    factor[:, 1, 0] = rng.standard_normal(count)
    root = errors.roots[picked] @ np.linalg.inv(factor).transpose(0, 2, 1)
    effects = rng.standard_normal((count, int(trunks.max()) + 1, 2))[:, trunks]
    noise = rng.standard_normal((count, len(trunks), 2))
    return (np.sqrt(rho) * effects + np.sqrt(1 - rho) * noise) @ root.transpose(0, 2, 1)


def _basis(jacobian: Float[np.ndarray, "m p"]) -> Float[np.ndarray, "m q"]:
    """Return orthonormal directions in which a law can move."""
    lengths = np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300)
    basis, singular, _ = np.linalg.svd(jacobian / lengths, full_matrices=False)
    return basis[:, singular > MIN_DIRECTION * singular.max(initial=1e-300)]


def _restricted(
    residuals: Float[np.ndarray, "m 2"],
    bases: list[Float[np.ndarray, "m _"]],
    trunks: Int[np.ndarray, " m"],
    rho: float,
    degrees: int,
) -> tuple[Float[np.ndarray, "2 2"], float]:
    """Return a root of the residuals' scatter and the log likelihood of rho (REML)."""
    sizes = np.bincount(trunks)
    whitened = _whitened(residuals, trunks, rho)
    log_determinant = 2 * np.sum((sizes - 1) * np.log1p(-rho) + np.log1p(rho * (sizes - 1)))
    for column, basis in enumerate(bases):
        moving, triangle = np.linalg.qr(_whitened(basis, trunks, rho))
        whitened[:, column] -= moving @ (moving.T @ whitened[:, column])
        log_determinant += 2 * np.sum(np.log(np.abs(np.diag(triangle))))
    values, vectors = np.linalg.eigh(whitened.T @ whitened)
    values = np.maximum(values, np.finfo(np.float64).tiny)
    return vectors * np.sqrt(values), -0.5 * (log_determinant + degrees * np.sum(np.log(values)))


def _whitened(
    columns: Float[np.ndarray, "m c"], trunks: Int[np.ndarray, " m"], rho: float
) -> Float[np.ndarray, "m c"]:
    """Return V^-1/2 columns for the correlation matrix V of the rows.

    V has 1 on its diagonal and rho between rows of one trunk, so that the mean of a
    trunk and the differences from it are scaled separately.
    """
    sizes = np.bincount(trunks)[:, None]
    sums = np.zeros((len(sizes), columns.shape[1]))
    np.add.at(sums, trunks, columns)
    means = (sums / sizes)[trunks]
    return (columns - means) / np.sqrt(1 - rho) + means / np.sqrt(1 + rho * (sizes - 1))[trunks]
