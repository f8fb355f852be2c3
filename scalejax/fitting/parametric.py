"""Laws of points: one row per run, fitted by the solver of `scalejax.laws`."""

import dataclasses
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from scalejax.fitting import replicates, resampling, tables
from scalejax.fitting.fit import Estimate, Fit, scores
from scalejax.laws import optimal
from scalejax.laws.inference import convergence, design, identification, intervals
from scalejax.laws.inference.replicates import lack_of_fit, noise_floor
from scalejax.laws.inference.verdict import judge
from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver import losses
from scalejax.laws.solver.multistart import LARGE_TABLE_ROWS, Optimum, find_optimum, pad_rows, refit
from scalejax.laws.solver.problem import parameters_in_table_units, unconstrained

if TYPE_CHECKING:
    from pandas import DataFrame

LEVEL = 0.95
SAME = 1e-6  # inputs that differ by less, relatively, are one value
SPLITS = (
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
)  # shares of the runs, cheapest first, that cross-validation fits on


def fit(
    frame: "DataFrame",
    law: ParametricLaw,
    *,
    held_out: np.ndarray,
    loss: str,
    weights: str | None,
    cluster: str | None,
    bootstrap: int,
    seed: int,
    columns: dict[str, str],
    resample: str = "pairs",
    **choices: Any,
) -> Fit:
    """Fits a law of points; see `scalejax.fitting.fit.fit`. resample: what a bootstrap draws (see `scalejax.fitting.resampling.draw`)."""
    if choices:
        raise ValueError(f"the {law.name} law does not read {', '.join(sorted(choices))}")
    begin = time.perf_counter()
    law = _settle_inputs(law, frame, columns)
    read = tables.read_columns(frame, law.inputs, law.target, columns)
    _check_one_row_per_run(frame.loc[read.complete], columns.get("run", "run"))
    kept_out = held_out[read.complete]
    inputs, target = [x[~kept_out] for x in read.inputs], read.target[~kept_out]
    _check_rows(law, len(target), len(frame))
    chosen = losses.parse_loss(loss)
    rows = frame.loc[read.complete].loc[~kept_out]
    row_weights = _weights(rows, weights)
    at = find_optimum(law, inputs, target, row_weights, chosen)
    solved = time.perf_counter()

    points = replicates.design_points(rows, inputs, columns.get("seed", "seed"))
    floor = noise_floor(np.log(target), points, row_weights)
    theta, notes = resampling.bootstrap_draws(
        law, at, rows, cluster=cluster, resample=resample, count=bootstrap, seed=seed, floor=floor
    )
    fine = theta[:, resampling.converged_mask(theta)]
    ends = (
        intervals.percentile_intervals(law, at.problem, fine, LEVEL)
        if fine.shape[1]
        else _nothing(law, bootstrap)
    )
    verdict = judge(law, at, inputs, ends)
    ends = {name: (None, None) if name in verdict.undetermined else pair for name, pair in ends.items()}
    notes += replicates.lack_of_fit_reasons(
        lack_of_fit(identification.linearize(law, at).residuals, points, row_weights, law.free)
    )
    dropped = int(np.sum(~read.complete))
    notes = [f"dropped {dropped} rows with missing or infinite values"] * (dropped > 0) + notes
    best = _floats(parameters_in_table_units(law, at.problem, at.theta[:, None]))
    reached = (
        verdict.label != "not-converged"
    )  # if not, where the solver stopped says nothing, and nothing is said of it
    losses_read = dict(zip((*law.inputs, law.target), (*inputs, target), strict=True)).get(
        "loss", target
    )
    fitted = Fit(
        law=law,
        params=best if reached else dict.fromkeys(best, np.nan),
        intervals=ends if reached else {},
        objective=float(at.state.cost[0]) / chosen.normalizer,
        gradient_norm=float(np.max(np.abs(at.state.gradient))) / chosen.normalizer,
        starts_at_optimum=at.starts_at_optimum,
        n_rows=len(target),
        verdict=verdict.label,
        reasons=verdict.reasons
        + design.held_reasons(law, target)
        + design.duplicate_reasons(inputs, target)
        + notes,
        loss=loss,
        columns=read.names,
        condition=verdict.condition,
        at_boundary=verdict.at_boundary,
        noise=replicates.noise_record(floor),
        seed=seed,
        clusters=cluster,
        resample=resample,
        holdout=_holdout(law, best, [x[kept_out] for x in read.inputs], read.target[kept_out])
        if reached
        else {},
        cross_validation=_rolling_origin(law, at, inputs, target) if reached else {},
        views=_views(law, best) if reached else {},
        spread=resampling.forecast_spread(
            law,
            at,
            theta if reached else theta[:, :0],
            inputs,
            resampling.rows_digest(rows, losses_read),
            verdict.undetermined,
        ),
        rows_used={"inputs": inputs, "optimum": at},
    )
    done = time.perf_counter()
    fitted.seconds.update(solve=solved - begin, uncertainty=done - solved)
    return fitted


def predict(fit: Fit, **inputs: float) -> Estimate:
    """The law at one run, with a 95% interval for what the run will measure.

    Every bootstrap draw of the law is combined with every residual of the fitted rows (scaled by sqrt(n / (n - k)), since k
    parameters have bent towards them); the interval is the 2.5 and 97.5 percentile of all those. It says how far a run like the
    fitted ones may fall from the law as fitted, not whether the law holds that far out; `method` says how far it is.

    No interval, with the reason in `method`, without draws, and for a run that differs in what the rows never varied.
    """
    law = fit.law
    _check_reached(fit)
    _check_inputs(law, inputs)
    at = [np.array([inputs[name]], np.float64) for name in law.inputs]
    value = float(evaluate(law, fit.params, at)[0])
    drawn = resampling.converged_draws(fit)
    if not drawn:
        lost = (
            "its bootstraps gave none (see its reasons)"
            if fit.intervals
            else "the fit has no bootstrap draws"
        )
        return Estimate(value, None, None, LEVEL, f"no interval: {lost}")
    if unsaid := _unsaid(fit, inputs):
        return Estimate(value, None, None, LEVEL, f"no interval: {', '.join(unsaid)}")
    residuals = np.asarray(fit.spread["residuals"])
    measured = measure(fit, evaluate(law, drawn, at)[:, None], residuals)
    low, high = np.percentile(measured, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    unit = fit.clusters or {"pairs": "rows"}.get(fit.resample, fit.resample)
    method = "; ".join(
        [
            f"{len(measured)} bootstrap draws of {unit} x {len(residuals)} residuals",
            *_beyond(fit, inputs),
        ]
    )
    return Estimate(value, float(low), float(high), LEVEL, method)


def _unsaid(fit: Fit, inputs: dict[str, float]) -> list[str]:
    """What the fitted rows never varied and the run has another value of: they say nothing of what it does."""
    found = []
    for what, value in fit.spread["unvaried"].items():
        top, _, bottom = what.partition("/")
        at = inputs[top] / (inputs[bottom] if bottom else 1.0)
        if abs(at / value - 1) > SAME:
            found.append(f"{what} was {value:.4g} in every fitted row, and here it is {at:.4g}")
    return found


def _beyond(fit: Fit, inputs: dict[str, float]) -> list[str]:
    """How far the run lies beyond the fitted rows."""
    ranges = ((name, inputs[name], *fit.spread["ranges"][name]) for name in fit.law.inputs)
    return [
        f"{name} is {x / high if x > high else x / low:.3g} times the {'largest' if x > high else 'smallest'} fitted"
        for name, x, low, high in ranges
        if x > high * (1 + SAME) or x < low * (1 - SAME)
    ]


def _check_inputs(law: ParametricLaw, inputs: dict[str, float]) -> None:
    if set(inputs) != set(law.inputs):
        raise ValueError(
            f"the {law.name} law predicts {law.target} from {', '.join(law.inputs)}; got {', '.join(inputs) or 'nothing'}"
        )
    for name, value in inputs.items():
        if not 0 < value < np.inf:
            raise ValueError(f"{name} is a positive number; got {value}")


def measure(fit: Fit, predicted: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """What runs measure that fall from the law by residuals (predicted minus observed, on the scale of the loss)."""
    return (
        predicted * np.exp(-residuals)
        if losses.parse_loss(fit.loss).residual == "log"
        else predicted - residuals
    )


@partial(jax.jit, static_argnums=0)
def _evaluate(law: ParametricLaw, params: Any, inputs: list[Any]) -> jax.Array:
    return law.predict(params, *inputs)


def evaluate(law: ParametricLaw, params: dict[str, Any], inputs: list[np.ndarray]) -> np.ndarray:
    """The law in the table's units, in float64."""
    with jax.enable_x64(True):
        return np.asarray(
            _evaluate(
                unconstrained(law),
                law.form(**{k: np.asarray(v, np.float64) for k, v in params.items()}),
                inputs,
            )
        )


def influence(fit: Fit, **inputs: float) -> np.ndarray:
    """d predict / d target of each row: -(d predict / d theta) H^-1 (d gradient / d target), over the free coordinates.

    At a compute-optimal run (flops) that is all: how N* and D* move adds nothing to the loss to first order.
    """
    inputs = _run(fit, inputs)
    _check_inputs(fit.law, inputs)
    law, at = unconstrained(fit.law), fit.rows_used["optimum"]
    problem, local = at.problem, identification.linearize(fit.law, at)
    huber, kept = at.loss.stages[-1], at.weights > 0
    with jax.enable_x64(True):
        bend = np.asarray(huber.curvature(local.residuals)) * at.weights[kept]
        at_run = tuple(np.array([inputs[name]]) for name in law.inputs)
        ahead = np.asarray(jax.jacfwd(lambda t: evaluate_at(law, problem, t, at_run))(at.theta))[0]
    still = (
        np.all(problem.basis == 0, axis=0) | (at.theta <= problem.low) | (at.theta >= problem.high)
    )
    hessian = np.where(still[:, None] | still, np.eye(len(still)), at.state.hessian[..., 0])
    moved = np.where(still, 0.0, local.jacobian) * bend[:, None]
    if at.loss.residual == "log":
        moved = moved / at.problem.targets[kept][:, None]  # d r / d target = -1 / target
    return moved @ np.linalg.solve(hessian, np.where(still, 0.0, ahead))


def evaluate_at(law: ParametricLaw, problem: Any, theta: Any, inputs: tuple) -> Any:
    """The law at theta, in the table's units; differentiable."""
    form = parameters_in_table_units(law, problem, theta[:, None])
    return law.predict(form, *inputs)


def _nothing(law: ParametricLaw, bootstrap: int) -> dict[str, tuple[float | None, float | None]]:
    """The intervals of bootstraps none of which gave a fit: open, all of them."""
    held = dict(law.fixed)
    return {name: (None, None) for name in law.names if bootstrap and name not in held}


def _check_reached(fit: Fit) -> None:
    if fit.verdict == "not-converged":
        raise ValueError(
            f"this {fit.law.name} fit did not converge and predicts nothing: {'; '.join(fit.reasons)}"
        )


def _settle_inputs(law: ParametricLaw, frame: "DataFrame", named: dict[str, str]) -> ParametricLaw:
    """The column that a law of "x" reads: the one of params, tokens and flops that is named, or that the table has."""
    if law.inputs != ("x",):
        return law
    candidates = ("params", "tokens", "flops")
    found = [name for name in candidates if name in named] or [
        name for name in candidates if name in frame.columns
    ]
    if len(found) != 1:
        there = ", ".join(found) or "none of them"
        raise ValueError(
            f"the power law reads params, tokens or flops; the table has {there}: name one, --columns params=THEIRS"
        )
    return dataclasses.replace(law, inputs=(found[0],))


def _check_one_row_per_run(rows: "DataFrame", column: str) -> None:
    again = rows[column][rows[column].duplicated()].tolist() if column in rows.columns else []
    if again:
        run = again[0]
        raise ValueError(
            f"run {run!r} has several rows, and a law of points reads one row per run: choose with --where"
        )


def _check_rows(law: ParametricLaw, rows: int, table: int) -> None:
    if rows < law.free:
        raise ValueError(
            f"the {law.name} law has {law.free} free parameters and {rows} of the {table} rows chosen can be fitted (none "
            "missing, infinite or held out): it needs at least as many"
        )


def _weights(rows: "DataFrame", column: str | None) -> np.ndarray:
    if column is None:
        return np.ones(len(rows))
    weights = rows[tables.column_for(rows, column)].to_numpy(np.float64)
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(f"weights in {column!r} are positive numbers")
    return weights


def _holdout(
    law: ParametricLaw, params: dict[str, float], inputs: list[np.ndarray], target: np.ndarray
) -> dict[str, Any]:
    return scores(evaluate(law, params, inputs), target) if len(target) else {}


def _rolling_origin(
    law: ParametricLaw, at: Optimum, inputs: list[np.ndarray], target: np.ndarray
) -> dict[str, Any]:
    """Fits on the cheaper runs and predicts the dearer ones, at growing shares of the runs.

    Cost is params x tokens, width^2 x depth x tokens, or the law's only input; for laws of error against loss, the lowest losses
    are dearest. Of more than LARGE_TABLE_ROWS rows a random sample is split: its errors say the same.
    """
    if len(target) > LARGE_TABLE_ROWS:
        few = np.random.default_rng(0).choice(len(target), LARGE_TABLE_ROWS, replace=False)
        at, inputs, target = sample(at, few), [x[few] for x in inputs], target[few]
    powers = {"width": 2, "unique_tokens": 0}
    spent = [powers.get(name, 1) * np.log(x) for name, x in zip(law.inputs, inputs, strict=True)]
    cost = -inputs[0] if law.additive else np.sum(spent, axis=0)
    levels = np.unique(cost)
    cuts = sorted(
        {float(np.quantile(cost, share, method="lower")) for share in SPLITS}
        & set(levels[:-1].tolist())
    )
    splits = [(cost <= cut) for cut in cuts if np.sum(cost <= cut) > law.free]
    if not splits:
        return {}
    state = refit(law, at, np.array([split * at.weights[: len(target)] for split in splits]))
    fine = convergence.converged(state, at.problem, at.weights)
    params = {
        name: x[:, None]
        for name, x in parameters_in_table_units(law, at.problem, np.asarray(state.theta))
        ._asdict()
        .items()
    }
    errors = np.abs(evaluate(law, params, inputs) / target - 1)
    by_split = []
    for i in np.flatnonzero(fine):
        relative = errors[i, ~splits[i]]
        ends = {"mean_rel_error": float(relative.mean()), "max_rel_error": float(relative.max())}
        by_split.append({"fitted": int(np.sum(splits[i])), "n": len(relative)} | ends)
    if not by_split:
        return {"splits": 0}
    return {
        "splits": len(by_split),
        "n": sum(split["n"] for split in by_split),
        "mean_rel_error": float(np.mean([split["mean_rel_error"] for split in by_split])),
        "max_rel_error": max(split["max_rel_error"] for split in by_split),
        "by_split": by_split,
    }


def sample(at: Optimum, rows: np.ndarray) -> Optimum:
    """The same optimum over some of its rows, to refit from."""
    *inputs, targets, weights = pad_rows(
        [np.asarray(x)[rows] for x in (*at.problem.inputs, at.problem.targets, at.weights)]
    )
    return at._replace(
        problem=at.problem._replace(inputs=tuple(inputs), targets=targets), weights=weights
    )


def _views(law: ParametricLaw, params: dict[str, float]) -> dict[str, dict[str, float]]:
    if not hasattr(law.form, "chinchilla"):
        return {}
    return {
        "chinchilla": {
            name: float(value) for name, value in law.form(**params).chinchilla()._asdict().items()
        }
    }


def _floats(form: Any) -> dict[str, float]:
    return {name: float(np.ravel(value)[0]) for name, value in form._asdict().items()}


def forecast(fit: Fit, **inputs: float) -> tuple[dict[str, Any], Estimate]:
    """The run that the inputs mean and its estimate; flops alone mean the compute-optimal run at C = 6 N D, with its bands."""
    run = _run(fit, inputs)
    bands = {} if run == inputs else _optimal_bands(fit, inputs["flops"])
    return run | bands, predict(fit, **run)


def _run(fit: Fit, inputs: dict[str, float]) -> dict[str, float]:
    """The inputs, or the compute-optimal run of flops."""
    _check_reached(fit)
    if set(inputs) != {"flops"} or fit.law.inputs != ("params", "tokens"):
        return inputs
    best = optimal.compute_optimal(fit.law.form(**fit.params), inputs["flops"])
    if not 0 < best.params < np.inf:
        raise ValueError("no compute-optimal run: a size or exponent of the fit is zero")
    return {"params": float(best.params), "tokens": float(best.tokens)}


def _optimal_bands(fit: Fit, flops: float) -> dict[str, list[float | None]]:
    """95% percentile intervals of N*, D* and D*/N* over the bootstrap draws; an open end is None.

    Where the draws let a term vanish (its size or exponent is open below), nothing holds the optimum on that side: without the
    size term the best model is arbitrarily small, without the data term arbitrarily large. A term that is open at both ends
    holds it on neither.
    """
    drawn = resampling.converged_draws(fit)
    if not drawn:
        return {}
    low, high = optimal.compute_optimal_bands(fit.law.form(**drawn), flops, LEVEL)
    units = (
        (name, unit)
        for name, k in zip(fit.law.names, fit.law.coordinates, strict=True)
        for unit in k.units
    )
    ends_of = [
        (axis, fit.intervals.get(part, (0.0, 0.0)))
        for name, (exponent, axis, _) in units
        for part in (name, exponent)
    ]
    gone = {axis for axis, ends in ends_of if ends[0] is None}
    if any(ends == (None, None) for _, ends in ends_of):
        gone = {0, 1}
    size, data = 0, 1  # axes of the terms
    held_by = {
        "params": (size, data),
        "tokens": (data, size),
        "tokens_per_param": (data, size),
    }  # each low end and high end
    bands = {}
    for (name, terms), ends in zip(held_by.items(), zip(low, high, strict=True), strict=True):
        pairs = zip(ends, terms, strict=True)
        bands[f"{name}_interval"] = [
            float(end) if 0 < end < np.inf and term not in gone else None for end, term in pairs
        ]
    return bands
