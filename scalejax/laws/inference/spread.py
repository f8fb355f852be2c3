"""The spread of a fit's residuals, and the rows that stand out of it.

Shapes: n rows.
"""

import numpy as np
from jaxtyping import Float, Int

# The median of |x| for a standard normal x.
NORMAL_MEDIAN = 0.6745

# A row stands out if its residual exceeds this many spreads. Of 1,000 rows with
# Gaussian noise none does; a run that diverged is hundreds of spreads away.
STANDS_OUT = 6.0

# With fewer residual degrees of freedom than this, the spread is too uncertain to call
# any row an outlier.
MIN_DEGREES = 4


def residual_spread(
    residuals: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    free: int,
    *,
    robust: bool,
) -> float:
    """Return the standard deviation of a residual of weight 1.

    free: number k of fitted parameters. For least squares the square is sum_i w_i r_i^2
    / (n - k). For a robust loss it is the median |sqrt(w) r|, divided by its value for
    a standard normal. The median is taken without the k smallest residuals, because a
    law of k parameters can pass through k rows exactly. A row that a robust fit ignores
    then does not count in the spread either.
    """
    sizes = np.sort(np.abs(residuals) * np.sqrt(weights))
    degrees = max(len(sizes) - free, 1)
    if robust and len(sizes) > free:
        return float(np.median(sizes[free:])) / NORMAL_MEDIAN
    return float(np.sqrt(np.sum(sizes**2) / degrees))


def standing_out(
    residuals: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    spread: float,
    free: int,
) -> Int[np.ndarray, " outliers"]:
    """Return the indices of the rows that stand out, the farthest first."""
    sizes = np.abs(residuals) * np.sqrt(weights)
    if len(sizes) - free < MIN_DEGREES:
        return np.zeros(0, int)
    far = np.flatnonzero(sizes > STANDS_OUT * max(spread, 1e-12))
    return far[np.argsort(-sizes[far], kind="stable")]
