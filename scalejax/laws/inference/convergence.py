"""convergence."""

import numpy as np

from scalejax.laws.solver.newton import State
from scalejax.laws.solver.problem import Problem

MAX_GRADIENT_COSINE = 1e-4  # |gradient| / (|slopes| |column|): how far from orthogonal the residuals may be at an optimum
EXACT_FIT_RMS = (
    1e-9  # root mean square of residuals below which a law is exact; losses are known to 1e-3
)


def gradient_cosine(state: State, problem: Problem) -> np.ndarray:
    """Largest free component of the gradient of each lane, as a share (0..1) of what it could be (Cauchy-Schwarz)."""
    theta, gradient = np.asarray(state.theta), np.asarray(state.gradient)
    stuck = ((theta <= problem.low[:, None]) & (gradient > 0)) | (
        (theta >= problem.high[:, None]) & (gradient < 0)
    )
    most = np.sqrt(2 * np.asarray(state.cost) * np.maximum(state.irls_diagonal, 0)) + 1e-300
    return np.max(np.where(stuck, 0.0, np.abs(gradient) / most), axis=0)


def converged(state: State, problem: Problem, weights: np.ndarray) -> np.ndarray:
    """(K,): at a stationary point, or at residuals that are exact (along a ridge, rounding hides the stationary point)."""
    return np.isfinite(state.cost) & (
        (gradient_cosine(state, problem) < MAX_GRADIENT_COSINE)
        | (state.cost <= EXACT_FIT_RMS**2 / 2 * np.sum(weights))
    )
