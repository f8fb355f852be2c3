"""Fits a whole-curve law to tables, with intervals over curves and scores."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scalejax.fitting import tables
from scalejax.fitting.curves.result import CurveFit, CurveScores, CurveSplit, LeaveOneCurveOut
from scalejax.fitting.curves.table import Losses, read_curves
from scalejax.fitting.options import FitOptions
from scalejax.fitting.result import Interval, Scores, Seconds
from scalejax.laws.curves import solver, uncertainty
from scalejax.laws.curves.data import CurveData, curve_data, weights_by_curve
from scalejax.laws.curves.forms import AnnealingSize, predict_curve
from scalejax.laws.curves.laws import CurveLaw
from scalejax.laws.curves.rates import extent

if TYPE_CHECKING:
    from pandas import DataFrame

# With fewer curves, or clusters of curves, bootstrap intervals are rough.
MIN_CURVES = 5

# The note of a fit whose caller did not say how many draws it wants.
NO_DRAWS = (
    "no intervals: a bootstrap refits whole curves, which takes minutes; --bootstrap 200 does it"
)


def fit(frame: "DataFrame", law: CurveLaw, options: FitOptions) -> CurveFit:
    """Fit a whole-curve law; see `scalejax.fit`.

    frame: one row per measured loss. A law that reads params splits the rows of a curve
    by them: one schedule, several models.  options: loss, weights, cluster and
    schedules are read. The weights may be the column of the curve: then each curve
    counts once, as in the scores, however many losses it has. The multi-power law does
    so without weights.

    Raises ValueError for options that are not read, for tables that cannot be read, and
    for schedules with a missing step.
    """
    options.check(law, ("loss", "weights", "cluster", "schedules"))
    begin = time.perf_counter()
    table = read_curves(frame, law, options)
    fitted_rows = table.frame.loc[~table.held_out]
    # Held-out rows are checked like the others.
    curve_data(table.rates, *table.losses)
    data = curve_data(table.rates, *table.losses.rows(~table.held_out))
    weights = _weights(fitted_rows, options.weights, table.columns["curve"], law, data)
    problem = _Problem(law, data, options.loss, weights)
    best = problem.solve(weights)
    solved = time.perf_counter()
    intervals, notes = _intervals(problem, best, fitted_rows, options)
    fitted_labels = [table.labels[c] for c in np.unique(table.losses.curve[~table.held_out])]
    return CurveFit(
        law=law,
        params=best.params,
        intervals=intervals,
        objective=best.objective,
        gradient_norm=best.gradient_norm,
        starts_at_optimum=best.starts_at_optimum,
        n_rows=len(data.loss),
        verdict=best.verdict,
        reasons=[*best.reasons, *table.reasons, *notes],
        loss=options.loss,
        columns=table.columns,
        seed=options.seed,
        clusters=options.cluster or "curve",
        holdout=_scores(best, table.labels, table.rates, table.losses.rows(table.held_out)),
        cross_validation=_leave_one_curve_out(problem, best, fitted_labels),
        ranges=_ranges(data, law),
        seconds=Seconds(solve=solved - begin, uncertainty=time.perf_counter() - solved),
    )


def _ranges(data: CurveData, law: CurveLaw) -> dict[str, tuple[float, float]]:
    """How far the schedules go up to the fitted losses, and the fitted params."""
    ends = [
        extent(rates[: step + 1])
        for c, rates in enumerate(data.rates)
        for step in (data.step[data.curve == c].min(), data.step[data.curve == c].max())
    ]
    ranges = {
        name: (min(end[name] for end in ends), max(end[name] for end in ends)) for name in ends[0]
    }
    if "params" in law.inputs:
        ranges["params"] = (float(data.params.min()), float(data.params.max()))
    return ranges


def _weights(
    rows: "DataFrame", column: str | None, curve_column: str, law: CurveLaw, data: CurveData
) -> np.ndarray:
    if column is None:
        return solver.default_weights(law.name, data)
    if column == curve_column:
        return weights_by_curve(data.curve)
    weights = tables.numeric_column(rows, tables.column_for(rows, column))
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(
            f"weights must be positive numbers; column {column!r} has others. With the column of "
            "the curve as the weights, each curve counts once"
        )
    return weights


class _Problem(NamedTuple):
    """What stays the same in all fits to one table."""

    law: CurveLaw
    data: CurveData
    loss: str
    weights: np.ndarray
    """Of the fitted rows."""

    def solve(self, weights: np.ndarray, start: solver.CurveFit | None = None) -> solver.CurveFit:
        """Fit the law under some row weights."""
        return solver.fit_curves(
            self.law.name,
            self.data,
            loss=self.loss,
            fixed=dict(self.law.fixed),
            weights=weights,
            start=start,
        )


def _intervals(
    problem: _Problem, best: solver.CurveFit, rows: "DataFrame", options: FitOptions
) -> tuple[dict[str, Interval], list[str]]:
    """Intervals over resampled curves, or clusters of curves, and notes on them."""
    if options.bootstrap is None:
        return {}, [NO_DRAWS]
    if not options.bootstrap:
        return {}, []
    law, data = problem.law, problem.data
    units, count, unit = None, len(data.rates), "curves"
    if options.cluster is not None:
        labels = rows[tables.column_for(rows, options.cluster)].astype(str)
        units = np.unique(labels, return_inverse=True)[1]
        count, unit = int(units.max()) + 1, f"groups by {options.cluster}"
    if count == 1:
        open_ends: Interval = (None, None)
        reason = f"resampling needs two or more {unit}; there is 1, and no interval follows"
        return dict.fromkeys(law.names, open_ends), [reason]
    draws = uncertainty.bootstrap_curves(
        law.name,
        data,
        best,
        draws=options.bootstrap,
        seed=options.seed,
        units=units,
        loss=problem.loss,
        fixed=dict(law.fixed),
        weights=problem.weights,
    )
    ends = uncertainty.intervals(law.name, draws)
    ends |= dict.fromkeys(best.undetermined, (None, None))
    ends = {name: pair for name, pair in ends.items() if name not in dict(law.fixed)}
    notes = _open_reasons(draws, ends, best, unit)
    if count < MIN_CURVES:
        notes.append(f"intervals resample {count} {unit}, which is few: they are rough")
    return ends, notes


def _open_reasons(
    draws: Mapping[str, np.ndarray], ends: Mapping[str, Interval], best: solver.CurveFit, unit: str
) -> list[str]:
    """Say which intervals are open because few resamples determine the parameter."""
    lost = {name: float(np.mean(np.isnan(draws[name]))) for name in ends}
    names = [
        name
        for name, pair in ends.items()
        if pair == (None, None) and lost[name] and name not in best.undetermined
    ]
    if not names:
        return []
    return [
        f"{max(lost[name] for name in names):.0%} of the resampled {unit} do not determine "
        f"{', '.join(names)}, and no interval follows"
    ]


def _scores(
    best: solver.CurveFit, labels: Sequence[str], rates: Sequence[np.ndarray], losses: Losses
) -> CurveScores:
    """Scores of a fit on losses; empty when there are none."""
    if not len(losses.loss):
        return CurveScores()
    by_curve = {}
    for c in np.unique(losses.curve):
        rows = losses.rows(losses.curve == c)
        size = float(rows.params[0]) if isinstance(best.law, AnnealingSize) else None
        predicted = predict_curve(best, rates[c], params=size)[rows.step.astype(int)]
        by_curve[labels[c]] = Scores.of(predicted, rows.loss)
    explained = [scores.r2 for scores in by_curve.values() if scores.r2 is not None]
    return CurveScores(
        n=len(losses.loss),
        mae=float(np.mean([scores.mae for scores in by_curve.values()])),
        mean_rel_error=float(np.mean([scores.mean_rel_error for scores in by_curve.values()])),
        max_rel_error=float(np.mean([scores.max_rel_error for scores in by_curve.values()])),
        r2=float(np.mean(explained)) if explained else None,
        by_curve=by_curve,
    )


def _leave_one_curve_out(
    problem: _Problem, best: solver.CurveFit, labels: Sequence[str]
) -> LeaveOneCurveOut:
    """Predict each curve by the fit to the other curves."""
    data = problem.data
    if len(data.rates) < 3:
        return LeaveOneCurveOut()
    losses = Losses(data.curve, data.step, data.loss, data.params)
    by_split = []
    for c in range(len(data.rates)):
        others = data.curve != c
        if others.sum() < problem.law.free:
            continue
        # From the starts of the grid: started at the fit to all curves, a parameter
        # that the other curves leave open would keep the value it has there.
        refit = problem.solve(others * problem.weights)
        scores = _scores(refit, labels, data.rates, losses.rows(~others))
        split = CurveSplit(
            left_out=labels[c],
            n=scores.n,
            mae=scores.mae,
            mean_rel_error=scores.mean_rel_error,
            max_rel_error=scores.max_rel_error,
        )
        by_split.append(split)
    if not by_split:
        return LeaveOneCurveOut()
    return LeaveOneCurveOut(
        splits=len(by_split),
        n=sum(split.n for split in by_split),
        mae=float(np.mean([split.mae for split in by_split])),
        mean_rel_error=float(np.mean([split.mean_rel_error for split in by_split])),
        max_rel_error=float(max(split.max_rel_error for split in by_split)),
        by_split=tuple(by_split),
    )
