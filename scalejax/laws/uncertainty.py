"""How far a fit can be trusted: open intervals, profiles, identifiability, verdicts."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scalejax.laws import losses
from scalejax.laws.fit import Optimum, natural, optimum, unheld
from scalejax.laws.forms import Law
from scalejax.laws.moments import values
from scalejax.laws.newton import Problem, State

SMALL_COSINE = 1e-4  # |gradient| / (|slopes| |column|): how far from orthogonal the residuals may be at an optimum
CONDITION = 1e9  # of the scaled normal matrix; 1.1e3 on the Chinchilla points
VAGUE = 2.0  # standard error of a log size at the centre of the data: a factor 50 either way at 95%
ENDLESS = 1e4  # high end over low end of a size's interval; 5.6 for B on the Chinchilla points
DUPLICATE = 0.02  # log difference between targets at equal inputs; replicate seeds differ by about 0.003


def cosine(state: State, problem: Problem) -> np.ndarray:
    """Largest free component of the gradient of each lane, as a share (0..1) of what it could be (Cauchy-Schwarz)."""
    theta, gradient = np.asarray(state.theta), np.asarray(state.gradient)
    stuck = ((theta <= problem.low[:, None]) & (gradient > 0)) | ((theta >= problem.high[:, None]) & (gradient < 0))
    most = np.sqrt(2 * np.asarray(state.cost) * np.maximum(state.reweighted, 0)) + 1e-300
    return np.max(np.where(stuck, 0.0, np.abs(gradient) / most), axis=0)


def converged(state: State, problem: Problem, weights: np.ndarray) -> np.ndarray:
    """(K,): at a stationary point, or at residuals of rounding size."""
    return np.isfinite(state.cost) & ((cosine(state, problem) < SMALL_COSINE) | (state.cost <= 1e-22 * np.sum(weights)))


def at_bounds(law: Law, problem: Problem, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks (p, K): where a parameter can only be said to be below (above) something.

    A size at its lower bound is nil, and then its exponent can be anything.
    """
    slack = 1e-9 * (1 + np.abs(theta))
    held = np.all(problem.basis == 0, axis=0)[:, None]
    below = (theta <= problem.low[:, None] + slack) & ~held
    above = (theta >= problem.high[:, None] - slack) & ~held
    for i, k in enumerate(law.coordinates):
        for exponent, _, _ in k.units:
            if exponent and k.scale:
                j = law.names.index(exponent)
                gone = below[i] & ~held[j]
                below[j], above[j] = below[j] | gone, above[j] | gone
    return below, above


def intervals(law: Law, problem: Problem, theta: np.ndarray, level: float = 0.95) -> dict[str, tuple[float | None, float | None]]:
    """Percentile intervals of the free parameters from draws theta (p, K); an open end is None.

    Percentile, never reflected, intervals: the latter cover .89-.93 where these cover .95 (simulated at n = 240).
    """
    below, above = at_bounds(law, problem, theta)
    tail = (1 - level) / 2 * 100
    result = {}
    settled = dict(law.fixed)
    for name, draws in natural(law, problem, theta)._asdict().items():
        if name in settled:
            continue
        leader = law.names.index(dict(law.tied).get(name, name))
        low = np.percentile(np.where(below[leader], -np.inf, draws), tail, method="inverted_cdf")
        high = np.percentile(np.where(above[leader], np.inf, draws), 100 - tail, method="inverted_cdf")
        result[name] = tuple(float(end) if np.isfinite(end) else None for end in (low, high))
    return result


def profile(
    law: Law,
    inputs: Sequence[Any],
    targets: Any,
    name: str,
    at: Sequence[float],
    weights: Any = None,
    *,
    loss: str = "huber:1e-3",
) -> np.ndarray:
    """The objective with one parameter held at each of some values and the others fitted, (values,): its profile likelihood.

    A flat stretch is what the rows cannot tell apart; its lowest point is the fit. Every value is solved from the whole start
    grid: warm starts follow one valley, and a law such as the data-constrained one has several. nan where no start converged.

    inputs: one (n,) array per input of the law.  targets, weights: (n,).  loss: as for `scalejax.laws.solve`.

    Raises ValueError for a parameter that the law has not, or for a value that it cannot take.
    """
    targets, *inputs = (np.asarray(x, np.float64) for x in (targets, *inputs))
    weights = np.ones(len(targets)) if weights is None else np.asarray(weights, np.float64)
    chosen = losses.loss(loss)
    found = (optimum(law.hold(**{name: float(value)}), inputs, targets, weights, chosen) for value in at)
    return np.array(
        [one.state.cost[0] / chosen.units if converged(one.state, one.problem, one.weights)[0] else np.nan for one in found]
    )


class Slopes(NamedTuple):
    """Residuals (n,) and their derivatives (n, p) with respect to theta at an optimum."""

    residuals: np.ndarray
    jacobian: np.ndarray


@partial(jax.jit, static_argnums=(0, 1))
def _residuals(law: Law, residual: str, problem: Problem, theta: jax.Array) -> tuple[jax.Array, jax.Array]:
    def of(theta: jax.Array) -> jax.Array:
        predicted = law.predict(values(law, problem.offset + problem.basis @ theta), *problem.inputs)
        return jnp.log(predicted) - jnp.log(problem.targets) if residual == "log" else predicted - problem.targets

    return of(theta), jax.jacfwd(of)(theta)


def slopes(law: Law, at: Optimum) -> Slopes:
    with jax.enable_x64(True):
        kept = at.weights > 0
        residuals, jacobian = _residuals(unheld(law), at.loss.residual, at.problem, at.theta)
        return Slopes(np.asarray(residuals)[kept], np.asarray(jacobian)[kept])


def covariance(law: Law, at: Optimum, local: Slopes) -> tuple[np.ndarray, float]:
    """Covariance (p, p) of theta by the linearized law, zero where a parameter is held or at a bound, and the condition.

    s^2 (J^T W J)^-1 with s^2 = sum W r^2 / (n - k): degrees of freedom are n - k. The condition number is of the matrix
    scaled to a unit diagonal.
    """
    free = ~np.all(at.problem.basis == 0, axis=0) & (at.theta > at.problem.low) & (at.theta < at.problem.high)
    weights = at.weights[at.weights > 0]
    jacobian = local.jacobian[:, free] * np.sqrt(weights)[:, None]
    size = np.linalg.norm(jacobian, axis=0)
    full = np.zeros((len(at.theta), len(at.theta)))
    if not free.any():
        return full, 1.0
    if not np.all(size > 0):
        return full, float("inf")
    _, spread, right = np.linalg.svd(jacobian / size, full_matrices=False)
    condition = float((spread[0] / spread[-1]) ** 2) if spread[-1] > 0 else float("inf")
    scaled = right.T @ np.diag(np.maximum(spread, 1e-12) ** -2.0) @ right
    spare = max(len(weights) - int(free.sum()), 1)
    variance = float(np.sum(weights * local.residuals**2) / spare)
    full[np.ix_(free, free)] = variance * scaled / np.outer(size, size)
    return full, condition


def design_reasons(law: Law, inputs: list[np.ndarray]) -> list[str]:
    """What the table's inputs alone make impossible to tell apart."""
    held = dict(law.fixed)
    exponents: dict[int, list[str]] = {}
    for name, k in zip(law.names, law.coordinates, strict=True):
        for exponent, axis, _ in k.units:
            if exponent and not (name in held and exponent in held):
                exponents.setdefault(axis, []).append(f"{name} and {exponent}")
    reasons = []
    columns = {}
    for column, axis, x in zip(law.inputs, law.axes, inputs, strict=True):
        columns.setdefault(axis, (column, x if law.additive else np.log(x)))
    for axis, (column, x) in columns.items():
        if axis in exponents and np.ptp(x) < 1e-9 * (1 + np.abs(x[0])):
            reasons.append(f"{column} has a single value: {', '.join(exponents[axis])} cannot be identified")
    both = {name for names in exponents.values() for name in names}
    if len(columns) == 2 and len(both) == 2 and not reasons and not law.tied:
        (first, x), (second, y) = columns.values()
        if np.ptp(y - x) < 1e-6 * (1 + np.ptp(x)):
            pair = sorted({name.split(" and ")[1] for name in both})
            reasons.append(f"{second}/{first} is constant: {' and '.join(pair)} cannot be told apart")
    return reasons


def duplicate_reasons(inputs: list[np.ndarray], targets: np.ndarray) -> list[str]:
    """Rows with equal inputs whose targets are far apart."""
    order = np.lexsort(inputs)
    same = np.all([np.diff(x[order]) == 0 for x in inputs], axis=0)
    apart = np.abs(np.diff(np.log(targets[order]))) > DUPLICATE
    count = int(np.sum(same & apart))
    return [f"duplicate inputs with targets more than {DUPLICATE:.0%} apart: {count} pairs of rows"] if count else []


class Verdict(NamedTuple):
    """What can be said of a fit."""

    word: str
    """ok, at-boundary, unidentified (wins over at-boundary) or not-converged."""
    reasons: list[str]
    condition: float
    """Condition number of the scaled normal matrix; infinite where a parameter has no effect, nan where nothing converged."""
    at_boundary: list[str]
    """Parameters at a bound, or without effect because their term is nil."""


def verdict(law: Law, at: Optimum, inputs: list[np.ndarray], open_ends: dict[str, Any]) -> Verdict:
    """Judges a fit by its convergence, the design of its table, its linearized errors and its intervals."""
    below, above = at_bounds(law, at.problem, at.theta[:, None])
    edges = [name for i, name in enumerate(law.names) if below[i, 0] or above[i, 0]]
    if not converged(at.state, at.problem, at.weights)[0]:
        return Verdict("not-converged", ["the solver did not reach a stationary point from any start"], float("nan"), edges)
    reasons = design_reasons(law, inputs)
    errors, condition = covariance(law, at, slopes(law, at))
    if not reasons and condition > CONDITION:
        reasons.append(f"the parameters cannot be told apart on these rows (condition number {condition:.1e})")
    sizes = {name for name, k in zip(law.names, law.coordinates, strict=True) if k.log}
    for name, (low, high) in open_ends.items():
        if low is None or high is None:
            end = "at both ends" if low is high else "below" if low is None else "above"
            reasons.append(f"{name} is not identified: its interval is open {end}")
        elif name in sizes and high > ENDLESS * low:
            reasons.append(f"{name} is not identified: its interval spans a factor {high / low:.0e}")
    if not reasons:
        for i, (name, k) in enumerate(zip(law.names, law.coordinates, strict=True)):
            if k.log and np.sqrt(errors[i, i]) > VAGUE:
                factor = np.exp(min(2 * np.sqrt(errors[i, i]), 50))
                reasons.append(f"{name} is not identified: its size is known to a factor {factor:.0e} only")
    edge_reasons = [f"{', '.join(edges)} at the edge of what is allowed"] if edges else []
    if reasons:
        return Verdict("unidentified", reasons + edge_reasons, condition, edges)
    return Verdict("at-boundary" if edges else "ok", edge_reasons, condition, edges)
