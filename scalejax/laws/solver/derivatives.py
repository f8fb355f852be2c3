"""Sums over rows of a law's derivatives, all that a Newton step needs of the table.

Shapes as in `newton`: n rows, p coordinates, K lanes. y is the predicted target, y_a its derivative along coordinate a.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from scalejax.laws.law import Decays, ParametricLaw
from scalejax.laws.solver.problem import parameters_in_centred_units

Sums = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
"""(along, across, pull), row weights (n, K) -> gradient, sum along y_a (p, K); Hessian, sum across y_a y_b + along y_ab
(p, p, K); and sum pull y_a^2 (p, K)."""


def expand(
    law: ParametricLaw, coordinates: jax.Array, inputs: tuple[jax.Array, ...]
) -> tuple[jax.Array, Sums]:
    """Predicted targets (n, K) from coordinates (p, K) and inputs (n,), and the sums of their derivatives."""
    of = _decays if isinstance(law.linear, Decays) else _differentiated
    return of(law, coordinates, inputs)


def _decays(
    law: ParametricLaw, coordinates: jax.Array, inputs: tuple[jax.Array, ...]
) -> tuple[jax.Array, Sums]:
    """A derivative of a decay is the decay times columns of the table, 1 for its log size and -x for its exponent. So one array
    (n, K) for each pair of terms is all that is summed over rows, by a matrix product: a third of the time of `_differentiated`.

    The last sum leaves out the products of two decays that share an exponent: it is a scale, of damping and of the test of
    convergence.
    """
    decays: Any = law.linear
    one, terms = jnp.ones_like(inputs[0]), []
    for size, exponent, x in zip(decays.sizes, decays.exponents, decays.of(*inputs), strict=True):
        i, j = law.names.index(size), law.names.index(exponent)
        terms.append(
            (
                (i, j),
                jnp.stack([one, -x]),
                decays.sign * jnp.exp(coordinates[i] - coordinates[j] * x[:, None]),
            )
        )
    offset = law.names.index(decays.offset)
    predicted = sum((y for *_, y in terms), coordinates[offset])
    terms.append(((offset,), one[None], one[:, None]))

    def sums(
        along: jax.Array, across: jax.Array, pull: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        nothing = jnp.zeros_like(coordinates[0])
        gradient, diagonal = [nothing] * len(law.names), [nothing] * len(law.names)
        hessian = [[nothing] * len(law.names) for _ in law.names]
        for k, (places, columns, y) in enumerate(terms):
            for a, slope, square in zip(
                places, columns @ (along * y), columns**2 @ (pull * y * y), strict=True
            ):
                gradient[a], diagonal[a] = gradient[a] + slope, diagonal[a] + square
            for m, (others, beside, other) in enumerate(terms[: k + 1]):
                curved = across * y * other + (along * y if k == m and places != (offset,) else 0.0)
                products = (columns[:, None] * beside).reshape(-1, len(one)) @ curved
                for (a, b), product in zip(
                    itertools.product(places, others), products, strict=True
                ):
                    hessian[a][b] = hessian[a][b] + product
                    hessian[b][a] = hessian[b][a] + product if k != m else hessian[b][a]
        return (
            jnp.stack(gradient),
            jnp.stack([jnp.stack(row) for row in hessian]),
            jnp.stack(diagonal),
        )

    return predicted, sums


def _differentiated(
    law: ParametricLaw, coordinates: jax.Array, inputs: tuple[jax.Array, ...]
) -> tuple[jax.Array, Sums]:
    """Any law, by one forward pass for each derivative, no transposes."""
    count = range(len(law.names))

    def along(i: int, g: Callable) -> Callable:
        return lambda x: jax.jvp(
            lambda v: g([*x[:i], v, *x[i + 1 :]]), (x[i],), (jnp.ones_like(x[i]),)
        )[1]

    def predict(c: list[jax.Array]) -> jax.Array:
        return law.predict(parameters_in_centred_units(law, c), *(x[:, None] for x in inputs))

    at, slopes = list(coordinates), [along(i, predict) for i in count]
    first = [slope(at) for slope in slopes]
    second = {(i, j): along(j, slopes[i])(at) for i in count for j in range(i + 1)}

    def sums(
        along: jax.Array, across: jax.Array, pull: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        upper = {
            (i, j): jnp.sum(across * first[i] * first[j] + along * d, axis=0)
            for (i, j), d in second.items()
        }
        hessian = jnp.stack(
            [jnp.stack([upper[max(i, j), min(i, j)] for j in count]) for i in count]
        )
        gradient = jnp.stack([jnp.sum(along * d, axis=0) for d in first])
        return gradient, hessian, jnp.stack([jnp.sum(pull * d * d, axis=0) for d in first])

    return predict(at), sums
