"""Optima of a hyperparameter from repeated runs, with intervals.

The loss is a curve in the hyperparameter plus an offset of every block, such as the
seed: runs of one seed share their initial values and their data.

Shapes: n rows, one per run.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy.special import stdtrit

LEVEL = 0.95

NO_MINIMUM = "the loss has no minimum between the values that were trained"


class Measured(NamedTuple):
    """A number and its 95% interval."""

    value: float
    low: float | None
    """Lower end; None, like `high`, where the data do not bound the number."""
    high: float | None


def lowest_by(
    x: Float[np.ndarray, " n"],
    z: Float[np.ndarray, " n"],
    loss: Float[np.ndarray, " n"],
    block: Shaped[np.ndarray, " n"],
) -> Measured:
    """Return by how much the lowest point in x moves per unit of z.

    The loss is b x + c x^2 + d x z plus the offset of its block, such as each pair of
    seed and z. The lowest point is then -(b + d z) / 2c, and it moves by -d / 2c. The
    interval is Fieller's (1954), which is open where c may be zero.

    Raises ValueError where the parabola has no minimum.
    """
    return _ratio(_fit(np.stack([x * z, x**2, x], 1), loss, block))


def lowest_losses(
    x: Float[np.ndarray, " n"],
    loss: Float[np.ndarray, " n"],
    block: Shaped[np.ndarray, " n"],
) -> Float[np.ndarray, " blocks"]:
    """Return the lowest loss of each block in x, in the order of the sorted blocks.

    The loss of block k is a_k + b_k x + c x^2, with one c for all blocks: a parabola
    through three noisy losses may have no minimum. It is read at its lowest point, or
    at the end of the x that were trained if that is beyond them. The lowest of the
    measured losses would be too low, and more so where they are noisier.

    Raises ValueError where c is not positive, or not determined.
    """
    blocks, labels = np.unique(block, return_inverse=True)
    # Centred, so that the terms of a block are nearly orthogonal.
    from_centre = x - x.mean()
    inside = np.eye(len(blocks))[labels]
    terms = np.column_stack([from_centre**2, inside, inside * from_centre[:, None]])
    (c, *coefficients), _, rank, _ = np.linalg.lstsq(terms, loss, rcond=None)
    if rank < terms.shape[1]:
        raise ValueError(
            f"{len(loss)} runs in {len(blocks)} blocks do not determine the curves; train three "
            "values in every block"
        )
    if c <= 0:
        raise ValueError(NO_MINIMUM)
    a, b = np.split(np.array(coefficients), 2)
    at = np.clip(-b / (2 * c), from_centre.min(), from_centre.max())
    return a + b * at + c * at**2


class _LeastSquares(NamedTuple):
    coefficients: Float[np.ndarray, " k"]
    """Of the terms, without the offsets of the blocks."""
    covariance: Float[np.ndarray, "k k"]
    quantile: float
    """Student's quantile of the residual degrees of freedom."""


def _fit(
    terms: Float[np.ndarray, "n k"],
    loss: Float[np.ndarray, " n"],
    block: Shaped[np.ndarray, " n"],
) -> _LeastSquares:
    """Least squares of the loss on some terms, with an offset for every block."""
    _, labels = np.unique(block, return_inverse=True)
    # Subtracting the means of its block from everything removes the offset of a block.
    count = np.bincount(labels)

    def centred(column):
        return column - (np.bincount(labels, column) / count)[labels]

    terms, loss = np.apply_along_axis(centred, 0, terms), centred(loss)
    free = len(loss) - len(count) - terms.shape[1]
    if free < 1 or np.linalg.matrix_rank(terms) < terms.shape[1]:
        raise ValueError(
            f"{len(loss)} runs in {len(count)} blocks do not determine the curve and its noise; "
            "train more values"
        )
    coefficients, *_ = np.linalg.lstsq(terms, loss, rcond=None)
    residual = loss - terms @ coefficients
    covariance = residual @ residual / free * np.linalg.inv(terms.T @ terms)
    return _LeastSquares(coefficients, covariance, student(free))


def _ratio(fit: _LeastSquares) -> Measured:
    """Return -p / 2c with Fieller's interval; p and c are the first coefficients."""
    p, c = -fit.coefficients[0], 2 * fit.coefficients[1]
    if c <= 0:
        raise ValueError(NO_MINIMUM)
    V, t = fit.covariance, fit.quantile
    pp, pc, cc = V[0, 0], -2 * V[0, 1], 4 * V[1, 1]
    # The interval holds each r with |p - r c| <= t std(p - r c): a quadratic in r.
    a, b, constant = c**2 - t**2 * cc, p * c - t**2 * pc, p**2 - t**2 * pp
    if a <= 0:
        return Measured(float(p / c), None, None)
    # It is never negative but by rounding errors, where there is no noise.
    root = np.sqrt(max(b**2 - a * constant, 0.0))
    return Measured(float(p / c), float((b - root) / a), float((b + root) / a))


def student(degrees_of_freedom: int) -> float:
    """Return the quantile of Student's t that bounds a 95% interval.

    >>> f"{student(2):.3f}"
    '4.303'
    """
    return float(stdtrit(degrees_of_freedom, (1 + LEVEL) / 2))
