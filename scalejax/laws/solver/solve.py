"""A fit as one function in your own code: under jit, vmap, scan and grad, with x64 off or on."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import sequential_vmap
from jax.typing import ArrayLike

from scalejax.laws.law import F, ParametricLaw
from scalejax.laws.solver import losses
from scalejax.laws.solver.cholesky import solve_positive_definite
from scalejax.laws.solver.losses import Loss
from scalejax.laws.solver.multistart import LANES, SMALLEST
from scalejax.laws.solver.newton import begin, evaluate, newton
from scalejax.laws.solver.problem import (
    Problem,
    held_names,
    held_values,
    parameters_in_centred_units,
    parameters_in_table_units,
    theta_from_parameters,
    unconstrained,
)
from scalejax.laws.solver.starts import prepare


class Solution(NamedTuple, Generic[F]):
    """The best of many starts; a pytree in the dtype of the targets."""

    parameters: F
    """The law's NamedTuple, each a scalar."""
    objective: jax.Array
    """Sum over rows of the loss."""
    gradient_norm: jax.Array
    """Largest component of the objective's gradient in centred coordinates."""
    starts_at_optimum: jax.Array
    """Share of the starts whose objective is within 1e-6 (relative) of the best."""


def solve(
    law: ParametricLaw[F],
    inputs: Sequence[ArrayLike],
    targets: ArrayLike,
    weights: ArrayLike | None = None,
    starts: F | None = None,
    *,
    loss: str = "huber:1e-3",
) -> Solution[F]:
    """Fits a law to arrays.

    inputs: one (n,) array per input of the law, in its order.  targets, weights: (n,).  starts: the law's NamedTuple with
    (S,) arrays; the default is the law's grid with its linear parameters solved. Rows are padded to 32, 64, 128, .. with
    weight 0, so a few programs serve all tables.

    All work is in float64 inside; results come back in the dtype of the targets and are differentiable (implicit
    differentiation at the optimum: exact wherever the optimum moves smoothly) with respect to inputs, targets and weights.

    >>> import jax, numpy as np, scalejax.laws as laws
    >>> x = np.geomspace(1e6, 1e9, 20)
    >>> found = jax.jit(lambda y: laws.solve(laws.power(), (x,), y))(3e2 * x**-0.4 + 2.0)
    >>> print(f"{found.parameters.a:.1f} {found.parameters.b:.4f} {found.parameters.c:.4f}")
    300.0 -0.4000 2.0000

    Raises ValueError for shapes that do not fit the law.
    """
    targets, *inputs = (_array(x) for x in (targets, *inputs))
    if (
        len(inputs) != len(law.inputs)
        or any(x.shape != targets.shape for x in inputs)
        or targets.ndim != 1
    ):
        shapes = ", ".join(str(x.shape) for x in inputs)
        read = ", ".join(law.inputs)
        raise ValueError(
            f"the {law.name} law reads {read}, each (n,) like the targets {targets.shape}; got {shapes}"
        )
    if targets.shape[0] < law.free:
        raise ValueError(
            f"the {law.name} law has {law.free} free parameters; got {targets.shape[0]} rows"
        )
    dtype = targets.dtype
    weights = jnp.ones(targets.shape, dtype) if weights is None else _array(weights)
    rows = [_padded(x.astype(dtype), "edge") for x in (*inputs, targets)]
    out: Any = _solve(
        law, losses.parse_loss(loss), (*rows, _padded(weights.astype(dtype), "constant")), starts
    )
    return Solution(*out)


def _array(x: Any) -> jax.Array:
    """As floats of the caller's width. Numpy arrays are converted by numpy: jax keeps what it made of a closed-over array,
    and would hand a float32 copy to a later trace with x64 on."""
    if not isinstance(x, jax.Array):
        x = np.asarray(x, np.result_type(jnp.result_type(float)))
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def _padded(x: jax.Array, mode: str) -> jax.Array:
    size = SMALLEST
    while size < x.shape[0]:
        size *= 2
    return jnp.pad(x, (0, size - x.shape[0]), mode=mode)  # type: ignore[arg-type]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _solve(law: ParametricLaw, loss: Loss, rows: tuple, starts: Any) -> tuple:
    return _forward(law, loss, rows, starts)[0]


def _forward(law: ParametricLaw, loss: Loss, rows: tuple, starts: Any) -> tuple:
    """One table after the other under vmap: jax batches what is already traced by rules of the caller's precision, which would
    cut the float64 inside to float32; and tables that are done early wait for none."""
    return sequential_vmap(partial(_forward_one, law, loss))(rows, starts)


def _forward_one(law: ParametricLaw, loss: Loss, rows: tuple, starts: Any) -> tuple:
    """Outputs, and what the backward pass needs: theta travels as pairs of uint32, so that no float64 leaves the scope."""
    dtype = rows[-1].dtype
    with jax.enable_x64(True):
        *inputs, targets, weights = (x.astype(jnp.float64) for x in rows)
        problem, theta = prepare(
            unconstrained(law),
            held_names(law),
            tuple(inputs),
            targets,
            weights,
            held_values(law),
            loss.residual,
        )
        if starts is not None:
            given = law.form(*(jnp.atleast_1d(jnp.asarray(x, jnp.float64)) for x in starts))
            theta = theta_from_parameters(law, problem, given)
        count = theta.shape[1]
        theta = jnp.pad(theta, ((0, 0), (0, -count % LANES)), mode="edge")
        chunks = theta.reshape(theta.shape[0], -1, LANES).transpose(1, 0, 2)
        lanes = jnp.broadcast_to(weights[:, None], (weights.shape[0], LANES))
        for huber in loss.stages:
            states = jax.lax.map(
                lambda t, h=huber: newton(
                    unconstrained(law), loss.residual, problem, h, begin(problem, t), lanes
                ),
                chunks,
            )
            chunks = states.theta
        cost = jnp.nan_to_num(states.cost.reshape(-1)[:count], nan=jnp.inf)
        least = jnp.min(cost)
        lane = jnp.arange(count, dtype=jnp.int32)
        chosen = lane == jnp.min(
            jnp.where(cost == least, lane, count)
        )  # argmin does not lower where the caller has x64 off
        theta, gradient = (_lane(x, chosen) for x in (states.theta, states.gradient))
        share = jnp.mean(
            (cost <= least * (1 + 1e-6) + 1e-24 * jnp.sum(weights)).astype(jnp.float64)
        )
        out = (
            _parameters(law, problem, theta),
            least / loss.normalizer,
            jnp.max(jnp.abs(gradient)) / loss.normalizer,
            share,
        )
        return jax.tree.map(lambda x: x.astype(dtype), out), (
            rows,
            starts,
            jax.lax.bitcast_convert_type(theta, jnp.uint32),
        )


def _lane(chunks: jax.Array, chosen: jax.Array) -> jax.Array:
    """(p,) of the chosen lane, from (chunks, p, LANES)."""
    lanes = chunks.transpose(1, 0, 2).reshape(chunks.shape[1], -1)[:, : chosen.shape[0]]
    return jnp.sum(jnp.where(chosen, lanes, 0.0), axis=1)


def _parameters(law: ParametricLaw, problem: Problem, theta: jax.Array) -> Any:
    return jax.tree.map(lambda x: x[0], parameters_in_table_units(law, problem, theta[:, None]))


def _backward(law: ParametricLaw, loss: Loss, kept: tuple, cotangent: tuple) -> tuple:
    return sequential_vmap(partial(_backward_one, law, loss))(kept, cotangent)


def _backward_one(law: ParametricLaw, loss: Loss, kept: tuple, cotangent: tuple) -> tuple:
    """Implicit differentiation: at the optimum the gradient stays zero, so H dtheta = -(d gradient / d rows) d rows."""
    rows, starts, bits = kept
    dtype = rows[-1].dtype
    with jax.enable_x64(True):
        theta = jax.lax.bitcast_convert_type(bits, jnp.float64)
        wide = tuple(x.astype(jnp.float64) for x in rows)
        seen, size = (jax.tree.map(lambda x: x.astype(jnp.float64), c) for c in cotangent[:2])
        _, pull = jax.vjp(
            lambda rows, theta: _parameters(law, _problem(law, loss, rows), theta), wide, theta
        )
        direct, along = pull(seen)
        step = _implicit(law, loss, wide, theta, along)

        def pairing(rows: tuple) -> jax.Array:
            """step . gradient(theta, rows) + size x objective(rows), with theta at the optimum."""
            residuals, moved = jax.jvp(lambda t: _residuals(law, loss, rows, t), (theta,), (step,))
            huber = loss.stages[-1]
            fixed = jax.lax.stop_gradient(residuals)
            objective = huber.cost(fixed) + huber.slope(fixed) * (residuals - fixed)
            return jnp.sum(
                rows[-1] * (huber.slope(residuals) * moved + size / loss.normalizer * objective)
            )

        total = jax.tree.map(jnp.add, direct, jax.grad(pairing)(wide))
        back = tuple(x.astype(dtype) for x in total)
    return back, jax.tree.map(jnp.zeros_like, starts)


def _implicit(
    law: ParametricLaw, loss: Loss, rows: tuple, theta: jax.Array, along: jax.Array
) -> jax.Array:
    """-H^-1 along, over the parameters that are free to move: not held, not at a bound."""
    problem = _problem(law, loss, rows)
    huber = loss.stages[-1]
    _, _, hessian, _ = evaluate(
        unconstrained(law), loss.residual, problem, huber, theta[:, None], rows[-1][:, None]
    )
    still = jnp.all(problem.basis == 0, axis=0) | (theta <= problem.low) | (theta >= problem.high)
    count = range(len(law.names))
    matrix = [
        [jnp.where(still[i] | still[j], float(i == j), hessian[i, j]) for j in count] for i in count
    ]
    step, _ = solve_positive_definite(
        matrix, [jnp.where(still[i], 0.0, -along[i])[None] for i in count]
    )
    return jnp.stack(step)[:, 0]


def _problem(law: ParametricLaw, loss: Loss, rows: tuple) -> Problem:
    *inputs, targets, weights = rows
    return prepare(
        unconstrained(law),
        held_names(law),
        tuple(inputs),
        targets,
        weights,
        held_values(law),
        loss.residual,
    )[0]


def _residuals(law: ParametricLaw, loss: Loss, rows: tuple, theta: jax.Array) -> jax.Array:
    problem = _problem(law, loss, rows)
    predicted = law.predict(
        parameters_in_centred_units(law, problem.offset + problem.basis @ theta), *problem.inputs
    )
    return (
        jnp.log(predicted) - jnp.log(problem.targets)
        if loss.residual == "log"
        else predicted - problem.targets
    )


_solve.defvjp(_forward, _backward)
