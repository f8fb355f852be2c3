"""identification."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.multistart import Optimum
from scalejax.laws.solver.problem import Problem, parameters_in_centred_units, unconstrained

MAX_CONDITION = 1e9  # of the scaled normal matrix; 1.1e3 on the Chinchilla points
FLAT_DIRECTION_LOADING = (
    0.1  # of a direction without effect, from which on a parameter takes part in it
)


class Linearization(NamedTuple):
    """Residuals (n,) and their derivatives (n, p) with respect to theta at an optimum."""

    residuals: np.ndarray
    jacobian: np.ndarray


@partial(jax.jit, static_argnums=(0, 1))
def _residuals(
    law: ParametricLaw, residual: str, problem: Problem, theta: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def of(theta: jax.Array) -> jax.Array:
        predicted = law.predict(
            parameters_in_centred_units(law, problem.offset + problem.basis @ theta),
            *problem.inputs,
        )
        return (
            jnp.log(predicted) - jnp.log(problem.targets)
            if residual == "log"
            else predicted - problem.targets
        )

    return of(theta), jax.jacfwd(of)(theta)


def linearize(law: ParametricLaw, at: Optimum) -> Linearization:
    with jax.enable_x64(True):
        kept = at.weights > 0
        residuals, jacobian = _residuals(unconstrained(law), at.loss.residual, at.problem, at.theta)
        return Linearization(np.asarray(residuals)[kept], np.asarray(jacobian)[kept])


class Identification(NamedTuple):
    """What the linearized law says of its parameters at an optimum."""

    covariance: np.ndarray
    """(p, p) of theta, zero where a parameter is held, at a bound or idle."""
    condition: float
    """Condition number of the normal matrix scaled to a unit diagonal; infinite with idle parameters."""
    idle: list[str]
    """Parameters without effect on the fitted rows."""
    mixed: list[str]
    """Parameters that can move together without effect on them."""


def identify(law: ParametricLaw, at: Optimum, local: Linearization) -> Identification:
    """s^2 (J^T W J)^-1 with s^2 = sum W r^2 / (n - k), degrees of freedom n - k, and the directions that J maps to nothing."""
    free = (
        ~np.all(at.problem.basis == 0, axis=0)
        & (at.theta > at.problem.low)
        & (at.theta < at.problem.high)
    )
    weights = at.weights[at.weights > 0]
    jacobian = local.jacobian * np.sqrt(weights)[:, None]
    size = np.linalg.norm(jacobian, axis=0)
    moving = free & (size > 0)
    idle = [name for name, still in zip(law.names, free & ~moving, strict=True) if still]
    full = np.zeros((len(at.theta), len(at.theta)))
    if not moving.any():
        return Identification(full, float("inf") if idle else 1.0, idle, [])
    _, spread, right = np.linalg.svd(jacobian[:, moving] / size[moving], full_matrices=False)
    condition = float((spread[0] / spread[-1]) ** 2) if spread[-1] > 0 else float("inf")
    part = np.max(np.abs(right) * (spread[0] ** 2 > MAX_CONDITION * spread**2)[:, None], axis=0)
    mixed = [
        name
        for name, share in zip(np.array(law.names)[moving], part, strict=True)
        if share > FLAT_DIRECTION_LOADING
    ]
    scaled = right.T @ np.diag(np.maximum(spread, 1e-12) ** -2.0) @ right
    spare = max(len(weights) - int(free.sum()), 1)
    variance = float(np.sum(weights * local.residuals**2) / spare)
    full[np.ix_(moving, moving)] = variance * scaled / np.outer(size[moving], size[moving])
    return Identification(full, float("inf") if idle else condition, idle, mixed)
