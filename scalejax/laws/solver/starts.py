"""Starts."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.cholesky import solve_positive_definite
from scalejax.laws.solver.problem import (
    Problem,
    constraints,
    coordinates_from_parameters,
    parameters_in_centred_units,
)


@partial(jax.jit, static_argnums=(0, 1, 6))
def prepare(
    law: ParametricLaw,
    held: Any,
    inputs: tuple,
    targets: jax.Array,
    weights: jax.Array,
    fixed: jax.Array,
    residual: str,
) -> tuple:
    """Centres the inputs, writes held and tied parameters as an affine map, and solves the start grid's linear part.

    Returns the Problem and the starts, theta (p, S).
    """
    counted = weights > 0
    mean = lambda x: jnp.sum(jnp.where(counted, x, 0.0)) / jnp.sum(counted)
    first = [law.axes.index(axis) for axis in range(max(law.axes) + 1)]
    centre = jnp.stack([mean(inputs[i] if law.additive else jnp.log(inputs[i])) for i in first])
    shift = [centre[axis] for axis in law.axes]
    centred = tuple(
        x - m if law.additive else jnp.exp(jnp.log(x) - m)
        for x, m in zip(inputs, shift, strict=True)
    )
    typical = mean(jnp.abs(targets))
    low, high = (
        jnp.stack([getattr(k, end) + jnp.log(typical) * k.scale for k in law.coordinates])
        for end in ("low", "high")
    )
    offset, basis = constraints(law, held, fixed, centre)
    problem = Problem(centred, targets, offset, basis, low, high, centre)
    return problem, _starts(law, held, problem, weights, typical, residual)


def _starts(
    law: ParametricLaw,
    held: Any,
    problem: Problem,
    weights: jax.Array,
    typical: jax.Array,
    residual: str,
) -> jax.Array:
    """theta (p, S): the grid over exponents, with the linear parameters solved by weighted least squares."""
    fixed_names, tied = held
    settled = {*fixed_names, *(name for name, _ in tied)}
    axes = [np.array(points if name not in settled else points[:1]) for name, points in law.grid]
    grid = dict(
        zip(
            [name for name, _ in law.grid],
            [x.ravel() for x in np.meshgrid(*axes, indexing="ij")],
            strict=True,
        )
    )
    count = len(next(iter(grid.values())))
    form = law.form(*(jnp.asarray(grid.get(name, np.ones(count))) for name in law.names))
    if law.guess is not None:
        return _inside(law, problem, coordinates_from_parameters(law, law.guess(form, typical)))
    coordinates = _held(problem, coordinates_from_parameters(law, form))
    form = parameters_in_centred_units(law, coordinates)
    linear: Any = law.linear
    columns = linear.columns(form, *(x[:, None] for x in problem.inputs))
    unit = (
        1 / problem.targets[:, None]
        if residual == "log"
        else jnp.ones_like(problem.targets)[:, None] / typical
    )
    columns = {
        name: jnp.broadcast_to(c, (len(weights), count)) * unit
        for name, c in zip(linear.names, columns, strict=True)
    }
    rest = problem.targets[:, None] * unit
    for name in set(linear.names) & set(fixed_names):
        rest = rest - getattr(form, name) * columns.pop(name)
    if columns:
        sums = lambda a, b: jnp.sum(weights[:, None] * a * b, axis=0)
        rows = [[sums(a, b) for b in columns.values()] for a in columns.values()]
        for i, row in enumerate(rows):
            row[i] = row[i] * (1 + 1e-9)
        solved, _ = solve_positive_definite(rows, [sums(a, rest) for a in columns.values()])
        least = 1e-3 * typical  # a term that least squares would make negative starts small
        form = form._replace(
            **{
                name: jnp.maximum(jnp.nan_to_num(c), least)
                for name, c in zip(columns, solved, strict=True)
            }
        )
    return _inside(law, problem, coordinates_from_parameters(law, form))


def _held(problem: Problem, theta: jax.Array) -> jax.Array:
    return problem.offset[:, None] + problem.basis @ theta


def _inside(law: ParametricLaw, problem: Problem, theta: jax.Array) -> jax.Array:
    return jnp.clip(theta, problem.low[:, None], problem.high[:, None])
