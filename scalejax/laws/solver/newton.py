"""Damped Newton's method on the exact Hessian, for many fits at once.

The method is Levenberg's, with bounds handled by an active set (Bertsekas 1982): a
parameter that is at a bound, with a gradient that would push it out, does not move in
this step.

Shapes: n rows of the table, p parameters, K lanes. A lane is one fit: another start, or
another weighting of the rows. The lanes are the last axis everywhere, so that sums over
rows and the factorization of the p x p Hessians run in vector registers.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from scalejax.laws.law import AnyArray, ParametricLaw
from scalejax.laws.solver.cholesky import solve_positive_definite
from scalejax.laws.solver.derivatives import RowWeights, expand
from scalejax.laws.solver.losses import Huber, ResidualKind, residuals
from scalejax.laws.solver.problem import Problem, coordinates_at

# With few rows, kinks of the Huber loss shorten the steps along a ridge: of 1,000
# bootstrap fits to 20 rows, 137 needed more than 300 iterations.
MAX_ITERATIONS = 1000

# The damping of the first step, relative to the curvature. A step counts as a full
# Newton step if it is damped no more than this.
INITIAL_DAMPING = 1e-2
DAMPING_DECREASE = 0.1
DAMPING_INCREASE = 4
MIN_DAMPING = 1e-14
# Steps this short that still raise the cost mean that no direction lowers it.
MAX_DAMPING = 1e12

# Relative rounding error of a cost, which is a sum over rows.
COST_ROUNDING = 1e-13

# A step that changes no parameter by more than this, relatively, is rounding.
MIN_RELATIVE_STEP = 1e-13


class State(NamedTuple):
    """The progress of each lane: theta, the cost and its derivatives, the damping."""

    theta: Float[AnyArray, "p K"]
    cost: Float[AnyArray, " K"]
    """Infinite before the first evaluation."""
    gradient: Float[AnyArray, "p K"]
    hessian: Float[AnyArray, "p p K"]
    irls_diagonal: Float[AnyArray, "p K"]
    """Diagonal of the matrix of iteratively reweighted least squares (IRLS)."""
    damping: Float[AnyArray, " K"]
    done: Bool[AnyArray, " K"]
    iterations: Int[AnyArray, " K"]


class Evaluation(NamedTuple):
    """A cost and its derivatives with respect to theta."""

    cost: Float[Array, " K"]
    gradient: Float[Array, "p K"]
    hessian: Float[Array, "p p K"]
    irls_diagonal: Float[Array, "p K"]


def initial_state(problem: Problem, theta: Float[AnyArray, "p K"]) -> State:
    """Return a state at theta, within the bounds, whose cost is not evaluated yet.

    The first iteration of `minimize` evaluates it: its step is zero, because the
    gradient is. So the law is compiled once, inside the loop, and not a second time in
    front of it. The arrays are numpy's: jax would compile a program for each of these
    operations.
    """
    count, lanes = theta.shape
    start = theta.clip(problem.low[:, None], problem.high[:, None])
    zeros = np.zeros((count, lanes))
    return State(
        theta=start,
        cost=np.full(lanes, np.inf),
        gradient=zeros,
        hessian=np.repeat(np.eye(count)[..., None], lanes, axis=2),
        irls_diagonal=zeros,
        # The evaluation counts as a success and decreases the damping once.
        damping=np.full(lanes, 10 * INITIAL_DAMPING),
        done=np.zeros(lanes, bool),
        iterations=np.zeros(lanes, np.int32),
    )


def minimize(
    law: ParametricLaw,
    residual: ResidualKind,
    problem: Problem,
    huber: Huber,
    state: State,
    weights: Float[Array, "n K"],
    target_shifts: Float[Array, "n K"] | float = 0.0,
    max_iterations: Int[Array, ""] | int = MAX_ITERATIONS,
) -> State:
    """Minimize sum_i weight_i Huber(residual_i) in each lane, within bounds.

    law: without constraints, which `problem` expresses. target_shifts: how far a lane's
    targets lie above those of the problem, in units of the residual. max_iterations:
    how many more iterations to take at most.

    Returns the state in which every lane is done or the iterations are spent.
    """

    def evaluate_at(theta: Array) -> Evaluation:
        return evaluate(law, residual, problem, huber, theta, weights, target_shifts)

    def iterate(state: State) -> State:
        return _iterate(problem, evaluate_at, state)

    def unfinished(state: State) -> Array:
        return ~jnp.all(state.done) & (jnp.max(state.iterations) < limit)

    limit = jnp.max(state.iterations) + max_iterations
    return jax.lax.while_loop(unfinished, iterate, state)


def evaluate(
    law: ParametricLaw,
    residual: ResidualKind,
    problem: Problem,
    huber: Huber,
    theta: Float[Array, "p K"],
    weights: Float[Array, "n K"],
    target_shifts: Float[Array, "n K"] | float = 0.0,
) -> Evaluation:
    """Evaluate each lane's cost and its derivatives with respect to theta."""
    basis, targets = problem.basis, problem.targets[:, None]
    predicted, sums = expand(law, coordinates_at(problem, theta), problem.inputs)
    r = residuals(residual, predicted, targets) - target_shifts
    slope = weights * huber.slope(r)
    curvature = weights * huber.curvature(r)
    if residual == "log":
        # With r = log y - log t: dr = dy / y and d2r = d2y / y - (dy / y)^2. The first
        # is the factor `per_prediction`, the second takes the slope off the curvature.
        per_prediction = 1 / predicted
        curvature = curvature - slope
    else:
        per_prediction = jnp.ones_like(predicted)
    row_weights = RowWeights(
        slope=slope * per_prediction,
        curvature=curvature * per_prediction**2,
        irls=weights * huber.irls_weight(r) * per_prediction**2,
    )
    gradient, hessian, irls_diagonal = sums(row_weights)
    # From coordinates to theta, by the chain rule of the affine map between them.
    return Evaluation(
        cost=jnp.sum(weights * huber.cost(r), axis=0),
        gradient=basis.T @ gradient,
        hessian=jnp.einsum("ia,ijk,jb->abk", basis, hessian, basis),
        irls_diagonal=(basis**2).T @ irls_diagonal,
    )


def _iterate(problem: Problem, evaluate_at: Callable[[Array], Evaluation], state: State) -> State:
    """Try a damped Newton step in each lane, and keep it if it lowers the cost."""
    low, high = problem.low[:, None], problem.high[:, None]

    # The active set: parameters that are held, and those that the step would push out.
    outward = ((state.theta <= low) & (state.gradient > 0)) | (
        (state.theta >= high) & (state.gradient < 0)
    )
    active = problem.held[:, None] | outward
    step, definite = _damped_step(state, active)
    trial = jnp.clip(state.theta + step, low, high)
    at_trial = evaluate_at(trial)

    # The decrease that the gradient predicts can be lost in the rounding of the cost.
    # If the damping is small as well, this is a full Newton step, and nothing is left
    # to gain: the lane has converged. A heavily damped step predicts a small decrease
    # anywhere.
    evaluated = jnp.isfinite(state.cost)
    predicted_decrease = -jnp.sum(state.gradient * step, axis=0)
    converged = (
        evaluated
        & definite
        & (predicted_decrease <= COST_ROUNDING * state.cost)
        & (state.damping <= INITIAL_DAMPING)
    )

    # A step is kept if it lowers the cost. The last step is also kept if the cost stays
    # the same to rounding: it still brings theta closer to the optimum.
    lowers_cost = definite & (at_trial.cost < state.cost)
    keeps_cost = converged & (at_trial.cost <= (1 + COST_ROUNDING) * state.cost)
    accepted = (lowers_cost | keeps_cost) & ~state.done
    decreased = jnp.maximum(state.damping * DAMPING_DECREASE, MIN_DAMPING)
    damping = jnp.where(accepted, decreased, state.damping * DAMPING_INCREASE)
    moved = state._replace(
        theta=trial,
        cost=at_trial.cost,
        gradient=at_trial.gradient,
        hessian=at_trial.hessian,
        irls_diagonal=at_trial.irls_diagonal,
    )
    after: State = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), moved, state)

    # A lane is also done when its step is rounding, when no step is short enough to
    # lower the cost, and when the law cannot be evaluated where it starts.
    relative_step = jnp.max(jnp.abs(trial - state.theta) / (1 + jnp.abs(state.theta)), axis=0)
    stalled = evaluated & definite & (relative_step < MIN_RELATIVE_STEP)
    done = state.done | converged | stalled | (damping > MAX_DAMPING) | ~jnp.isfinite(after.cost)
    return after._replace(damping=damping, done=done, iterations=state.iterations + ~state.done)


def _damped_step(
    state: State, active: Bool[AnyArray, "p K"]
) -> tuple[Float[Array, "p K"], Bool[Array, " K"]]:
    """Return the step -(H + damping D)^-1 gradient, zero for active parameters.

    The second result tells in which lanes the damped Hessian is positive definite; the
    step of the others is zero.
    """
    count = state.theta.shape[0]
    # Levenberg's damping scales with the IRLS diagonal, not with the Hessian's: a
    # robust loss leaves the Hessian nearly empty when few residuals lie inside delta
    # (39 of 240 on the Chinchilla data). The small terms keep the diagonal positive
    # where a parameter has no effect.
    scale = state.irls_diagonal + 1e-10 * jnp.mean(state.irls_diagonal, axis=0) + 1e-300
    # Active parameters get a row and a column of the identity, so that the system keeps
    # its size in every lane.
    matrix = [
        [jnp.where(active[i] | active[j], 0.0, state.hessian[i, j]) for j in range(count)]
        for i in range(count)
    ]
    for i in range(count):
        matrix[i][i] = jnp.where(active[i], 1.0, matrix[i][i] + state.damping * scale[i])
    downhill = [jnp.where(active[i], 0.0, -state.gradient[i]) for i in range(count)]
    step, definite = solve_positive_definite(matrix, downhill)
    return jnp.where(definite, jnp.stack(step), 0.0), definite
