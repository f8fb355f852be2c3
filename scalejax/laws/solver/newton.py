"""Damped Newton on the exact Hessian: many fits of one law to one table at once, in lanes.

Shapes: n rows, p coordinates, K lanes (the last axis everywhere, so that sums over rows run in vector registers).
A coordinate is a parameter in centred units, as its logarithm where it is positive.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.cholesky import solve_positive_definite
from scalejax.laws.solver.derivatives import expand
from scalejax.laws.solver.losses import Huber
from scalejax.laws.solver.problem import Problem

ITERATIONS = 1000  # along a ridge of few rows Huber kinks make the steps short: 137 of 1,000 bootstraps of 20 rows need over 300
DAMPING = 1e-2  # of the first step
ROUNDING = 1e-13  # relative size of a sum's rounding errors


class State(NamedTuple):
    """Where each lane stands."""

    theta: jax.Array
    """(p, K)"""
    cost: jax.Array
    """(K,)"""
    gradient: jax.Array
    """(p, K)"""
    hessian: jax.Array
    """(p, p, K)"""
    irls_diagonal: jax.Array
    """(p, K): diagonal of the iteratively reweighted least-squares matrix."""
    damping: jax.Array
    done: jax.Array
    iterations: jax.Array


def begin(problem: Problem, theta: jax.Array | np.ndarray) -> State:
    """Lanes at theta (p, K), not evaluated yet (infinite cost): the first pass of `newton` does that, so that the law is
    compiled once, not twice. By numpy, whatever theta is: op by op, jax would compile twenty programs of its own."""
    count, lanes = theta.shape
    start = theta.clip(problem.low[:, None], problem.high[:, None])
    flat, bowl = np.zeros((count, lanes)), np.repeat(np.eye(count)[..., None], lanes, axis=2)
    damping, iterations = np.full(lanes, 10 * DAMPING), np.zeros(lanes, np.int32)
    return State(
        start, np.full(lanes, np.inf), flat, bowl, flat, damping, np.zeros(lanes, bool), iterations
    )  # type: ignore[arg-type]


def newton(
    law: ParametricLaw,
    residual: str,
    problem: Problem,
    huber: Huber,
    state: State,
    weights: jax.Array,
    moved: jax.Array | float = 0.0,
    passes: Any = ITERATIONS,
) -> State:
    """Minimizes sum_i w_i Huber(r_i) with weights (n, K), within the problem's bounds, in at most `passes` more passes.

    moved: (n, K), how far each lane's targets lie above the problem's, in the units of the residual.

    Levenberg's damping uses the diagonal of the reweighted least-squares matrix: the Huber Hessian alone is nearly empty
    when few residuals lie inside delta (39 of 240 on the Chinchilla points).
    """
    low, high = problem.low[:, None], problem.high[:, None]
    held = jnp.all(problem.basis == 0, axis=0)[:, None]

    def improve(state: State) -> State:
        begun = jnp.isfinite(state.cost)
        outward = ((state.theta <= low) & (state.gradient > 0)) | (
            (state.theta >= high) & (state.gradient < 0)
        )
        still = held | outward
        step, definite = _newton_step(state, still)
        trial = jnp.clip(state.theta + step, low, high)
        cost, gradient, hessian, reweighted = evaluate(
            law, residual, problem, huber, trial, weights, moved
        )
        promised = -jnp.sum(state.gradient * step, axis=0)
        last = (
            begun & definite & (promised <= ROUNDING * state.cost) & (state.damping <= DAMPING)
        )  # too little to see in the cost
        better = (
            (definite & (cost < state.cost)) | (last & (cost <= (1 + ROUNDING) * state.cost))
        ) & ~state.done
        stride = jnp.max(jnp.abs(trial - state.theta) / (1 + jnp.abs(state.theta)), axis=0)
        damping = jnp.where(better, jnp.maximum(state.damping * 0.1, 1e-14), state.damping * 4)
        new = state._replace(
            theta=trial, cost=cost, gradient=gradient, hessian=hessian, irls_diagonal=reweighted
        )
        kept = jax.tree.map(lambda a, b: jnp.where(better, a, b), new, state)
        done = (
            state.done
            | last
            | (begun & definite & (stride < 1e-13))
            | (damping > 1e12)
            | ~jnp.isfinite(kept.cost)
        )
        return kept._replace(damping=damping, done=done, iterations=state.iterations + ~state.done)

    most = jnp.max(state.iterations) + passes
    return jax.lax.while_loop(
        lambda s: ~jnp.all(s.done) & (jnp.max(s.iterations) < most), improve, state
    )


def evaluate(
    law: ParametricLaw,
    residual: str,
    problem: Problem,
    huber: Huber,
    theta: jax.Array,
    weights: jax.Array,
    moved: jax.Array | float = 0.0,
) -> tuple:
    """Cost (K,), gradient (p, K), Hessian (p, p, K) and reweighted diagonal (p, K) with respect to theta."""
    targets, basis = problem.targets[:, None], problem.basis
    predicted, sums = expand(law, problem.offset[:, None] + basis @ theta, problem.inputs)
    if residual == "log":
        r, unit = jnp.log(predicted) - jnp.log(targets) - moved, 1 / predicted
    else:
        r, unit = predicted - targets - moved, jnp.ones_like(predicted)
    slope = weights * huber.slope(r)
    bend = weights * huber.curvature(r) - (
        slope if residual == "log" else 0.0
    )  # d2 log y = d2 y / y - (d log y)^2
    gradient, hessian, reweighted = sums(
        slope * unit, bend * unit**2, weights * huber.irls_weight(r) * unit**2
    )
    hessian = jnp.einsum("ia,ijk,jb->abk", basis, hessian, basis)
    return (
        jnp.sum(weights * huber.cost(r), axis=0),
        basis.T @ gradient,
        hessian,
        (basis**2).T @ reweighted,
    )


def _newton_step(state: State, still: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The damped step (p, K), zero where `still`, and whether the damped Hessian is positive definite."""
    count = state.theta.shape[0]
    diagonal = state.irls_diagonal + 1e-10 * jnp.mean(state.irls_diagonal, axis=0) + 1e-300
    rows = [
        [jnp.where(still[i] | still[j], 0.0, state.hessian[i, j]) for j in range(count)]
        for i in range(count)
    ]
    for i in range(count):
        rows[i][i] = jnp.where(still[i], 1.0, rows[i][i] + state.damping * diagonal[i])
    step, definite = solve_positive_definite(
        rows, [jnp.where(still[i], 0.0, -state.gradient[i]) for i in range(count)]
    )
    return jnp.where(definite, jnp.stack(step), 0.0), definite
