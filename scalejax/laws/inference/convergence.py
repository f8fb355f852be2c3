"""Whether a fit is at a stationary point of its cost.

Shapes: p parameters, K lanes (fits solved side by side), n rows.
"""

import numpy as np
from jaxtyping import Bool, Float

from scalejax.laws.law import AnyArray
from scalejax.laws.solver.newton import State
from scalejax.laws.solver.problem import Problem

# The residuals of an optimum are orthogonal to every column of the Jacobian. A fit has
# converged if no cosine between them exceeds this.
MAX_GRADIENT_COSINE = 1e-4

# Root mean square of residuals below which a law is exact. Measured losses are known to
# 1e-3.
EXACT_FIT_RMS = 1e-9


def converged(
    state: State, problem: Problem, weights: Float[AnyArray, " n"]
) -> Bool[np.ndarray, " K"]:
    """Return which lanes are at a stationary point, or fit the data exactly.

    At an exact fit, along a ridge, rounding errors hide the stationary point.
    """
    exact = state.cost <= EXACT_FIT_RMS**2 / 2 * np.sum(weights)
    stationary = gradient_cosine(state, problem) < MAX_GRADIENT_COSINE
    return np.asarray(np.isfinite(state.cost) & (stationary | exact))


def gradient_cosine(state: State, problem: Problem) -> Float[np.ndarray, " K"]:
    """Return the largest gradient component of each lane, relative to its upper bound.

    The gradient along a parameter is a product of two vectors over the rows, the
    residuals and a column of the Jacobian. By the inequality of Cauchy and Schwarz it
    is at most the product of their lengths; the ratio, 0 to 1, does not depend on
    units. A gradient that pushes a parameter out of its bounds does not count.
    """
    theta, gradient = np.asarray(state.theta), np.asarray(state.gradient)
    outward = ((theta <= problem.low[:, None]) & (gradient > 0)) | (
        (theta >= problem.high[:, None]) & (gradient < 0)
    )
    # For a Huber cost, 2 x cost and the IRLS diagonal bound the two squared lengths.
    most = np.sqrt(2 * np.asarray(state.cost) * np.maximum(state.irls_diagonal, 0)) + 1e-300
    return np.max(np.where(outward, 0.0, np.abs(gradient) / most), axis=0)
