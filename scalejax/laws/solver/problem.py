"""One law on one table, in the coordinates and units that the solver works in.

A parameter has three representations:

- In table units, as users read it: A = 406.4 where N counts parameters.
- As a coordinate: in centred units, and as its logarithm if it is positive. Inputs are
  divided by their geometric mean, which turns A into A mean(N)^-alpha. In these units
  the size and the exponent of a term are hardly correlated, so Newton's steps are long.
- As theta, the vector that the solver moves: coordinates = offset + basis @ theta. The
  affine map expresses equality constraints. A parameter that is held at a value, or
  tied to another one, has a zero column in `basis`.

Shapes: n rows of the table, p parameters, K lanes (fits of one law, solved side by
side). The lanes are always the last axis.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from scalejax.laws.law import AnyArray, F, ParametricLaw
from scalejax.laws.solver.losses import ResidualKind, residuals


class Problem(NamedTuple):
    """One law on one table, in centred units."""

    inputs: tuple[Float[Array, " n"], ...]
    """Divided by their geometric mean; for additive laws, minus their mean. Inputs that
    are raw stay as they are."""
    targets: Float[Array, " n"]
    """In table units."""
    offset: Float[Array, " p"]
    """Coordinates at theta = 0."""
    basis: Float[Array, "p p"]
    """Derivative of the coordinates with respect to theta."""
    low: Float[Array, " p"]
    """Lower bounds of theta."""
    high: Float[Array, " p"]
    """Upper bounds of theta."""
    centre: Float[Array, " axes"]
    """Log of the unit of each axis; for additive laws, what was subtracted. It is 0 for
    raw inputs."""

    @property
    def held(self) -> Bool[AnyArray, " p"]:
        """Mask of the parameters that are held at a value or tied to another one."""
        return (self.basis == 0).all(axis=0)

    def fixed_at(self, theta: Float[AnyArray, " p"]) -> Bool[AnyArray, " p"]:
        """Mask of the parameters that are held, or at a bound at theta."""
        return self.held | (theta <= self.low) | (theta >= self.high)


class Constraints(NamedTuple):
    """Which parameters are held or tied. The values are not part of it.

    Compiled programs depend on this, and take the values as data: a profile over fifty
    values of one parameter compiles one program.
    """

    held: tuple[str, ...]
    tied: tuple[tuple[str, str], ...]
    """(parameter, leader): the parameter equals the leader."""


def unconstrained(law: ParametricLaw) -> ParametricLaw:
    """Return the law without held and tied parameters: the key of compiled code."""
    return dataclasses.replace(law, fixed=(), tied=())


def constraints_of(law: ParametricLaw) -> Constraints:
    """Return which parameters of a law are held or tied."""
    return Constraints(tuple(name for name, _ in law.fixed), law.tied)


def held_values(law: ParametricLaw) -> Float[np.ndarray, " held"]:
    """Return the values of the held parameters, in the order of `Constraints.held`."""
    return np.array([value for _, value in law.fixed], np.float64)


def affine_constraints(
    law: ParametricLaw,
    constraints: Constraints,
    values: Float[AnyArray, " held"],
    centre: Float[Array, " axes"],
) -> tuple[Float[Array, " p"], Float[Array, "p p"]]:
    """Return (offset, basis) such that coordinates = offset + basis @ theta.

    Without constraints the map is the identity. A user holds a parameter in table
    units, but the solver works in centred units, and the change of units can involve a
    free parameter: log A = log A' + alpha log(unit). So holding A does not hold the
    coordinate log A'; it makes it a function of alpha.
    """
    names = law.names
    held = dict(zip(constraints.held, values, strict=True))
    offset = {name: jnp.zeros(()) for name in names}
    basis = {name: jnp.eye(len(names))[i] for i, name in enumerate(names)}
    coordinates = list(zip(names, law.coordinates, strict=True))
    # In table units a held parameter is a constant, and a tied one moves with its
    # leader.
    for name, coordinate in coordinates:
        if name in held:
            offset[name] = jnp.log(held[name]) if coordinate.log else held[name]
            basis[name] = jnp.zeros(len(names))
    for name, leader in constraints.tied:
        offset[name], basis[name] = offset[leader], basis[leader]
    # The change to centred units adds multiples of the exponents. These have no unit
    # themselves, so their rows are final here.
    for name, coordinate in coordinates:
        if name not in held:
            continue
        for exponent, axis, power in coordinate.units:
            shift = power * centre[axis]
            offset[name] = offset[name] - shift * (offset[exponent] if exponent else 1.0)
            basis[name] = basis[name] - shift * (basis[exponent] if exponent else 0.0)
    return jnp.stack([offset[name] for name in names]), jnp.stack([basis[name] for name in names])


def coordinates_at(problem: Problem, theta: Float[AnyArray, "p K"]) -> Float[AnyArray, "p K"]:
    """Return the coordinates of all parameters, held ones included."""
    return problem.offset[:, None] + problem.basis @ theta


def parameters_in_centred_units(
    law: ParametricLaw[F], coordinates: AnyArray | Sequence[Array]
) -> F:
    """Return a law's NamedTuple in centred units from its p coordinates."""
    pairs = zip(coordinates, law.coordinates, strict=True)
    return law.form._make(jnp.exp(x) if coordinate.log else x for x, coordinate in pairs)


def coordinates_from_parameters(law: ParametricLaw[F], parameters: F) -> Array:
    """Return the coordinates (p, ...) of parameters in centred units."""
    pairs = zip(parameters, law.coordinates, strict=True)
    return jnp.stack([jnp.log(x) if coordinate.log else x for x, coordinate in pairs])


def parameters_in_table_units(
    law: ParametricLaw[F], problem: Problem, theta: Float[AnyArray, "p K"]
) -> F:
    """Return a law's NamedTuple in table units, with fields of shape (K,).

    The fields are numpy arrays if theta is one, and jax arrays otherwise.
    """
    # After a fit, theta is on the host, and jax would compile a program for each size
    # K.
    exp = jnp.exp if isinstance(theta, Array) else np.exp
    coordinates = dict(zip(law.names, coordinates_at(problem, theta), strict=True))
    parameters = []
    for name, coordinate in zip(law.names, law.coordinates, strict=True):
        # Undoes the centring: log A = log A' + alpha log(unit).
        value = coordinates[name]
        for exponent, axis, power in coordinate.units:
            factor = coordinates[exponent] if exponent else 1.0
            value = value + power * problem.centre[axis] * factor
        parameters.append(exp(value) if coordinate.log else value)
    return law.form._make(parameters)


def theta_from_parameters(
    law: ParametricLaw[F], problem: Problem, parameters: F
) -> Float[AnyArray, "p K"]:
    """Return theta from parameters in table units: the inverse of the function above.

    It is the inverse for parameters that are neither held nor tied; `Problem.basis`
    ignores the theta of the others.
    """
    xp = jnp if any(isinstance(value, Array) for value in parameters) else np
    rows = []
    for value, coordinate in zip(parameters, law.coordinates, strict=True):
        value = xp.log(value) if coordinate.log else value
        for exponent, axis, power in coordinate.units:
            factor = getattr(parameters, exponent) if exponent else 1.0
            value = value - power * problem.centre[axis] * factor
        rows.append(value)
    return xp.stack(rows)


def residuals_at(
    law: ParametricLaw, kind: ResidualKind, problem: Problem, theta: Float[AnyArray, " p"]
) -> Float[Array, " n"]:
    """Return the residuals at theta; differentiable in theta and the problem."""
    parameters = parameters_in_centred_units(law, problem.offset + problem.basis @ theta)
    return residuals(kind, law.predict(parameters, *problem.inputs), problem.targets)
