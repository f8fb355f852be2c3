"""Replicates: what runs of equal inputs say about noise, and whether a law misses more than noise explains."""

from typing import NamedTuple

import numpy as np

COPY = 1e-12  # rows of equal inputs that agree to rounding are copies of one measurement, not replicates


class NoiseFloor(NamedTuple):
    """Standard deviation between replicates, pooled over design points: no law of these inputs predicts one run better."""

    std: float
    degrees_of_freedom: int


class LackOfFit(NamedTuple):
    """F test of a law against its replicates."""

    miss: float
    """Root mean square by which the law misses the design points, beyond what noise explains."""
    ratio: float
    degrees_of_freedom: tuple[int, int]
    p: float


def design_points(inputs: list[np.ndarray], seeds: np.ndarray | None = None) -> np.ndarray:
    """(rows,) of labels 0, 1, ..: rows with equal inputs share one.

    Where rows share inputs and seed they differ in something else (a learning rate, a schedule), so no rows are replicates.
    """
    rows = len(inputs[0])
    order = np.lexsort(inputs)
    fresh = np.any([np.diff(x[order]) != 0 for x in inputs], axis=0)
    labels = np.empty(rows, int)
    labels[order] = np.append(0, np.cumsum(fresh))
    if seeds is not None and len({*zip(labels.tolist(), seeds.tolist(), strict=True)}) < rows:
        return np.arange(rows)
    return labels


def noise_floor(
    values: np.ndarray, points: np.ndarray, weights: np.ndarray | None = None
) -> NoiseFloor | None:
    """s^2 = sum_g sum_i w_gi (y_gi - mean_g)^2 / sum_g (n_g - 1) over design points g; None without replicates.

    values: (rows,), of log losses for a relative noise.  points: (rows,) of labels.  weights: inverse variances up to a factor,
    and s^2 is the variance at weight 1.
    """
    weights = np.ones(len(values)) if weights is None else weights
    sizes = np.bincount(points, weights)
    means = np.bincount(points, weights * values) / sizes
    spare = len(values) - len(sizes)
    std = np.sqrt(np.sum(weights * (values - means[points]) ** 2) / max(spare, 1))
    return NoiseFloor(float(std), spare) if spare and std > COPY else None


def lack_of_fit(
    residuals: np.ndarray, points: np.ndarray, weights: np.ndarray, free: int
) -> LackOfFit | None:
    """F = [sum_g w_g mean_g(r)^2 / (G - k)] / s^2, G design points and k = `free` parameters; None without replicates or G <= k.

    Exact for Gaussian noise of one variance and least squares; after a robust fit the numerator is not the smallest, so p is
    a little too small where few rows are far out.
    """
    floor, spare = noise_floor(residuals, points, weights), int(points.max()) + 1 - free
    if floor is None or spare < 1:
        return None
    from scipy.special import fdtrc

    sizes = np.bincount(points, weights)
    between = float(np.sum(np.bincount(points, weights * residuals) ** 2 / sizes)) / spare
    ratio = between / floor.std**2
    miss = np.sqrt(max(between - floor.std**2, 0.0) * spare / float(np.sum(weights)))
    return LackOfFit(
        float(miss),
        ratio,
        (spare, floor.degrees_of_freedom),
        float(fdtrc(spare, floor.degrees_of_freedom, ratio)),
    )
