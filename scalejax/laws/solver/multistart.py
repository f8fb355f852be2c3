"""Fits from many starts, and refits from the optimum: bootstraps and cross-validation.

Newton's method runs in lanes, LANES fits at a time, in rounds of a few iterations.
After each round the fits that are done leave, and the others are packed together again:
a few slow bootstrap fits would otherwise hold up all the others.

Shapes: n rows (padded to a power of two), p parameters, K fits.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Real

from scalejax.laws.law import AnyArray, ParametricLaw
from scalejax.laws.solver.losses import Huber, Loss
from scalejax.laws.solver.newton import MAX_ITERATIONS, State, initial_state, minimize
from scalejax.laws.solver.problem import (
    Problem,
    parameters_in_table_units,
    theta_from_parameters,
    unconstrained,
)
from scalejax.laws.solver.starts import prepare

# Fits that are solved together. A 32 x 256 array of float64 stays in a core's cache.
LANES = 32

# Iterations per round.
ROUND_ITERATIONS = 8

# Tables are padded to 32, 64, 128, ... rows, so that a few programs serve all tables.
MIN_PADDED_ROWS = 32

# Above this many rows the start grid is solved on a sample of half as many rows. Fits
# then go one by one, because a single lane fills the cache.
LARGE_TABLE_ROWS = 4096

# A start has reached the optimum if its cost is within this fraction of the lowest one.
OPTIMUM_TOLERANCE = 1e-6

# On data without noise every start ends at rounding errors of its own. A cost below
# this, per unit of weight, counts as zero.
ZERO_COST = 1e-24


class Optimum(NamedTuple):
    """The best of many starts on one table."""

    problem: Problem
    theta: Float[np.ndarray, " p"]
    state: State
    """The derivatives at theta, in one lane."""
    starts_at_optimum: float
    """Fraction of the starts that reached it."""
    loss: Loss
    weights: Float[np.ndarray, " n"]
    """Row weights, zero for the rows of the padding."""


def find_optimum(
    law: ParametricLaw,
    inputs: list[np.ndarray],
    targets: np.ndarray,
    weights: np.ndarray,
    loss: Loss,
) -> Optimum:
    """Fit a law to a table.

    inputs: one (rows,) array per input of the law, in table units. targets, weights:
    (rows,). The arrays are float64; so are all results.
    """
    with jax.enable_x64(True):
        rows = len(targets)
        sample = None
        if rows > LARGE_TABLE_ROWS:
            # The whole grid runs on a sample only, and its best start on all rows.
            few = np.random.default_rng(0).choice(rows, LARGE_TABLE_ROWS // 2, replace=False)
            sample = find_optimum(law, [x[few] for x in inputs], targets[few], weights[few], loss)
        *columns, targets, weights = pad_rows([*inputs, targets, weights])
        problem, starts = prepare(law, tuple(columns), targets, weights, loss.residual)
        if sample is not None:
            # The sample has other means, so other centred units.
            start = parameters_in_table_units(law, sample.problem, sample.theta[:, None])
            starts = theta_from_parameters(law, problem, start)
        starts = np.asarray(starts)
        shape = (starts.shape[1], len(weights))
        final = _minimize(
            law,
            loss,
            problem,
            starts,
            weights=np.broadcast_to(weights, shape),
            target_shifts=np.broadcast_to(0.0, shape),
        )
        costs = np.where(np.isfinite(final.cost), final.cost, np.inf)
        best = int(np.argmin(costs))
        limit = costs[best] * (1 + OPTIMUM_TOLERANCE) + ZERO_COST * weights.sum()
        state = jax.tree.map(lambda values: values[..., best : best + 1], final)
        return Optimum(
            problem=jax.tree.map(np.asarray, problem),
            theta=state.theta[:, 0],
            state=state,
            starts_at_optimum=(
                float(np.mean(costs <= limit)) if sample is None else sample.starts_at_optimum
            ),
            loss=loss,
            weights=weights,
        )


def refit(
    law: ParametricLaw,
    optimum: Optimum,
    weights: Real[np.ndarray, "K rows"],
    targets: Float[np.ndarray, "K rows"] | None = None,
) -> State:
    """Fit a law again, K times, from an optimum on the same rows.

    weights: row weights of each fit. targets: its targets, in table units; by default
    those of the table. A bootstrap of pairs changes the weights, one of residuals the
    targets.

    Returns the final states; lane k belongs to fit k.
    """
    shape = (len(weights), len(optimum.weights))
    rows = weights.shape[1]
    padded, shifts = np.zeros(shape), np.zeros(shape)
    padded[:, :rows] = weights
    if targets is not None:
        scale = np.log if optimum.loss.residual == "log" else np.asarray
        shifts[:, :rows] = scale(targets) - scale(optimum.problem.targets[:rows])
    with jax.enable_x64(True):
        starts = np.repeat(optimum.theta[:, None], len(weights), axis=1)
        return _minimize(law, optimum.loss, optimum.problem, starts, padded, shifts)


def pad_rows(columns: list[np.ndarray]) -> list[Float[np.ndarray, " n"]]:
    """Pad columns to 32, 64, 128, ... rows with copies of their first row.

    The last column must be the weights; its padding is zero.
    """
    rows = len(columns[0])
    size = padded_size(rows)
    padded = [np.concatenate([c, np.full(size - rows, c[0])]).astype(np.float64) for c in columns]
    padded[-1][rows:] = 0
    return padded


def padded_size(rows: int) -> int:
    """Return how many rows a table of `rows` rows is padded to.

    >>> [padded_size(rows) for rows in (5, 32, 33, 240)]
    [32, 32, 64, 256]
    """
    size = MIN_PADDED_ROWS
    while size < rows:
        size *= 2
    return size


def _minimize(
    law: ParametricLaw,
    loss: Loss,
    problem: Problem,
    theta: Float[AnyArray, "p K"],
    weights: Float[np.ndarray, "K n"],
    target_shifts: Float[np.ndarray, "K n"],
) -> State:
    """Solve any number of fits, from theta, through the stages of the loss."""
    for huber in loss.stages[:-1]:
        theta = _minimize_stage(law, loss, huber, problem, theta, weights, target_shifts).theta
    return _minimize_stage(law, loss, loss.stages[-1], problem, theta, weights, target_shifts)


def _minimize_stage(
    law: ParametricLaw,
    loss: Loss,
    huber: Huber,
    problem: Problem,
    theta: Float[AnyArray, "p K"],
    weights: Float[np.ndarray, "K n"],
    target_shifts: Float[np.ndarray, "K n"],
) -> State:
    """Solve any number of fits under one Huber loss, round by round."""
    law = unconstrained(law)
    width = LANES if weights.shape[1] <= LARGE_TABLE_ROWS else 1
    on_host: Problem = jax.tree.map(np.asarray, problem)
    on_device: Problem = jax.device_put(problem)
    state: State = jax.tree.map(np.array, initial_state(on_host, theta))
    pending = np.arange(theta.shape[1])
    while len(pending):
        for first in range(0, len(pending), width):
            fits = pending[first : first + width]
            # The last chunk repeats fits until it is full, so that every call has one
            # shape.
            lanes = np.resize(fits, width)
            before = jax.tree.map(lambda values, lanes=lanes: values[..., lanes], state)
            after = _jitted_minimize(
                law,
                loss.residual,
                on_device,
                huber,
                before,
                weights[lanes].T,
                target_shifts[lanes].T,
                ROUND_ITERATIONS,
            )
            for new, old in zip(after, state, strict=True):
                old[..., fits] = np.asarray(new)[..., : len(fits)]
        unfinished = ~state.done[pending] & (state.iterations[pending] < MAX_ITERATIONS)
        pending = pending[unfinished]
    return state


_jitted_minimize = jax.jit(minimize, static_argnums=(0, 1))
