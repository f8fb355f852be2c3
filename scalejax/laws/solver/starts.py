"""Where fits start: a grid over the exponents, with the other parameters solved for.

Most parameters of a scaling law enter it linearly (A, B and E of Chinchilla's law) once
its exponents are given. So a start needs values of the exponents only, and linear least
squares gives the rest: variable projection (Golub and Pereyra 1973). Chinchilla's law
starts from 64 pairs of exponents, where published fits used 4,500 starts in five
dimensions.

Shapes: n rows of the table, p parameters, S starts.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from scalejax.laws.law import AnyArray, F, ParametricLaw
from scalejax.laws.solver.cholesky import solve_positive_definite
from scalejax.laws.solver.losses import ResidualKind
from scalejax.laws.solver.problem import (
    Constraints,
    Problem,
    affine_constraints,
    constraints_of,
    coordinates_at,
    coordinates_from_parameters,
    held_values,
    parameters_in_centred_units,
    unconstrained,
)

# A linear parameter starts at this fraction of the typical target or above it. Least
# squares makes some of them negative, and the logarithm of a size must exist.
SMALLEST_START = 1e-3

# Added to the diagonal of the normal equations, relative to it: at equal exponents two
# columns are the same.
RIDGE = 1e-9


class Prepared(NamedTuple):
    """A problem, and where to start on it."""

    problem: Problem
    starts: Float[Array, "p S"]
    """Theta of each start, within the bounds."""


def prepare(
    law: ParametricLaw,
    inputs: tuple[Float[AnyArray, " n"], ...],
    targets: Float[AnyArray, " n"],
    weights: Float[AnyArray, " n"],
    residual: ResidualKind,
) -> Prepared:
    """Centre a table and build the grid of starts, in one compiled program.

    inputs, targets: in table units, float64. Rows of weight 0 are padding; they do not
    contribute to the centre.
    """
    values = held_values(law)
    return _prepare(
        unconstrained(law), constraints_of(law), inputs, targets, weights, values, residual
    )


@partial(jax.jit, static_argnums=(0, 1, 6))
def _prepare(
    law: ParametricLaw,
    constraints: Constraints,
    inputs: tuple[Float[Array, " n"], ...],
    targets: Float[Array, " n"],
    weights: Float[Array, " n"],
    values: Float[Array, " held"],
    residual: ResidualKind,
) -> Prepared:
    counted = weights > 0

    def mean(x: Array) -> Array:
        return jnp.sum(jnp.where(counted, x, 0.0)) / jnp.sum(counted)

    # Inputs that share an axis (tokens and unique tokens) share the unit of its first
    # input.
    first_inputs = [law.axes.index(axis) for axis in range(max(law.axes) + 1)]
    is_raw = [name in law.raw for name in law.inputs]

    def centre_of(i: int) -> Array:
        if is_raw[i]:
            return jnp.zeros(())
        return mean(inputs[i] if law.additive else jnp.log(inputs[i]))

    centre = jnp.stack([centre_of(i) for i in first_inputs])
    shifts = [centre[axis] for axis in law.axes]

    def centred_input(x: Array, shift: Array, raw: bool) -> Array:
        if raw:
            return x
        return x - shift if law.additive else jnp.exp(jnp.log(x) - shift)

    centred = tuple(
        centred_input(x, shift, raw) for x, shift, raw in zip(inputs, shifts, is_raw, strict=True)
    )
    # The bounds of a term's size are relative to the typical target (see
    # `Coordinate.low`).
    typical_target = mean(jnp.abs(targets))
    low, high = (
        jnp.stack([getattr(k, end) + jnp.log(typical_target) * k.scale for k in law.coordinates])
        for end in ("low", "high")
    )
    offset, basis = affine_constraints(law, constraints, values, centre)
    problem = Problem(centred, targets, offset, basis, low, high, centre)
    starts = _starts(law, constraints, problem, weights, typical_target, residual)
    return Prepared(problem, jnp.clip(starts, low[:, None], high[:, None]))


def _starts(
    law: ParametricLaw,
    constraints: Constraints,
    problem: Problem,
    weights: Float[Array, " n"],
    typical_target: Float[Array, ""],
    residual: ResidualKind,
) -> Float[Array, "p S"]:
    """Return theta of the starts, before it is clipped to the bounds."""
    grid = _exponent_grid(law, constraints)
    count = len(next(iter(grid.values())))
    on_grid = law.form._make(jnp.asarray(grid.get(name, np.ones(count))) for name in law.names)
    if law.guess is not None:
        return coordinates_from_parameters(law, law.guess(on_grid, typical_target))
    # Held parameters take their values; the others keep those of the grid.
    coordinates = coordinates_at(problem, coordinates_from_parameters(law, on_grid))
    parameters = parameters_in_centred_units(law, coordinates)
    parameters = _solve_linear_parameters(
        law, constraints, problem, weights, typical_target, residual, parameters
    )
    return coordinates_from_parameters(law, parameters)


def _exponent_grid(
    law: ParametricLaw, constraints: Constraints
) -> dict[str, Float[np.ndarray, " S"]]:
    """Return the product of the law's starting values, one array per exponent.

    An exponent that is held or tied takes one value of the grid; the constraints
    replace it.
    """
    constrained = {*constraints.held, *(name for name, _ in constraints.tied)}
    names = [name for name, _ in law.grid]
    axes = [
        np.array(points if name not in constrained else points[:1]) for name, points in law.grid
    ]
    product = np.meshgrid(*axes, indexing="ij")
    return dict(zip(names, [values.ravel() for values in product], strict=True))


def _solve_linear_parameters(
    law: ParametricLaw[F],
    constraints: Constraints,
    problem: Problem,
    weights: Float[Array, " n"],
    typical_target: Float[Array, ""],
    residual: ResidualKind,
    parameters: F,
) -> F:
    """Solve for the linear parameters at each start's exponents, by least squares.

    Log residuals are approximated by relative ones, (predicted - observed) / observed,
    which are linear in these parameters.
    """
    linear = law.linear
    assert linear is not None, f"the {law.name} law has neither linear parameters nor a guess"
    rows, count = len(weights), len(parameters[0])
    targets = problem.targets[:, None]
    # One over the size of a residual: the target itself, or one size for all rows.
    scale = 1 / targets if residual == "log" else jnp.ones_like(targets) / typical_target
    factors = linear.columns(parameters, *(x[:, None] for x in problem.inputs))
    columns = {
        name: jnp.broadcast_to(factor, (rows, count)) * scale
        for name, factor in zip(linear.names, factors, strict=True)
    }
    # A linear parameter that is held moves to the other side of the equations.
    remainder = targets * scale
    for name in linear.names:
        if name in constraints.held:
            remainder = remainder - getattr(parameters, name) * columns.pop(name)
    if not columns:
        return parameters

    def dot(a: AnyArray, b: AnyArray) -> Array:
        return jnp.sum(weights[:, None] * a * b, axis=0)

    normal_matrix = [[dot(a, b) for b in columns.values()] for a in columns.values()]
    for i, row in enumerate(normal_matrix):
        row[i] = row[i] * (1 + RIDGE)
    right_side = [dot(column, remainder) for column in columns.values()]
    solved, _ = solve_positive_definite(normal_matrix, right_side)
    smallest = SMALLEST_START * typical_target
    return parameters._replace(
        **{
            name: jnp.maximum(jnp.nan_to_num(value), smallest)
            for name, value in zip(columns, solved, strict=True)
        }
    )
