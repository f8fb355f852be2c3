"""First and second derivatives of a law, summed over the rows of a table.

A Newton step on a cost sum_i c_i(y_i), where y_i is the predicted target of row i,
needs

    gradient       g_a  = sum_i c'_i y_ia
    Hessian        H_ab = sum_i c''_i y_ia y_ib + c'_i y_iab
    IRLS diagonal  D_a  = sum_i w_i y_ia^2

where y_ia is the derivative of y_i along coordinate a. The arrays y_ia and y_iab are
never stored for all pairs: `expand` returns a function that goes from the three row
weights c', c'' and w straight to the sums.

Shapes: n rows, p coordinates, K lanes. The lanes are the last axis of every array, so
sums over rows run in vector registers.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from scalejax.laws.law import AnyArray, Decays, ParametricLaw
from scalejax.laws.solver.problem import parameters_in_centred_units


class RowWeights(NamedTuple):
    """The factors of the three sums, one number per row and lane."""

    slope: Float[Array, "n K"]
    """Derivative of a row's cost with respect to its prediction."""
    curvature: Float[Array, "n K"]
    """Second derivative of a row's cost with respect to its prediction."""
    irls: Float[Array, "n K"]
    """Weight of iteratively reweighted least squares, positive."""


class DerivativeSums(NamedTuple):
    """Derivatives of a cost with respect to the coordinates."""

    gradient: Float[Array, "p K"]
    hessian: Float[Array, "p p K"]
    irls_diagonal: Float[Array, "p K"]
    """Diagonal of the matrix of iteratively reweighted least squares (IRLS)."""


class Expansion(NamedTuple):
    """A law's predictions at some coordinates, and sums of its derivatives there."""

    predicted: Float[Array, "n K"]
    sums: Callable[[RowWeights], DerivativeSums]


def expand(
    law: ParametricLaw,
    coordinates: Float[AnyArray, "p K"],
    inputs: tuple[Float[AnyArray, " n"], ...],
) -> Expansion:
    """Expand a law to second order around each lane's coordinates."""
    if isinstance(law.linear, Decays):
        return _expand_decays(law, law.linear, coordinates, inputs)
    return _expand_by_differentiation(law, coordinates, inputs)


class _Term(NamedTuple):
    """One term of a sum of exponential decays.

    The derivatives of size x exp(-exponent x) are the term itself, times columns of the
    table: 1 for the log of its size, -x for its exponent, and products of those for
    second derivatives. The offset is a term with one coordinate, itself.
    """

    places: tuple[int, ...]
    """Index of each of the term's coordinates among all of them."""
    columns: Float[Array, "m n"]
    """One row per coordinate: derivative of the term = column x value."""
    value: Float[Array, "n _"]


def _decay_terms(
    law: ParametricLaw,
    decays: Decays,
    coordinates: Float[AnyArray, "p K"],
    inputs: tuple[Float[AnyArray, " n"], ...],
) -> list[_Term]:
    """Return the decays of a law, and its offset as the last term."""
    ones = jnp.ones_like(inputs[0])
    terms = []
    for size, exponent, x in zip(decays.sizes, decays.exponents, decays.of(*inputs), strict=True):
        i, j = law.names.index(size), law.names.index(exponent)
        value = decays.sign * jnp.exp(coordinates[i] - coordinates[j] * jnp.asarray(x)[:, None])
        terms.append(_Term((i, j), jnp.stack([ones, -jnp.asarray(x)]), value))
    offset = law.names.index(decays.offset)
    return [*terms, _Term((offset,), ones[None], ones[:, None])]


def _expand_decays(
    law: ParametricLaw,
    decays: Decays,
    coordinates: Float[AnyArray, "p K"],
    inputs: tuple[Float[AnyArray, " n"], ...],
) -> Expansion:
    """Expand a sum of exponential decays, in a third of the time of differentiation.

    All derivatives of a pair of terms are one (n, K) array times columns of the table.
    So their sums over rows are one matrix product, (columns, n) @ (n, K), for each
    pair.
    """
    *terms, offset = _decay_terms(law, decays, coordinates, inputs)
    predicted = sum((term.value for term in terms), coordinates[offset.places[0]])
    terms.append(offset)
    count, rows = len(law.names), len(inputs[0])

    def sums(weights: RowWeights) -> DerivativeSums:
        zero = jnp.zeros_like(coordinates[0])
        gradient, irls_diagonal = [zero] * count, [zero] * count
        hessian = [[zero] * count for _ in range(count)]
        for k, term in enumerate(terms):
            # The IRLS diagonal leaves out the products of two decays that share an
            # exponent. It sets a scale, for damping and for convergence, and need not
            # be exact.
            slopes = term.columns @ (weights.slope * term.value)
            squares = term.columns**2 @ (weights.irls * term.value * term.value)
            for a, slope, square in zip(term.places, slopes, squares, strict=True):
                gradient[a], irls_diagonal[a] = gradient[a] + slope, irls_diagonal[a] + square
            for m, other in enumerate(terms[: k + 1]):
                # Only a decay has second derivatives, and only along its own
                # coordinates.
                bends = k == m and term is not offset
                own = weights.slope * term.value if bends else 0.0
                curved = weights.curvature * term.value * other.value + own
                pairs = (term.columns[:, None] * other.columns).reshape(-1, rows)
                products = pairs @ curved
                places = itertools.product(term.places, other.places)
                for (a, b), product in zip(places, products, strict=True):
                    hessian[a][b] = hessian[a][b] + product
                    # Within one term the product (b, a) comes up by itself.
                    hessian[b][a] = hessian[b][a] + product if k != m else hessian[b][a]
        return DerivativeSums(
            jnp.stack(gradient),
            jnp.stack([jnp.stack(row) for row in hessian]),
            jnp.stack(irls_diagonal),
        )

    return Expansion(predicted, sums)


# A function of p coordinates, each (K,), that returns an array (n, K).
_OfCoordinates = Callable[[Sequence[Array]], Array]


def _expand_by_differentiation(
    law: ParametricLaw,
    coordinates: Float[AnyArray, "p K"],
    inputs: tuple[Float[AnyArray, " n"], ...],
) -> Expansion:
    """Expand any law, by one forward pass for each first and second derivative.

    Forward mode throughout: there are few coordinates, and a reverse pass would have to
    store and transpose every operation of the law.
    """
    indices = range(len(law.names))

    def predict(coordinates: Sequence[Array]) -> Array:
        parameters = parameters_in_centred_units(law, coordinates)
        return law.predict(parameters, *(x[:, None] for x in inputs))

    point = list(coordinates)
    slopes = [_partial_derivative(predict, i) for i in indices]
    first = [slope(point) for slope in slopes]
    second = {
        (i, j): _partial_derivative(slopes[i], j)(point) for i in indices for j in range(i + 1)
    }

    def sums(weights: RowWeights) -> DerivativeSums:
        lower = {
            (i, j): jnp.sum(
                weights.curvature * first[i] * first[j] + weights.slope * derivative, axis=0
            )
            for (i, j), derivative in second.items()
        }
        hessian = jnp.stack(
            [jnp.stack([lower[max(i, j), min(i, j)] for j in indices]) for i in indices]
        )
        gradient = jnp.stack([jnp.sum(weights.slope * slope, axis=0) for slope in first])
        squares = [jnp.sum(weights.irls * slope * slope, axis=0) for slope in first]
        return DerivativeSums(gradient, hessian, jnp.stack(squares))

    return Expansion(predict(point), sums)


def _partial_derivative(function: _OfCoordinates, i: int) -> _OfCoordinates:
    """Return the derivative of a function along coordinate i, lane by lane."""

    def derivative(point: Sequence[Array]) -> Array:
        def along(value: Array) -> Array:
            return function([*point[:i], value, *point[i + 1 :]])

        # A lane's predictions depend on that lane's coordinates only, so one tangent of
        # ones differentiates all lanes at once.
        return jax.jvp(along, (point[i],), (jnp.ones_like(point[i]),))[1]

    return derivative
