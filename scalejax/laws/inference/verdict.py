"""How far a fit can be trusted: open intervals, profiles, identifiability, verdicts."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scalejax.laws.law import OFFSET, ParametricLaw
from scalejax.laws.solver import losses
from scalejax.laws.solver.derivatives import values
from scalejax.laws.solver.multistart import Optimum, natural, optimum, unheld
from scalejax.laws.solver.newton import Problem, State

SMALL_COSINE = 1e-4  # |gradient| / (|slopes| |column|): how far from orthogonal the residuals may be at an optimum
ONE = 1e-9  # spread of the logarithm of an input, below which it has one value
EXACT = 1e-9  # root mean square of residuals below which a law is exact; losses are known to 1e-3
CONDITION = 1e9  # of the scaled normal matrix; 1.1e3 on the Chinchilla points
SHARE = 0.1  # of a direction without effect, from which on a parameter takes part in it
VAGUE = 2.0  # standard error of a log size at the centre of the data: a factor 50 either way at 95%
ENDLESS = 1e4  # high end over low end of a size's interval; 5.6 for B on the Chinchilla points
DUPLICATE = (
    0.02  # log difference between targets at equal inputs; replicate seeds differ by about 0.003
)


def cosine(state: State, problem: Problem) -> np.ndarray:
    """Largest free component of the gradient of each lane, as a share (0..1) of what it could be (Cauchy-Schwarz)."""
    theta, gradient = np.asarray(state.theta), np.asarray(state.gradient)
    stuck = ((theta <= problem.low[:, None]) & (gradient > 0)) | (
        (theta >= problem.high[:, None]) & (gradient < 0)
    )
    most = np.sqrt(2 * np.asarray(state.cost) * np.maximum(state.reweighted, 0)) + 1e-300
    return np.max(np.where(stuck, 0.0, np.abs(gradient) / most), axis=0)


def converged(state: State, problem: Problem, weights: np.ndarray) -> np.ndarray:
    """(K,): at a stationary point, or at residuals that are exact (along a ridge, rounding hides the stationary point)."""
    return np.isfinite(state.cost) & (
        (cosine(state, problem) < SMALL_COSINE) | (state.cost <= EXACT**2 / 2 * np.sum(weights))
    )


def at_bounds(
    law: ParametricLaw, problem: Problem, theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Masks (p, K): where a parameter can only be said to be below (above) something.

    A size at its lower bound is nil, and then its exponent can be anything; a term whose exponent is nil is a constant, and then
    its size can be anything that the other constants make up for.
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
                constant = below[j] & ~held[i] & (law.coordinates[j].low == 0)
                below[j], above[j] = below[j] | gone, above[j] | gone
                below[i], above[i] = below[i] | constant, above[i] | constant
    return below, above


def intervals(
    law: ParametricLaw, problem: Problem, theta: np.ndarray, level: float = 0.95
) -> dict[str, tuple[float | None, float | None]]:
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
        high = np.percentile(
            np.where(above[leader], np.inf, draws), 100 - tail, method="inverted_cdf"
        )
        result[name] = tuple(float(end) if np.isfinite(end) else None for end in (low, high))
    return result


def profile(
    law: ParametricLaw,
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
    found = (
        optimum(law.hold(**{name: float(value)}), inputs, targets, weights, chosen) for value in at
    )
    return np.array(
        [
            one.state.cost[0] / chosen.units
            if converged(one.state, one.problem, one.weights)[0]
            else np.nan
            for one in found
        ]
    )


class Slopes(NamedTuple):
    """Residuals (n,) and their derivatives (n, p) with respect to theta at an optimum."""

    residuals: np.ndarray
    jacobian: np.ndarray


@partial(jax.jit, static_argnums=(0, 1))
def _residuals(
    law: ParametricLaw, residual: str, problem: Problem, theta: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def of(theta: jax.Array) -> jax.Array:
        predicted = law.predict(
            values(law, problem.offset + problem.basis @ theta), *problem.inputs
        )
        return (
            jnp.log(predicted) - jnp.log(problem.targets)
            if residual == "log"
            else predicted - problem.targets
        )

    return of(theta), jax.jacfwd(of)(theta)


def slopes(law: ParametricLaw, at: Optimum) -> Slopes:
    with jax.enable_x64(True):
        kept = at.weights > 0
        residuals, jacobian = _residuals(unheld(law), at.loss.residual, at.problem, at.theta)
        return Slopes(np.asarray(residuals)[kept], np.asarray(jacobian)[kept])


class Identification(NamedTuple):
    """What the linearized law says of its parameters at an optimum."""

    covariance: np.ndarray
    """(p, p) of theta, zero where a parameter is held, at a bound or idle."""
    condition: float
    """Condition number of the normal matrix scaled to a unit diagonal; infinite with idle parameters."""
    idle: list[str]
    """Parameters without effect on the fitted rows."""
    mixed: list[str]
    """Parameters that can move together without effect on them."""


def identification(law: ParametricLaw, at: Optimum, local: Slopes) -> Identification:
    """s^2 (J^T W J)^-1 with s^2 = sum W r^2 / (n - k), degrees of freedom n - k, and the directions that J maps to nothing."""
    free = (
        ~np.all(at.problem.basis == 0, axis=0)
        & (at.theta > at.problem.low)
        & (at.theta < at.problem.high)
    )
    weights = at.weights[at.weights > 0]
    jacobian = local.jacobian * np.sqrt(weights)[:, None]
    size = np.linalg.norm(jacobian, axis=0)
    moving = free & (size > 0)
    idle = [name for name, still in zip(law.names, free & ~moving, strict=True) if still]
    full = np.zeros((len(at.theta), len(at.theta)))
    if not moving.any():
        return Identification(full, float("inf") if idle else 1.0, idle, [])
    _, spread, right = np.linalg.svd(jacobian[:, moving] / size[moving], full_matrices=False)
    condition = float((spread[0] / spread[-1]) ** 2) if spread[-1] > 0 else float("inf")
    part = np.max(np.abs(right) * (spread[0] ** 2 > CONDITION * spread**2)[:, None], axis=0)
    mixed = [
        name for name, share in zip(np.array(law.names)[moving], part, strict=True) if share > SHARE
    ]
    scaled = right.T @ np.diag(np.maximum(spread, 1e-12) ** -2.0) @ right
    spare = max(len(weights) - int(free.sum()), 1)
    variance = float(np.sum(weights * local.residuals**2) / spare)
    full[np.ix_(moving, moving)] = variance * scaled / np.outer(size[moving], size[moving])
    return Identification(full, float("inf") if idle else condition, idle, mixed)


def unvaried(law: ParametricLaw, inputs: list[np.ndarray]) -> dict[str, float]:
    """Inputs, or their ratio, of one value in all rows, where the law has free terms in them: {"params": 1e8}."""
    terms, columns = _terms(law), {}
    held = {name for name, _ in law.fixed} & {
        name for pairs in terms.values() for pair in pairs for name in pair
    }
    for column, axis, x in zip(law.inputs, law.axes, inputs, strict=True):
        columns.setdefault(axis, (column, x, x if law.additive else np.log(x)))
    read = (columns[axis] for axis in terms)
    single = {
        column: float(x[0]) for column, x, log in read if np.ptp(log) < ONE * (1 + abs(log[0]))
    }
    if single or held or len(columns) != 2 or len(terms) != 2:
        return single
    (first, x, log_x), (second, y, log_y) = columns.values()
    one = np.ptp(log_y - log_x) < 1e3 * ONE * (1 + np.ptp(log_x))
    return {f"{second}/{first}": float(y[0] / x[0])} if one else {}


def _terms(law: ParametricLaw) -> dict[int, list[tuple[str, ...]]]:
    """Axis -> the size and exponent of each term in it that are not both held; a scale such as N_c has no exponent of its own."""
    held, terms = dict(law.fixed), {}
    for name, k in zip(law.names, law.coordinates, strict=True):
        for exponent, axis, _ in k.units:
            pair = (name, exponent) if exponent else (name,)
            if not all(part in held for part in pair):
                terms.setdefault(axis, []).append(pair)
    return terms


def design(
    law: ParametricLaw, inputs: list[np.ndarray], loose: set[str]
) -> tuple[list[str], set[str]]:
    """What the table's inputs alone make impossible to tell apart: reasons, and the parameters concerned.

    loose: parameters that can move without effect on the rows. One value of an input frees those of its terms that nothing else
    holds; at one ratio two power terms are two of one variable, and could change places.
    """
    terms, reasons, names = _terms(law), [], set()
    every = [pair for pairs in terms.values() for pair in pairs]
    exponents = sorted({pair[1] for pair in every if len(pair) == 2})
    for what in unvaried(law, inputs):
        if what in law.inputs:
            pairs = [
                [part for part in pair if part in loose]
                for pair in terms[law.axes[law.inputs.index(what)]]
            ]
            if free := ", ".join(" and ".join(pair) for pair in pairs if pair):
                reasons.append(f"{what} has a single value: {free} cannot be identified")
                names |= {part for pair in pairs for part in pair}
        elif len(exponents) == 2 and not law.tied:
            reasons.append(f"{what} is constant: {' and '.join(exponents)} cannot be told apart")
            names |= {name for pair in every for name in pair}
    return reasons, names


def held_reasons(law: ParametricLaw, targets: np.ndarray) -> list[str]:
    """Offsets that are held above what was measured: no fit of the other terms goes through those rows."""
    offsets = {name for name, k in zip(law.names, law.coordinates, strict=True) if k == OFFSET}
    above = (
        (name, value, int(np.sum(targets <= value))) for name, value in law.fixed if name in offsets
    )
    return [
        f"{name} is held at {value:g}, above the {law.target} of {n} of {len(targets)} rows"
        for name, value, n in above
        if n
    ]


def duplicate_reasons(inputs: list[np.ndarray], targets: np.ndarray) -> list[str]:
    """Rows with equal inputs whose targets are far apart, or the same to the last bit."""
    order = np.lexsort([targets, *inputs])
    same = np.all([np.diff(x[order]) == 0 for x in inputs], axis=0)
    logs, firsts = np.log(targets[order]), np.flatnonzero(np.append(True, ~same))
    above = logs - np.repeat(
        logs[firsts], np.diff(firsts, append=len(logs))
    )  # the lowest target at the same inputs
    far, copies = int(np.sum(above > DUPLICATE)), int(np.sum(same & (np.diff(logs) == 0)))
    reasons = (
        [f"duplicate inputs with targets more than {DUPLICATE:.0%} apart: {far} rows above another"]
        if far
        else []
    )
    if copies:
        reasons.append(
            f"duplicate rows: {copies} repeat another in inputs and target, and count again in fit and intervals"
        )
    return reasons


class Verdict(NamedTuple):
    """What can be said of a fit."""

    word: str
    """ok, at-boundary, unidentified (wins over at-boundary) or not-converged."""
    reasons: list[str]
    condition: float
    """Condition number of the scaled normal matrix; infinite where a parameter has no effect, nan where nothing converged."""
    at_boundary: list[str]
    """Parameters at a bound, or without effect because their term is nil or constant."""
    unknown: set[str]
    """Parameters that these rows leave free to take any value: whatever bootstraps say, their intervals are open."""


def verdict(
    law: ParametricLaw, at: Optimum, inputs: list[np.ndarray], ends: dict[str, Any]
) -> Verdict:
    """Judges a fit by its convergence, the design of its table, its linearized errors and its intervals."""
    below, above = at_bounds(law, at.problem, at.theta[:, None])
    edges = [name for i, name in enumerate(law.names) if below[i, 0] or above[i, 0]]
    if not converged(at.state, at.problem, at.weights)[0]:
        stuck, (why, names) = (
            "the solver did not reach a stationary point from any start",
            design(law, inputs, set(law.names)),
        )
        return Verdict("not-converged", [stuck, *why], float("nan"), edges, names)
    found = identification(law, at, slopes(law, at))
    loose = {*found.idle, *found.mixed}
    reasons, names = design(law, inputs, loose)
    if idle := [name for name in found.idle if name not in names]:
        reasons.append(f"{', '.join(idle)} changed nothing on these rows")
    if found.mixed and not names.issuperset(found.mixed):
        apart = f"condition number {found.condition:.1e}"
        reasons.append(
            f"the parameters {', '.join(found.mixed)} cannot be told apart on these rows ({apart})"
        )
    unknown = loose | names
    if law.free and len(inputs[0]) == law.free:
        reasons.append(
            f"{law.free} rows for {law.free} parameters: nothing is left to check the law with"
        )
    reasons += _open_reasons(
        law, {name: pair for name, pair in ends.items() if name not in unknown}
    )
    if not reasons:
        reasons = _vague_reasons(law, found.covariance)
    edge_reasons = [f"{', '.join(edges)} at the edge of what is allowed"] if edges else []
    word = "unidentified" if reasons else "at-boundary" if edges else "ok"
    return Verdict(word, reasons + edge_reasons, found.condition, edges, unknown)


def _open_reasons(law: ParametricLaw, ends: dict[str, Any]) -> list[str]:
    """Parameters whose intervals are open, together where they are so at the same end, or wide beyond use."""
    sizes = {name for name, k in zip(law.names, law.coordinates, strict=True) if k.log}
    named: dict[str, list[str]] = {}
    wide = []
    for name, (low, high) in ends.items():
        if low is None or high is None:
            named.setdefault(
                "at both ends" if low is high else "below" if low is None else "above", []
            ).append(name)
        elif name in sizes and high > ENDLESS * low:
            wide.append(f"{name} is not identified: its interval spans a factor {high / low:.0e}")
    several = {
        True: "are not identified: their intervals are",
        False: "is not identified: its interval is",
    }
    return [
        f"{', '.join(names)} {several[len(names) > 1]} open {end}" for end, names in named.items()
    ] + wide


def _vague_reasons(law: ParametricLaw, covariance: np.ndarray) -> list[str]:
    """Sizes with linearized errors too wide for use."""
    errors = np.sqrt(np.diag(covariance))
    named = zip(law.names, law.coordinates, errors, strict=True)
    vague = [
        (name, np.exp(min(2 * error, 50))) for name, k, error in named if k.log and error > VAGUE
    ]
    return [
        f"{name} is not identified: its size is known to a factor {factor:.0e} only"
        for name, factor in vague
    ]
