"""What runs of equal inputs say about noise, and whether a law misses by more.

Shapes: n rows.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.special import fdtrc

# Rows of equal inputs whose targets agree to this are copies of one measurement, and
# say nothing of the noise.
COPY_TOLERANCE = 1e-12


class NoiseFloor(NamedTuple):
    """Standard deviation between replicates, pooled over design points.

    No law of these inputs predicts a single run better than this.
    """

    std: float
    degrees_of_freedom: int


class LackOfFit(NamedTuple):
    """F test of a law against its replicates."""

    bias: float
    """Root mean square by which the law misses the design points, beyond the noise."""
    f_ratio: float
    degrees_of_freedom: tuple[int, int]
    """Of the numerator and of the denominator."""
    p_value: float


def design_points(
    inputs: list[np.ndarray], seeds: Shaped[np.ndarray, " n"] | None = None
) -> Int[np.ndarray, " n"]:
    """Label rows 0, 1, ... so that rows with equal inputs share a label.

    If two rows share inputs and seed, they differ in something that is not an input (a
    learning rate, a schedule). Then no rows count as replicates, and all labels differ.
    """
    rows = len(inputs[0])
    order = np.lexsort(inputs)
    is_new = np.any([np.diff(x[order]) != 0 for x in inputs], axis=0)
    labels = np.empty(rows, int)
    labels[order] = np.append(0, np.cumsum(is_new))
    if seeds is not None and len({*zip(labels.tolist(), seeds.tolist(), strict=True)}) < rows:
        return np.arange(rows)
    return labels


def noise_floor(
    values: Float[np.ndarray, " n"],
    points: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"] | None = None,
) -> NoiseFloor | None:
    """Pool the variance within design points; None without replicates.

    s^2 = sum_g sum_i w_gi (y_gi - mean_g)^2 / sum_g (n_g - 1) over design points g.

    values: logarithms of losses give a relative noise. points: labels of
    `design_points`. weights: inverse variances up to a factor; s^2 is then the variance
    at weight 1.
    """
    weights = np.ones(len(values)) if weights is None else weights
    totals = np.bincount(points, weights)
    means = np.bincount(points, weights * values) / totals
    degrees = len(values) - len(totals)
    std = np.sqrt(np.sum(weights * (values - means[points]) ** 2) / max(degrees, 1))
    return NoiseFloor(float(std), degrees) if degrees and std > COPY_TOLERANCE else None


def lack_of_fit(
    residuals: Float[np.ndarray, " n"],
    points: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    free: int,
) -> LackOfFit | None:
    """Test whether a law misses its design points by more than their noise.

    F = [sum_g w_g mean_g(r)^2 / (G - k)] / s^2, for G design points and k = `free`
    parameters; None without replicates or where G <= k. The test is exact for least
    squares and Gaussian noise of one variance. After a robust fit the numerator is not
    minimal, so p is slightly too small where a few rows are far from the law.
    """
    floor = noise_floor(residuals, points, weights)
    degrees = int(points.max()) + 1 - free
    if floor is None or degrees < 1:
        return None
    totals = np.bincount(points, weights)
    between = float(np.sum(np.bincount(points, weights * residuals) ** 2 / totals)) / degrees
    f_ratio = between / floor.std**2
    bias = np.sqrt(max(between - floor.std**2, 0.0) * degrees / float(np.sum(weights)))
    p_value = float(fdtrc(degrees, floor.degrees_of_freedom, f_ratio))
    return LackOfFit(float(bias), f_ratio, (degrees, floor.degrees_of_freedom), p_value)
