"""Derivatives of a fit with respect to its table, by implicit differentiation.

At an optimum the gradient of the cost with respect to theta is zero, and stays zero
when the rows of the table change a little: 0 = H dtheta + (d gradient / d rows) d rows,
with the Hessian H. So derivatives cost one solve with H, however many iterations the
fit took. They are exact wherever the optimum moves smoothly with the rows.

Shapes: n rows of the table, p parameters. Everything is float64.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from scalejax.laws.law import F, ParametricLaw
from scalejax.laws.solver.cholesky import solve_positive_definite
from scalejax.laws.solver.losses import Loss
from scalejax.laws.solver.newton import evaluate
from scalejax.laws.solver.problem import (
    Problem,
    parameters_in_table_units,
    residuals_at,
    unconstrained,
)
from scalejax.laws.solver.starts import prepare


class Rows(NamedTuple):
    """A table, in table units."""

    inputs: tuple[Float[Array, " n"], ...]
    targets: Float[Array, " n"]
    weights: Float[Array, " n"]


def rows_cotangent(
    law: ParametricLaw[F],
    loss: Loss,
    rows: Rows,
    theta: Float[Array, " p"],
    parameters_cotangent: F,
    objective_cotangent: Float[Array, ""],
) -> Rows:
    """Pull the cotangents of a fit's parameters and objective back to the rows.

    theta: the optimum on these rows. The cotangents are derivatives of some scalar with
    respect to the fitted parameters, in table units, and to the objective.
    """
    # The rows act in two ways: directly, through the units that the table is centred
    # by, and through theta.
    _, pull_back = jax.vjp(
        lambda rows, theta: parameters_at(law, _problem(law, loss, rows), theta), rows, theta
    )
    direct, theta_cotangent = pull_back(parameters_cotangent)
    step = _implicit_step(law, loss, rows, theta, theta_cotangent)

    def pairing(rows: Rows) -> Array:
        """step . gradient + objective_cotangent x objective, at constant theta.

        Its derivative is what comes through theta. The objective itself changes with
        the rows only directly, since its derivative with respect to theta is zero.
        """
        residuals, along_step = jax.jvp(
            lambda theta: residuals_at(law, loss.residual, _problem(law, loss, rows), theta),
            (theta,),
            (step,),
        )
        huber = loss.stages[-1]
        # The cost is linearized by hand: under infinite delta, the branch of Huber's
        # cost that is not taken is infinite, and its derivative nan.
        constant = jax.lax.stop_gradient(residuals)
        objective = huber.cost(constant) + huber.slope(constant) * (residuals - constant)
        scale = objective_cotangent / loss.normalizer
        return jnp.sum(rows.weights * (huber.slope(residuals) * along_step + scale * objective))

    return jax.tree.map(jnp.add, direct, jax.grad(pairing)(rows))


def parameters_at(law: ParametricLaw[F], problem: Problem, theta: Float[Array, " p"]) -> F:
    """Return a law's NamedTuple of scalars, in table units."""
    parameters = parameters_in_table_units(law, problem, theta[:, None])
    return jax.tree.map(lambda values: values[0], parameters)


def _implicit_step(
    law: ParametricLaw,
    loss: Loss,
    rows: Rows,
    theta: Float[Array, " p"],
    theta_cotangent: Float[Array, " p"],
) -> Float[Array, " p"]:
    """Return -H^-1 theta_cotangent, over the parameters that are free to move."""
    problem = _problem(law, loss, rows)
    hessian = evaluate(
        unconstrained(law),
        loss.residual,
        problem,
        loss.stages[-1],
        theta[:, None],
        rows.weights[:, None],
    ).hessian
    fixed = problem.fixed_at(theta)
    indices = range(len(law.names))
    matrix = [
        [jnp.where(fixed[i] | fixed[j], float(i == j), hessian[i, j]) for j in indices]
        for i in indices
    ]
    right_side = [jnp.where(fixed[i], 0.0, -theta_cotangent[i])[None] for i in indices]
    step, _ = solve_positive_definite(matrix, right_side)
    return jnp.stack(step)[:, 0]


def _problem(law: ParametricLaw, loss: Loss, rows: Rows) -> Problem:
    return prepare(law, rows.inputs, rows.targets, rows.weights, loss.residual).problem
