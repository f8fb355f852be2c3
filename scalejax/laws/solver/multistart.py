"""The solver: from a law and arrays to the best parameters, by many starts, in centred units, in float64."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.derivatives import values
from scalejax.laws.solver.losses import Loss
from scalejax.laws.solver.newton import ITERATIONS, Problem, State, begin, newton, solve_spd

LANES = 32  # fits solved together; a 32 x 256 array of float64 stays in the cache
ROUND = 8  # passes before lanes that are done make room
SMALLEST = 32  # rows; tables are padded to 32, 64, 128, ..
THINNED = 4096  # rows above which the start grid is solved on a sample, and fits go one by one
SAME = 1e-6  # starts whose cost is within this share of the best reached the optimum


class Optimum(NamedTuple):
    """The best of many starts on one table."""

    problem: Problem
    theta: np.ndarray
    """(p,) coordinates of the free parameters, centred."""
    state: State
    """Derivatives at the optimum; lane 0."""
    share: float
    """Share of starts that reached it."""
    loss: Loss
    weights: np.ndarray
    """(n,) padded."""


def optimum(
    law: ParametricLaw,
    inputs: list[np.ndarray],
    targets: np.ndarray,
    weights: np.ndarray,
    loss: Loss,
) -> Optimum:
    """Fits a law to a table of float64 columns, each (rows,)."""
    with jax.enable_x64(True):
        rows = len(targets)
        if rows > THINNED:  # the grid of starts on a sample, the best start on everything
            few = np.random.default_rng(0).choice(rows, THINNED // 2, replace=False)
            sample = optimum(law, [x[few] for x in inputs], targets[few], weights[few], loss)
            starts, share = natural(law, sample.problem, sample.theta[:, None]), sample.share
        else:
            starts, share = None, None
        *columns, targets, weights = pad([*inputs, targets, weights])
        problem, theta = prepare(
            unheld(law),
            held_names(law),
            tuple(columns),
            targets,
            weights,
            held_values(law),
            loss.residual,
        )
        if starts is not None:
            theta = encode(law, problem, starts)
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


def refits(
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
    width = LANES if weights.shape[1] <= THINNED else 1
    host, problem = jax.tree.map(np.asarray, problem), jax.device_put(problem)
    state = None
    for huber in loss.numbers:
        state = jax.tree.map(np.array, begin(host, theta))
        pending = np.arange(theta.shape[1])
        while len(pending):
            for at in range(0, len(pending), width):
                lanes = pending[at : at + width]
                full = np.resize(lanes, width)
                before = jax.tree.map(lambda a, full=full: a[..., full], state)
                after = _newton(
                    unheld(law),
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


def pad(columns: list[np.ndarray]) -> list[np.ndarray]:
    """Columns padded to 32, 64, 128, .. rows: the first row again, and weight 0 (weights come last)."""
    rows = len(columns[0])
    size = SMALLEST
    while size < rows:
        size *= 2
    padded = [np.concatenate([c, np.full(size - rows, c[0])]).astype(np.float64) for c in columns]
    padded[-1][rows:] = 0
    return padded


def unheld(law: ParametricLaw) -> ParametricLaw:
    """The law as the compiled programs know it: what is held or tied is data (offset, basis), not a new program."""
    return dataclasses.replace(law, fixed=(), tied=())


def held_names(law: ParametricLaw) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    return tuple(name for name, _ in law.fixed), law.tied


def held_values(law: ParametricLaw) -> np.ndarray:
    return np.array([value for _, value in law.fixed], np.float64)


@partial(jax.jit, static_argnums=(0, 1, 6))
def prepare(
    law: ParametricLaw,
    held: Any,
    inputs: tuple,
    targets: jax.Array,
    weights: jax.Array,
    fixed: jax.Array,
    residual: str,
) -> tuple:
    """Centres the inputs, writes held and tied parameters as an affine map, and solves the start grid's linear part.

    Returns the Problem and the starts, theta (p, S).
    """
    counted = weights > 0
    mean = lambda x: jnp.sum(jnp.where(counted, x, 0.0)) / jnp.sum(counted)
    first = [law.axes.index(axis) for axis in range(max(law.axes) + 1)]
    centre = jnp.stack([mean(inputs[i] if law.additive else jnp.log(inputs[i])) for i in first])
    shift = [centre[axis] for axis in law.axes]
    centred = tuple(
        x - m if law.additive else jnp.exp(jnp.log(x) - m)
        for x, m in zip(inputs, shift, strict=True)
    )
    typical = mean(jnp.abs(targets))
    low, high = (
        jnp.stack([getattr(k, end) + jnp.log(typical) * k.scale for k in law.coordinates])
        for end in ("low", "high")
    )
    offset, basis = _constraints(law, held, fixed, centre)
    problem = Problem(centred, targets, offset, basis, low, high, centre)
    return problem, _starts(law, held, problem, weights, typical, residual)


def _constraints(
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


def _starts(
    law: ParametricLaw,
    held: Any,
    problem: Problem,
    weights: jax.Array,
    typical: jax.Array,
    residual: str,
) -> jax.Array:
    """theta (p, S): the grid over exponents, with the linear parameters solved by weighted least squares."""
    fixed_names, tied = held
    settled = {*fixed_names, *(name for name, _ in tied)}
    axes = [np.array(points if name not in settled else points[:1]) for name, points in law.grid]
    grid = dict(
        zip(
            [name for name, _ in law.grid],
            [x.ravel() for x in np.meshgrid(*axes, indexing="ij")],
            strict=True,
        )
    )
    count = len(next(iter(grid.values())))
    form = law.form(*(jnp.asarray(grid.get(name, np.ones(count))) for name in law.names))
    if law.guess is not None:
        return _inside(law, problem, _coordinates(law, law.guess(form, typical)))
    coordinates = _held(problem, _coordinates(law, form))
    form = values(law, coordinates)
    linear: Any = law.linear
    columns = linear.columns(form, *(x[:, None] for x in problem.inputs))
    unit = (
        1 / problem.targets[:, None]
        if residual == "log"
        else jnp.ones_like(problem.targets)[:, None] / typical
    )
    columns = {
        name: jnp.broadcast_to(c, (len(weights), count)) * unit
        for name, c in zip(linear.names, columns, strict=True)
    }
    rest = problem.targets[:, None] * unit
    for name in set(linear.names) & set(fixed_names):
        rest = rest - getattr(form, name) * columns.pop(name)
    if columns:
        sums = lambda a, b: jnp.sum(weights[:, None] * a * b, axis=0)
        rows = [[sums(a, b) for b in columns.values()] for a in columns.values()]
        for i, row in enumerate(rows):
            row[i] = row[i] * (1 + 1e-9)
        solved, _ = solve_spd(rows, [sums(a, rest) for a in columns.values()])
        least = 1e-3 * typical  # a term that least squares would make negative starts small
        form = form._replace(
            **{
                name: jnp.maximum(jnp.nan_to_num(c), least)
                for name, c in zip(columns, solved, strict=True)
            }
        )
    return _inside(law, problem, _coordinates(law, form))


def _coordinates(law: ParametricLaw, form: Any) -> jax.Array:
    return jnp.stack(
        [jnp.log(value) if k.log else value for value, k in zip(form, law.coordinates, strict=True)]
    )


def _held(problem: Problem, theta: jax.Array) -> jax.Array:
    return problem.offset[:, None] + problem.basis @ theta


def _inside(law: ParametricLaw, problem: Problem, theta: jax.Array) -> jax.Array:
    return jnp.clip(theta, problem.low[:, None], problem.high[:, None])


def natural(law: ParametricLaw, problem: Problem, theta: Any) -> Any:
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


def encode(law: ParametricLaw, problem: Problem, form: Any) -> Any:
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
