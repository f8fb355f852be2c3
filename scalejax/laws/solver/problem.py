"""One law on one table."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scalejax.laws.law import ParametricLaw


class Problem(NamedTuple):
    """One law on one table, in centred units."""

    inputs: tuple[jax.Array, ...]
    """Each (n,), divided by its centre (or minus it, for additive laws)."""
    targets: jax.Array
    """(n,)"""
    offset: jax.Array
    """(p,): coordinates = offset + basis @ theta. Held and tied parameters live here."""
    basis: jax.Array
    """(p, p); the column of a parameter that is held or tied is zero."""
    low: jax.Array
    high: jax.Array
    centre: jax.Array
    """(axes,): log of the unit of each axis, or the shift."""


def unconstrained(law: ParametricLaw) -> ParametricLaw:
    """The law as the compiled programs know it: what is held or tied is data (offset, basis), not a new program."""
    return dataclasses.replace(law, fixed=(), tied=())


def held_names(law: ParametricLaw) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    return tuple(name for name, _ in law.fixed), law.tied


def held_values(law: ParametricLaw) -> np.ndarray:
    return np.array([value for _, value in law.fixed], np.float64)


def constraints(
    law: ParametricLaw, held: Any, fixed: jax.Array, centre: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """offset (p,) and basis (p, p) of coordinates = offset + basis @ theta.

    Holding A while alpha is free ties the centred log A to alpha: log A' = log A - alpha log(unit).
    """
    names, (fixed_names, tied) = law.names, held
    values_ = dict(zip(fixed_names, fixed, strict=True))
    at = {name: jnp.zeros(()) for name in names}
    rows = {name: jnp.eye(len(names))[i] for i, name in enumerate(names)}
    pairs = list(zip(names, law.coordinates, strict=True))
    for name, k in pairs:
        if name in values_:
            at[name] = jnp.log(values_[name]) if k.log else values_[name]
            rows[name] = jnp.zeros(len(names))
    for name, leader in tied:
        at[name], rows[name] = at[leader], rows[leader]
    for name, k in pairs:
        for exponent, axis, power in k.units if name in values_ else ():
            at[name] = at[name] - power * centre[axis] * (at[exponent] if exponent else 1.0)
            rows[name] = rows[name] - power * centre[axis] * (rows[exponent] if exponent else 0.0)
    return jnp.stack([at[name] for name in names]), jnp.stack([rows[name] for name in names])


def parameters_in_centred_units(law: ParametricLaw, coordinates: Any) -> Any:
    """The law's form from its coordinates, in centred units."""
    return law.form(
        *(jnp.exp(c) if k.log else c for c, k in zip(coordinates, law.coordinates, strict=True))
    )


def coordinates_from_parameters(law: ParametricLaw, form: Any) -> jax.Array:
    return jnp.stack(
        [jnp.log(value) if k.log else value for value, k in zip(form, law.coordinates, strict=True)]
    )


def parameters_in_table_units(law: ParametricLaw, problem: Problem, theta: Any) -> Any:
    """The law's form in the units of the table, each (K,), from theta (p, K); arrays of numpy or of jax, as theta is."""
    exp = jnp.exp if isinstance(theta, jax.Array) else np.exp
    coordinates = dict(zip(law.names, problem.offset[:, None] + problem.basis @ theta, strict=True))
    shifted = {}
    for name, k in zip(law.names, law.coordinates, strict=True):
        value = coordinates[name]
        for exponent, axis, power in k.units:
            value = value + power * problem.centre[axis] * (
                coordinates[exponent] if exponent else 1.0
            )
        shifted[name] = exp(value) if k.log else value
    return law.form(**shifted)


def theta_from_parameters(law: ParametricLaw, problem: Problem, form: Any) -> Any:
    """theta (p, K) of parameters in the table's units: the inverse of `natural` for parameters that nothing holds."""
    xp = jnp if any(isinstance(value, jax.Array) for value in form) else np
    columns = []
    for value, k in zip(form, law.coordinates, strict=True):
        value = xp.log(value) if k.log else value
        for exponent, axis, power in k.units:
            value = value - power * problem.centre[axis] * (
                getattr(form, exponent) if exponent else 1.0
            )
        columns.append(value)
    return xp.stack(columns)
