"""The solver: from a law and arrays to the best parameters, by many starts, in centred units, in float64."""

from typing import NamedTuple

import jax
import numpy as np

from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.losses import Loss
from scalejax.laws.solver.newton import ITERATIONS, State, begin, newton
from scalejax.laws.solver.problem import (
    Problem,
    held_names,
    held_values,
    parameters_in_table_units,
    theta_from_parameters,
    unconstrained,
)
from scalejax.laws.solver.starts import prepare

LANES = 32  # fits solved together; a 32 x 256 array of float64 stays in the cache
ROUND = 8  # passes before lanes that are done make room
SMALLEST = 32  # rows; tables are padded to 32, 64, 128, ..
LARGE_TABLE_ROWS = (
    4096  # rows above which the start grid is solved on a sample, and fits go one by one
)
SAME = 1e-6  # starts whose cost is within this share of the best reached the optimum


class Optimum(NamedTuple):
    """The best of many starts on one table."""

    problem: Problem
    theta: np.ndarray
    """(p,) coordinates of the free parameters, centred."""
    state: State
    """Derivatives at the optimum; lane 0."""
    starts_at_optimum: float
    """Share of starts that reached it."""
    loss: Loss
    weights: np.ndarray
    """(n,) padded."""


def find_optimum(
    law: ParametricLaw,
    inputs: list[np.ndarray],
    targets: np.ndarray,
    weights: np.ndarray,
    loss: Loss,
) -> Optimum:
    """Fits a law to a table of float64 columns, each (rows,)."""
    with jax.enable_x64(True):
        rows = len(targets)
        if rows > LARGE_TABLE_ROWS:  # the grid of starts on a sample, the best start on everything
            few = np.random.default_rng(0).choice(rows, LARGE_TABLE_ROWS // 2, replace=False)
            sample = find_optimum(law, [x[few] for x in inputs], targets[few], weights[few], loss)
            starts, share = (
                parameters_in_table_units(law, sample.problem, sample.theta[:, None]),
                sample.starts_at_optimum,
            )
        else:
            starts, share = None, None
        *columns, targets, weights = pad_rows([*inputs, targets, weights])
        problem, theta = prepare(
            unconstrained(law),
            held_names(law),
            tuple(columns),
            targets,
            weights,
            held_values(law),
            loss.residual,
        )
        if starts is not None:
            theta = theta_from_parameters(law, problem, starts)
        theta = np.asarray(theta)
        lanes = (theta.shape[1], len(weights))
        final = _solve(
            law, loss, problem, theta, np.broadcast_to(weights, lanes), np.broadcast_to(0.0, lanes)
        )
        costs = np.where(np.isfinite(final.cost), final.cost, np.inf)
        best = int(np.argmin(costs))
        floor = 1e-24 * weights.sum()  # noise-free: every start ends at rounding errors of its own
        share = (
            float(np.mean(costs <= costs[best] * (1 + SAME) + floor)) if share is None else share
        )
        state = jax.tree.map(lambda a: a[..., best : best + 1], final)
        return Optimum(
            jax.tree.map(np.asarray, problem), state.theta[:, 0], state, share, loss, weights
        )


def refit(
    law: ParametricLaw, at: Optimum, weights: np.ndarray, targets: np.ndarray | None = None
) -> State:
    """Solves again from the optimum under other row weights, or to other targets, in fixed chunks: bootstraps, splits.

    weights, targets: (draws, rows); every draw has the targets of the table where none are given. Returns the states of all
    draws, lanes last.
    """
    padded, moved = (np.zeros((len(weights), len(at.weights))) for _ in range(2))
    padded[:, : weights.shape[1]] = weights
    if targets is not None:
        scale = np.log if at.loss.residual == "log" else np.asarray
        moved[:, : targets.shape[1]] = scale(targets) - scale(
            at.problem.targets[: targets.shape[1]]
        )
    with jax.enable_x64(True):
        return _solve(
            law,
            at.loss,
            at.problem,
            np.repeat(at.theta[:, None], len(weights), axis=1),
            padded,
            moved,
        )


def _solve(
    law: ParametricLaw,
    loss: Loss,
    problem: Problem,
    theta: np.ndarray,
    weights: np.ndarray,
    moved: np.ndarray,
) -> State:
    """Any number of fits, from theta (p, K) with weights and moved targets (K, n), through the stages of the loss (one for all
    but lad).

    In rounds of a few passes: lanes that are done leave, and the others are packed together again.
    """
    width = LANES if weights.shape[1] <= LARGE_TABLE_ROWS else 1
    host, problem = jax.tree.map(np.asarray, problem), jax.device_put(problem)
    state = None
    for huber in loss.stages:
        state = jax.tree.map(np.array, begin(host, theta))
        pending = np.arange(theta.shape[1])
        while len(pending):
            for at in range(0, len(pending), width):
                lanes = pending[at : at + width]
                full = np.resize(lanes, width)
                before = jax.tree.map(lambda a, full=full: a[..., full], state)
                after = _newton(
                    unconstrained(law),
                    loss.residual,
                    problem,
                    huber,
                    before,
                    weights[full].T,
                    moved[full].T,
                    ROUND,
                )
                for new, old in zip(after, state, strict=True):
                    old[..., lanes] = np.asarray(new)[..., : len(lanes)]
            pending = pending[~state.done[pending] & (state.iterations[pending] < ITERATIONS)]
        theta = state.theta
    assert state is not None
    return state


_newton = jax.jit(newton, static_argnums=(0, 1))


def pad_rows(columns: list[np.ndarray]) -> list[np.ndarray]:
    """Columns padded to 32, 64, 128, .. rows: the first row again, and weight 0 (weights come last)."""
    rows = len(columns[0])
    size = SMALLEST
    while size < rows:
        size *= 2
    padded = [np.concatenate([c, np.full(size - rows, c[0])]).astype(np.float64) for c in columns]
    padded[-1][rows:] = 0
    return padded
