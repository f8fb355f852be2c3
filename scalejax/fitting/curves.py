"""Whole-curve laws from a table: rows of (curve, step, loss) and a table of the learning rate of every step."""

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scalejax.fitting import tables
from scalejax.fitting.fit import Estimate, Fit, scores
from scalejax.laws.curves import forms as curves
from scalejax.laws.curves import rows as curve_rows
from scalejax.laws.curves import solver as curve_solver
from scalejax.laws.curves.laws import CurveLaw

if TYPE_CHECKING:
    from pandas import DataFrame

SAME_RATE = 1e-3  # relative; a row's own learning_rate further from its schedule is worth a word
FEW_CURVES = 5
FAR = 0.1  # nats between two losses of one curve at one step


def fit(
    frame: "DataFrame",
    law: CurveLaw,
    *,
    held_out: np.ndarray,
    loss: str,
    weights: str | None,
    cluster: str | None,
    bootstrap: int,
    seed: int,
    columns: dict[str, str],
    schedules: "str | DataFrame | None" = None,
    **choices: Any,
) -> Fit:
    """Fits a whole-curve law; see `scalejax.fitting.fit.fit`. schedules: table of (curve, step, learning_rate), every step.

    weights: a column of positive numbers, or the column of the curve: then each curve counts once, as in the scores, however
    many losses it has; so it does under the multi-power law when none are given. A law that reads params splits the rows of a
    curve by them: one schedule, several models.
    """
    if choices:
        raise ValueError(f"the {law.name} law does not read {', '.join(sorted(choices))}")
    begin = time.perf_counter()
    sized = "params" in law.inputs
    numeric = ("step", "loss", *(["params"] if sized else []))
    named = {name: tables.column_for(frame, name, columns) for name in ("curve", *numeric)}
    values = {name: tables.numeric_column(frame, named[name]) for name in numeric}
    kept = (
        np.all([np.isfinite(x) for x in values.values()], axis=0)
        & frame[named["curve"]].notna().to_numpy()
    )
    reasons = (
        [f"dropped {np.sum(~kept)} rows with missing or infinite values"] if not kept.all() else []
    )
    every_row, frame = frame, frame.loc[kept]  # a step without a loss still has its rate
    held_out, step, measured = held_out[kept], values["step"][kept], values["loss"][kept]
    if held_out.all():
        raise ValueError("no rows are left to fit: every row is held out or has a missing value")
    params = values["params"][kept] if sized else np.ones(len(step))
    schedule = frame[named["curve"]].astype(str).to_numpy()
    (owner, size), curve = _curves(schedule, params)
    labels = (
        [f"{name} at {n:g}" for name, n in zip(owner, size, strict=True)] if sized else list(owner)
    )
    by_schedule = dict(
        zip(
            np.unique(owner),
            _rates(np.unique(owner), every_row, named, columns, schedules),
            strict=True,
        )
    )
    rates = [by_schedule[name] for name in owner]
    for c, label in enumerate(labels):
        if (last := step[curve == c].max()) >= len(rates[c]):
            raise ValueError(
                f"curve {label!r} has a loss at step {last:g}, and its schedule only {len(rates[c])} steps"
            )
    if "learning_rate" in columns or "learning_rate" in frame.columns:
        named["learning_rate"] = tables.column_for(frame, "learning_rate", columns)
        reasons += _disagreement(
            tables.numeric_column(frame, named["learning_rate"]), rates, curve, step
        )
    curve_rows.measured(
        rates, curve, step, measured, params
    )  # held-out rows are checked like the others
    data = curve_rows.measured(rates, *(x[~held_out] for x in (curve, step, measured, params)))
    reasons += _duplicates(labels, curve[~held_out], step[~held_out], measured[~held_out])
    options: dict[str, Any] = {"loss": loss, "fixed": dict(law.fixed)}
    if weights is not None:
        options["weights"] = _weights(frame.loc[~held_out], weights, named["curve"], data.curve)
    best = curve_solver.fit_curves(law.name, data, **options)
    solved = time.perf_counter()
    ends, notes = _intervals(
        law, data, best, frame.loc[~held_out], cluster, bootstrap, seed, options
    )
    fitted = Fit(
        law=law,
        params=best.params,
        intervals=ends,
        objective=best.objective,
        gradient_norm=best.gradient_norm,
        starts_at_optimum=best.starts_at_optimum,
        n_rows=len(data.loss),
        verdict=best.verdict,
        reasons=[*best.reasons, *reasons, *notes],
        loss=loss,
        columns=named,
        seed=seed,
        clusters=cluster or "curve",
        holdout=_scores(
            best, labels, rates, *(x[held_out] for x in (curve, step, measured, params))
        ),
        cross_validation=_leave_one_curve_out(
            law, data, best, [labels[c] for c in np.unique(curve[~held_out])], options
        ),
    )
    fitted.seconds.update(solve=solved - begin, uncertainty=time.perf_counter() - solved)
    return fitted


def predict(fit: Fit, **inputs: Any) -> Estimate:
    """The loss after the last step of `learning_rates`, the rate of every step; with `params` for a law that reads them."""
    if set(inputs) != {"learning_rates", *fit.law.inputs} - {"learning_rate"}:
        raise ValueError(
            f"the {fit.law.name} law predicts from the rate of every step: laws.predict_curve(fit, learning_rates"
            f"{', params=..' if 'params' in fit.law.inputs else ''}) in Python; got {', '.join(inputs) or 'nothing'}"
        )
    value = float(curves.predict_curve(fit, **inputs)[-1])
    return Estimate(value, None, None, 0.95, "no interval: whole-curve laws forecast a point")


def forecast(fit: Fit, **inputs: Any) -> tuple[dict[str, Any], Estimate]:
    """The inputs and the estimate."""
    return {}, predict(fit, **inputs)


def read_law(
    path: str | os.PathLike,
) -> curves.Annealing | curves.AnnealingSize | curves.MultiPower:
    """Reads the law in a file of a whole-curve fit.

    path: JSON, as `scalejax fit --out` wrote it or as `scalejax fit --json` printed it.

    Raises FileNotFoundError, or ValueError for a file that holds another kind of law.
    """
    record = json.loads(Path(path).read_text(encoding="utf-8"))
    return curves.law_from_parameters(record.get("law"), record.get("params", {}))


def _curves(
    schedule: np.ndarray, params: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The distinct (schedule, params), and which of them each row belongs to."""
    owners, owner = np.unique(schedule, return_inverse=True)
    sizes, size = np.unique(params, return_inverse=True)
    pairs, curve = np.unique(np.stack([owner, size]), axis=1, return_inverse=True)
    return (owners[pairs[0]], sizes[pairs[1]]), curve.ravel()


def _weights(frame, column: str, curve_column: str, curve: np.ndarray) -> np.ndarray:
    """Of every row: its column's, or, for the column of the curve, what makes the curves count alike and sums to the rows."""
    if column == curve_column:
        return curve_rows.each_curve_once(curve)
    weights = tables.numeric_column(frame, tables.column_for(frame, column))
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(
            f"weights in {column!r} are positive numbers, or the column of the curve: each curve counts once"
        )
    return weights


def _rates(labels, frame, named, columns, schedules) -> list[np.ndarray]:
    """The rate of every step of every curve, from the schedules table or, when a curve has a row per step, from its rows."""
    if schedules is None:
        source = tables.column_for(frame, "learning_rate", columns)
        table, names = frame, (named["curve"], named["step"], source)
        hint = "; give the rate of every step: --schedules TABLE with columns curve, step, learning_rate"
    else:
        table, names, hint = tables.read(schedules), ("curve", "step", "learning_rate"), ""
        for name in names:
            if name not in table.columns:
                raise ValueError(
                    f"the schedules table has no column {name!r}; it has {', '.join(map(str, table.columns))}"
                )
    steps, rates = (tables.numeric_column(table, name) for name in names[1:])
    owner = table[names[0]].astype(str).to_numpy()
    found = []
    for label in labels:
        rows = np.flatnonzero(owner == label)
        if not len(rows):
            there = ", ".join(map(str, np.unique(owner)[:10]))
            raise ValueError(f"curve {label!r} is not in the schedules table, which has {there}")
        rows = rows[np.argsort(steps[rows], kind="stable")]
        if schedules is None:  # several measurements of one step are one step of the schedule
            rows = rows[np.unique(steps[rows], return_index=True)[1]]
        wrong = np.flatnonzero(steps[rows] != np.arange(len(rows)))
        if len(wrong):
            at = steps[rows[wrong[0]]]
            what = (
                f"step {at:g} twice"
                if wrong[0] and at == steps[rows[wrong[0] - 1]]
                else f"no step {wrong[0]}"
            )
            raise ValueError(
                f"the schedule of curve {label!r} has {what}: steps go 0, 1, 2, .. without a gap{hint}"
            )
        found.append(curves.checked_rates(rates[rows], f"schedule of curve {label!r}"))
    return found


def _disagreement(
    own: np.ndarray, rates: list[np.ndarray], curve: np.ndarray, step: np.ndarray
) -> list[str]:
    """Rows whose learning_rate is not their schedule's: an off-by-one in the steps, most often."""
    scheduled = np.array([rates[c][int(s)] for c, s in zip(curve, step, strict=True)])
    far = np.isfinite(own) & (
        np.abs(own - scheduled) > SAME_RATE * np.array([rates[c].max() for c in curve])
    )
    return (
        [f"learning_rate of {far.sum()} rows is not that of their schedule at that step"]
        if far.any()
        else []
    )


def _duplicates(labels, curve, step, measured) -> list[str]:
    order = np.lexsort((step, curve))
    same = (np.diff(curve[order]) == 0) & (np.diff(step[order]) == 0)
    if not np.any(same & (np.abs(np.diff(measured[order])) > FAR)):
        return []
    at = order[np.flatnonzero(same & (np.abs(np.diff(measured[order])) > FAR))[0]]
    return [
        f"duplicate: curve {labels[curve[at]]!r} has losses more than {FAR} nats apart at step {step[at]:g}"
    ]


def _intervals(
    law, data, best, frame, cluster, draws, seed, options
) -> tuple[dict[str, tuple[float | None, float | None]], list[str]]:
    """Intervals over resampled curves (or clusters of them), and what to know about them."""
    if not draws:
        return {}, []
    units, count, unit = None, len(data.rates), "curves"
    if cluster is not None:
        units = np.unique(
            frame[tables.column_for(frame, cluster)].astype(str), return_inverse=True
        )[1]
        count, unit = int(units.max()) + 1, cluster
    if count == 1:
        return dict.fromkeys(law.names, (None, None)), [
            f"one of {unit}: resampling it gives no interval"
        ]
    drawn = curve_solver.bootstrap_curves(
        law.name, data, best, draws=draws, seed=seed, units=units, **options
    )
    few = (
        [f"intervals resample {count} {unit}, which is few: read them as rough"]
        if count < FEW_CURVES
        else []
    )
    return curve_solver.intervals(law.name, drawn), few


def _scores(best, labels, rates, curve, step, measured, params) -> dict[str, Any]:
    """Means over curves, each curve counting once, with each curve's own scores."""
    if not len(measured):
        return {}
    by_curve = {}
    sized = isinstance(best.law, curves.AnnealingSize)
    for c in np.unique(curve):
        rows = curve == c
        size = float(params[rows][0]) if sized else None
        predicted = curves.predict_curve(best, rates[c], params=size)[step[rows].astype(int)]
        by_curve[str(labels[c])] = scores(predicted, measured[rows])
    means: dict[str, Any] = {"n": len(measured)}
    for name in ("mae", "mean_rel_error", "max_rel_error", "r2"):
        values = [score[name] for score in by_curve.values() if score[name] is not None]
        means[name] = float(np.mean(values)) if values else None
    return means | {"by_curve": by_curve}


def _leave_one_curve_out(law, data, best, labels, options) -> dict[str, Any]:
    """Each curve predicted by the fit to the others, each counting once."""
    by_split, options = [], dict(options)
    weights = options.pop("weights", curve_solver.row_weights(law.name, data))
    if len(data.rates) < 3:
        return {}
    for c in range(len(data.rates)):
        others = data.curve != c
        if others.sum() < law.free:
            continue
        refit = curve_solver.fit_curves(
            law.name, data, weights=others * weights, start=best, **options
        )
        rows = ~others
        score = _scores(refit, labels, data.rates, *(x[rows] for x in data[1:]))
        kept = {name: score[name] for name in ("n", "mae", "mean_rel_error", "max_rel_error")}
        by_split.append({"left_out": labels[c]} | kept)
    if not by_split:
        return {}
    return {
        "method": "leave-one-curve-out",
        "splits": len(by_split),
        "n": sum(split["n"] for split in by_split),
        "mae": float(np.mean([split["mae"] for split in by_split])),
        "mean_rel_error": float(np.mean([split["mean_rel_error"] for split in by_split])),
        "max_rel_error": float(max(split["max_rel_error"] for split in by_split)),
        "by_split": by_split,
    }
