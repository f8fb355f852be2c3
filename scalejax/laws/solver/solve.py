"""A fit as one function, under jit, vmap, scan and grad, with x64 off or on.

A fit needs float64: near an optimum the cost changes in its 13th digit. Most programs
run with x64 off. So the fit enables x64 in its own scope and converts at its boundary.
Three things would let float64 values or float32 rules cross that boundary, and each is
met below: what the backward pass saves, vmap over a traced program, and closed-over
arrays.

Shapes: n rows of the table (padded to a power of two), p parameters, S starts, solved
in chunks of LANES.
"""

from collections.abc import Sequence
from functools import partial
from typing import Generic, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Bool, Float, UInt32

from scalejax.laws.law import AnyArray, F, ParametricLaw, SupportsArray
from scalejax.laws.solver.implicit import Rows, parameters_at, rows_cotangent
from scalejax.laws.solver.losses import Huber, Loss, parse_loss
from scalejax.laws.solver.multistart import LANES, OPTIMUM_TOLERANCE, ZERO_COST, padded_size
from scalejax.laws.solver.newton import State, initial_state, minimize
from scalejax.laws.solver.problem import (
    Problem,
    theta_from_parameters,
    unconstrained,
)
from scalejax.laws.solver.starts import prepare


class Solution(NamedTuple, Generic[F]):
    """The best of many starts: a pytree, in the dtype of the targets."""

    parameters: F
    """The law's NamedTuple of scalars, in the units of the table."""
    objective: Array
    """Sum over rows of the loss."""
    gradient_norm: Array
    """Largest component of the objective's gradient, in centred coordinates."""
    starts_at_optimum: Array
    """Fraction of the starts whose objective is within 1e-6 (relative) of the best."""


def solve(
    law: ParametricLaw[F],
    inputs: Sequence[SupportsArray],
    targets: SupportsArray,
    weights: SupportsArray | None = None,
    starts: F | None = None,
    *,
    loss: str = "huber:1e-3",
) -> Solution[F]:
    """Fit a law to arrays.

    inputs: one (n,) array per input of the law, in its order. targets, weights: (n,);
    rows of weight 0 may hold NaN.
    starts: the law's NamedTuple with (S,) arrays; the default is the law's own grid,
    with its linear parameters solved for. loss: as for `scalejax.fit`.

    All work is in float64, and results come back in the dtype of the targets. They are
    differentiable with respect to inputs, targets and weights, by implicit
    differentiation at the optimum: exact wherever the optimum moves smoothly. Rows are
    padded to 32, 64, 128, ... with weight 0, so that a few compiled programs serve all
    tables.

    >>> import jax, numpy as np, scalejax.laws as laws
    >>> x = np.geomspace(1e6, 1e9, 20)
    >>> fit = jax.jit(lambda y: laws.solve(laws.power(), (x,), y))
    >>> solution = fit(3e2 * x**-0.4 + 2.0)
    >>> print("{:.1f} {:.4f} {:.4f}".format(*solution.parameters))
    300.0 -0.4000 2.0000

    Raises ValueError for shapes that do not fit the law.
    """
    target, columns = _float_array(targets), [_float_array(x) for x in inputs]
    _check_shapes(law, columns, target)
    dtype = target.dtype
    weight = jnp.ones(target.shape, dtype) if weights is None else _float_array(weights)
    # The padding repeats the last row, where every law can be evaluated, at weight 0.
    rows = Rows(
        tuple(_pad(x.astype(dtype), "edge") for x in columns),
        _pad(target, "edge"),
        _pad(weight.astype(dtype), "constant"),
    )
    return _solve(law, parse_loss(loss), _without_missing(rows), starts)


def _without_missing(rows: Rows) -> Rows:
    """Give missing rows of weight 0 the numbers of a row that counts.

    Under jit a row can only be left out by its weight, and 0 times NaN is NaN.
    """
    finite = jnp.isfinite(jnp.stack([*rows.inputs, rows.targets])).all(axis=0)
    is_used, heaviest = finite | (rows.weights != 0), jnp.argmax(rows.weights)
    inputs, targets = jax.tree.map(
        lambda x: jnp.where(is_used, x, x[heaviest]), (rows.inputs, rows.targets)
    )
    return Rows(inputs, targets, rows.weights)


def _check_shapes(law: ParametricLaw, inputs: list[AnyArray], targets: AnyArray) -> None:
    fits = len(inputs) == len(law.inputs) and targets.ndim == 1
    if not fits or any(x.shape != targets.shape for x in inputs):
        shapes = ", ".join(str(x.shape) for x in inputs)
        raise ValueError(
            f"the {law.name} law reads {', '.join(law.inputs)}, each (n,) like the targets "
            f"{targets.shape}; got {shapes}"
        )
    if targets.shape[0] < law.free:
        raise ValueError(
            f"the {law.name} law has {law.free} free parameters; got {targets.shape[0]} rows"
        )


def _float_array(x: SupportsArray) -> AnyArray:
    """Return x as an array of floats, of the caller's default width unless it has one.

    Numpy arrays are converted by numpy. Jax caches what it makes of a closed-over
    array, and would hand a float32 copy to a later trace with x64 on.
    """
    if not isinstance(x, Array):
        x = np.asarray(x, np.result_type(jnp.result_type(float)))
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def _pad(x: AnyArray, mode: Literal["edge", "constant"]) -> Array:
    return jnp.pad(x, (0, padded_size(x.shape[0]) - x.shape[0]), mode=mode)


class _Saved(NamedTuple, Generic[F]):
    """What the backward pass needs of the forward pass."""

    rows: Rows
    starts: F | None
    theta_bits: UInt32[Array, "p 2"]
    """The optimum in float64, as pairs of uint32. Where the caller has x64 off, jax
    would cut a float64 value to float32 when it leaves the scope of the fit."""


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _solve(law: ParametricLaw[F], loss: Loss, rows: Rows, starts: F | None) -> Solution[F]:
    return _forward(law, loss, rows, starts)[0]


def _forward(
    law: ParametricLaw[F], loss: Loss, rows: Rows, starts: F | None
) -> tuple[Solution[F], _Saved[F]]:
    """Solve one table; under vmap, one table after the other.

    Jax batches a traced program by rules that run outside the scope that enabled x64,
    and would cut the float64 inside to float32. And in sequence, tables that are done
    early do not wait for the others.
    """
    return sequential_vmap(partial(_forward_one, law, loss))(rows, starts)


def _forward_one(
    law: ParametricLaw[F], loss: Loss, rows: Rows, starts: F | None
) -> tuple[Solution[F], _Saved[F]]:
    dtype = rows.targets.dtype
    with jax.enable_x64(True):
        wide: Rows = jax.tree.map(lambda x: x.astype(jnp.float64), rows)
        # The law's grid, which the starts of the caller replace.
        problem, theta = prepare(law, wide.inputs, wide.targets, wide.weights, loss.residual)
        if starts is not None:
            columns = (jnp.atleast_1d(jnp.asarray(x, jnp.float64)) for x in starts)
            theta = theta_from_parameters(law, problem, law.form._make(columns))
        best = _best_of_starts(law, loss, problem, theta, wide.weights)
        solution = Solution(
            parameters_at(law, problem, best.theta),
            best.cost / loss.normalizer,
            jnp.max(jnp.abs(best.gradient)) / loss.normalizer,
            best.starts_at_optimum,
        )
        # No float64 value may leave this scope: the results are cast, the optimum is
        # saved as bits.
        narrow = jax.tree.map(lambda x: x.astype(dtype), solution)
        bits = jax.lax.bitcast_convert_type(best.theta, jnp.uint32)
        return narrow, _Saved(rows, starts, bits)


class _Best(NamedTuple):
    """The best of many starts."""

    theta: Float[Array, " p"]
    gradient: Float[Array, " p"]
    cost: Float[Array, ""]
    starts_at_optimum: Float[Array, ""]


def _best_of_starts(
    law: ParametricLaw,
    loss: Loss,
    problem: Problem,
    starts: Float[AnyArray, "p S"],
    weights: Float[Array, " n"],
) -> _Best:
    """Minimize from every start, LANES at a time, and select the lowest cost."""
    # The last chunk repeats the last start until it is full.
    count = starts.shape[1]
    padded = jnp.pad(starts, ((0, 0), (0, -count % LANES)), mode="edge")
    chunks = padded.reshape(padded.shape[0], -1, LANES).transpose(1, 0, 2)
    weights_in_lanes = jnp.broadcast_to(weights[:, None], (weights.shape[0], LANES))

    def minimize_chunks(huber: Huber, chunks: Array) -> State:
        def minimize_chunk(theta: Array) -> State:
            state = initial_state(problem, theta)
            return minimize(
                unconstrained(law), loss.residual, problem, huber, state, weights_in_lanes
            )

        return jax.lax.map(minimize_chunk, chunks)

    # Each stage starts where the one before ended.
    for huber in loss.stages[:-1]:
        chunks = jnp.asarray(minimize_chunks(huber, chunks).theta)
    states = minimize_chunks(loss.stages[-1], chunks)

    # A start from which the law cannot be evaluated cannot win. The repeated starts do
    # not count.
    cost = states.cost.reshape(-1)[:count]
    cost = jnp.where(jnp.isnan(cost), jnp.inf, cost)
    least = jnp.min(cost)
    # The first start of least cost. An argmin does not lower where the caller has x64
    # off.
    lane = jnp.arange(count, dtype=jnp.int32)
    chosen = lane == jnp.min(jnp.where(cost == least, lane, count))
    limit = least * (1 + OPTIMUM_TOLERANCE) + ZERO_COST * jnp.sum(weights)
    return _Best(
        theta=_select(states.theta, chosen),
        # Targets that are not numbers have no optimum, which the caller must see.
        gradient=jnp.where(jnp.isfinite(least), _select(states.gradient, chosen), jnp.nan),
        cost=least,
        starts_at_optimum=jnp.mean((jnp.isfinite(cost) & (cost <= limit)).astype(jnp.float64)),
    )


def _select(
    chunks: Float[AnyArray, "chunks p lanes"], chosen: Bool[Array, " S"]
) -> Float[Array, " p"]:
    """Return the column of the chosen start."""
    columns = chunks.transpose(1, 0, 2).reshape(chunks.shape[1], -1)[:, : chosen.shape[0]]
    return jnp.sum(jnp.where(chosen, columns, 0.0), axis=1)


def _backward(
    law: ParametricLaw[F], loss: Loss, saved: _Saved[F], cotangent: Solution[F]
) -> tuple[Rows, F | None]:
    return sequential_vmap(partial(_backward_one, law, loss))(saved, cotangent)


def _backward_one(
    law: ParametricLaw[F], loss: Loss, saved: _Saved[F], cotangent: Solution[F]
) -> tuple[Rows, F | None]:
    """Pull the cotangents of parameters and objective back to the rows.

    The gradient norm and the fraction of starts at the optimum have no derivative, and
    the starts have no effect on the optimum.
    """
    dtype = saved.rows.targets.dtype
    with jax.enable_x64(True):
        theta = jax.lax.bitcast_convert_type(saved.theta_bits, jnp.float64)
        wide: Rows = jax.tree.map(lambda x: x.astype(jnp.float64), saved.rows)
        parameters, objective = jax.tree.map(
            lambda x: x.astype(jnp.float64), (cotangent.parameters, cotangent.objective)
        )
        total = rows_cotangent(law, loss, wide, theta, parameters, objective)
        rows = jax.tree.map(lambda x: x.astype(dtype), total)
    return rows, jax.tree.map(jnp.zeros_like, saved.starts)


_solve.defvjp(_forward, _backward)
