"""Which parameters a table determines, by the law linearized at its optimum.

Shapes: n rows (without padding), p parameters, q of them free to move.
"""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from scalejax.laws.inference.spread import residual_spread
from scalejax.laws.law import OFFSET, ParametricLaw
from scalejax.laws.solver.losses import ResidualKind
from scalejax.laws.solver.multistart import Optimum
from scalejax.laws.solver.problem import Problem, residuals_at, unconstrained

# A direction is flat if the condition number of the scaled normal matrix exceeds this
# along it. On the Chinchilla data the condition number is 1.1e3.
MAX_CONDITION = 1e9

# A parameter counts as part of a flat direction when its loading exceeds this.
FLAT_DIRECTION_LOADING = 0.1

# Smaller singular values are replaced by this one, so that the covariance of an exact
# ridge is finite.
MIN_SINGULAR_VALUE = 1e-12


class Linearization(NamedTuple):
    """A law's residuals at its optimum, and their derivatives with respect to theta."""

    residuals: Float[np.ndarray, " n"]
    jacobian: Float[np.ndarray, "n p"]


class Identification(NamedTuple):
    """What the linearized law says about its parameters."""

    covariance: Float[np.ndarray, "p p"]
    """Of theta; zero for parameters that are held, at a bound or without effect."""
    condition: float
    """Condition number of the normal matrix, scaled to a unit diagonal. It is infinite
    when a parameter has no effect."""
    without_effect: list[str]
    """Parameters that change none of the predictions for these rows."""
    confounded: list[str]
    """Parameters that can move together without changing any of them."""


def linearize(law: ParametricLaw, optimum: Optimum) -> Linearization:
    """Linearize a law at its optimum on a table."""
    with jax.enable_x64(True):
        counted = optimum.weights > 0
        residuals, jacobian = _residuals_and_jacobian(
            unconstrained(law), optimum.loss.residual, optimum.problem, optimum.theta
        )
        return Linearization(np.asarray(residuals)[counted], np.asarray(jacobian)[counted])


@partial(jax.jit, static_argnums=(0, 1))
def _residuals_and_jacobian(
    law: ParametricLaw, residual: ResidualKind, problem: Problem, theta: Float[Array, " p"]
) -> tuple[Float[Array, " n"], Float[Array, "n p"]]:
    of_theta = partial(residuals_at, law, residual, problem)
    return of_theta(theta), jax.jacfwd(of_theta)(theta)


def identify(law: ParametricLaw, optimum: Optimum, linearized: Linearization) -> Identification:
    """Find the directions in which the parameters can move without effect on the data.

    The covariance is s^2 (J^T W J)^-1 with the Jacobian J, the row weights W and the
    spread s of the residuals, which is a robust one if the loss is robust.
    """
    free = ~np.asarray(optimum.problem.fixed_at(optimum.theta))
    weights = optimum.weights[optimum.weights > 0]
    jacobian = linearized.jacobian * np.sqrt(weights)[:, None]
    # Columns are scaled to unit length, so that the condition number does not depend on
    # the units of the parameters.
    lengths = np.linalg.norm(jacobian, axis=0)
    moving = free & (lengths > 0)
    without_effect = [name for name, idle in zip(law.names, free & ~moving, strict=True) if idle]
    count = len(optimum.theta)
    covariance = np.zeros((count, count))
    if not moving.any():
        condition = float("inf") if without_effect else 1.0
        return Identification(covariance, condition, without_effect, [])
    singular, directions = _directions(jacobian[:, moving])
    # A ridge can end at an offset of zero. The offset is at its bound there, and yet
    # the other points of the ridge fit equally well.
    offsets = np.array([coordinate == OFFSET for coordinate in law.coordinates])
    inside = moving | (offsets & ~np.asarray(optimum.problem.held) & (lengths > 0))
    strengths, of_ridges = _directions(jacobian[:, inside])
    condition = float((strengths[0] / strengths[-1]) ** 2) if strengths[-1] > 0 else float("inf")
    confounded = _flat_names(law, inside, strengths, of_ridges)

    inverse_squares = np.maximum(singular, MIN_SINGULAR_VALUE) ** -2.0
    scaled = directions.T @ np.diag(inverse_squares) @ directions
    robust = bool(np.isfinite(optimum.loss.deltas[-1]))
    spread = residual_spread(linearized.residuals, weights, int(free.sum()), robust=robust)
    block = spread**2 * scaled / np.outer(lengths[moving], lengths[moving])
    covariance[np.ix_(moving, moving)] = block
    condition = float("inf") if without_effect else condition
    return Identification(covariance, condition, without_effect, confounded)


def _directions(
    jacobian: Float[np.ndarray, "n q"],
) -> tuple[Float[np.ndarray, " q"], Float[np.ndarray, "q q"]]:
    """Return singular values and right singular vectors of a Jacobian, scaled."""
    scaled = jacobian / np.linalg.norm(jacobian, axis=0)
    _, singular, directions = np.linalg.svd(scaled, full_matrices=False)
    return singular, directions


def _flat_names(
    law: ParametricLaw,
    columns: Bool[np.ndarray, " p"],
    singular: Float[np.ndarray, " q"],
    directions: Float[np.ndarray, "q q"],
) -> list[str]:
    """Name the parameters with a large component along a flat direction.

    Flat directions are the right singular vectors with tiny singular values. columns:
    the parameters that the singular vectors are about.
    """
    flat = singular[0] ** 2 > MAX_CONDITION * singular**2
    loadings = np.max(np.abs(directions) * flat[:, None], axis=0)
    return [
        name
        for name, loading in zip(np.array(law.names)[columns].tolist(), loadings, strict=True)
        if loading > FLAT_DIRECTION_LOADING
    ]
