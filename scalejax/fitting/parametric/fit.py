"""Fits a law of one row per run to a table, with intervals, a verdict and scores."""

import dataclasses
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scalejax.fitting import replicates, resampling, tables
from scalejax.fitting.options import DEFAULT_DRAWS, FitOptions
from scalejax.fitting.parametric.cross_validation import rolling_origin
from scalejax.fitting.parametric.evaluate import evaluate
from scalejax.fitting.parametric.quality import Quality
from scalejax.fitting.parametric.result import ParametricFit
from scalejax.fitting.parametric.units import check_units
from scalejax.fitting.reading import diagnoses
from scalejax.fitting.result import LEVEL, STORED, Interval, Scores, Seconds, dropped_reasons
from scalejax.laws import forms
from scalejax.laws.inference import design, identification, intervals, profile
from scalejax.laws.inference.replicates import NoiseFloor, lack_of_fit, noise_floor
from scalejax.laws.inference.verdict import Verdict, judge
from scalejax.laws.law import FRACTION, OFFSET, F, ParametricLaw
from scalejax.laws.solver import losses
from scalejax.laws.solver.losses import Loss
from scalejax.laws.solver.multistart import Optimum, find_optimum
from scalejax.laws.solver.problem import parameters_in_table_units

if TYPE_CHECKING:
    from pandas import DataFrame

# The parameter count that a law is about, where that is not the count with the head.
PARAMETER_COUNTS: dict[type, str] = {forms.Kaplan: "params_non_embedding"}

# The ending of columns that hold a standard error, such as loss_se.
STANDARD_ERROR = "_se"

# Rows times draws of the default bootstrap: ten seconds of a law with five parameters.
MAX_DRAWN_ROWS = 4_000_000

# With fewer draws, the ends of an interval move too much from one seed to the next. A
# verdict rests on at least as many, also where the caller asked for fewer or none.
MIN_DRAWS = 200


def fit(frame: "DataFrame", law: ParametricLaw[F], options: FitOptions) -> ParametricFit[F]:
    """Fit a law of one row per run; see `scalejax.fit`.

    frame: one row per run.  options: loss, weights, cluster and resample are read.

    Raises ValueError for options that are not read, for a table that cannot be read, or
    for fewer rows than free parameters.
    """
    options.check(law, ("loss", "weights", "cluster", "resample"))
    begin = time.perf_counter()
    law = _with_column_of_table(law, frame, options.columns)
    data = _read(frame, law, options)
    loss = losses.parse_loss(options.loss)
    weights = _weights(data, options.weights, loss)
    at = find_optimum(law, data.inputs, data.target, weights, loss)
    check_units(law, at, data.inputs)
    solved = time.perf_counter()
    judged = _judge(law, at, data, weights, options)
    fitted = _without_numbers(law, at, loss, data, judged, options)
    # The point at which a solver stopped without converging means nothing.
    if judged.verdict.label != "not-converged":
        fitted = _with_numbers(fitted, at, data, judged)
    seconds = Seconds(solve=solved - begin, uncertainty=time.perf_counter() - solved)
    return dataclasses.replace(fitted, seconds=seconds)


class _Data(NamedTuple):
    """The rows of a table that a law reads."""

    rows: "DataFrame"
    """The fitted rows."""
    inputs: list[np.ndarray]
    """The inputs of the fitted rows, each (rows,)."""
    target: np.ndarray
    held_out_inputs: list[np.ndarray]
    held_out_target: np.ndarray
    columns: dict[str, str]
    """The table's column of each input and the target."""
    complete: np.ndarray
    """Which rows of the table have finite values."""


def _read(frame: "DataFrame", law: ParametricLaw[Any], options: FitOptions) -> _Data:
    columns = with_parameter_count(law, frame, options.columns)
    read = tables.read_columns(frame, law.inputs, law.target, columns, law.signed)
    complete = frame.loc[read.complete]
    run = options.columns.get("run", "run")
    diagnoses.check_one_row_per_run(complete, run, options.cluster)
    if law.shares:
        diagnoses.check_shares(dict(zip(law.inputs, read.inputs, strict=True)))
    out = options.held_out_mask(len(frame))[read.complete]
    data = _Data(
        rows=complete.loc[~out],
        inputs=[x[~out] for x in read.inputs],
        target=read.target[~out],
        held_out_inputs=[x[out] for x in read.inputs],
        held_out_target=read.target[out],
        columns=read.names,
        complete=read.complete,
    )
    if len(data.target) < law.free:
        raise ValueError(
            f"the {law.name} law has {law.free} free parameters and needs as many rows; "
            f"{len(data.target)} of the {len(frame)} rows chosen can be fitted "
            "(none missing, infinite or held out)"
        )
    return data


def with_parameter_count(
    law: ParametricLaw[Any], frame: "DataFrame", columns: Mapping[str, str]
) -> dict[str, str]:
    """Name the count of params that a law is about, if the table has it.

    columns: our name of a column -> the table's. A count that is named stays.
    """
    count = PARAMETER_COUNTS.get(law.form, "")
    return ({"params": count} if count in frame.columns else {}) | dict(columns)


def _values(law: ParametricLaw[Any], data: _Data) -> dict[str, np.ndarray]:
    """The inputs and the target of the fitted rows by our names, (rows,) each."""
    return dict(zip((*law.inputs, law.target), (*data.inputs, data.target), strict=True))


class _Judged(NamedTuple):
    """Bootstrap draws, intervals and verdict of an optimum."""

    draws: resampling.Draws
    resampling: resampling.Resampling
    intervals: dict[str, Interval]
    verdict: Verdict
    noise: NoiseFloor | None
    quality: Quality
    reasons: list[str]
    """What the verdict, the design, the replicates and the bootstrap say."""


def _judge(
    law: ParametricLaw[Any], at: Optimum, data: _Data, weights: np.ndarray, options: FitOptions
) -> _Judged:
    points = replicates.design_points(data.rows, data.inputs, options.columns.get("seed", "seed"))
    floor = noise_floor(np.log(data.target), points, weights)
    chosen = resampling.choose(data.rows, options.cluster, options.resample)
    affordable = _affordable_draws(len(data.target))
    draw = partial(
        resampling.bootstrap_draws,
        *(law, at, data.rows),
        resampling=chosen,
        seed=options.seed,
        floor=floor,
    )
    draws = draw(count=options.draws(affordable))
    # A verdict does not depend on how many draws the caller asked for.
    is_enough = options.draws(affordable) >= MIN_DRAWS or not affordable
    judged = draws if is_enough else draw(count=MIN_DRAWS)
    failed = not resampling.converged_mask(judged.theta).any()
    ends, ratios = _intervals_and_ratios(law, at, judged)
    verdict = judge(law, at, data.inputs, ends, ratios)
    if judged is not draws:
        ends, _ = _intervals_and_ratios(law, at, draws)
    ends |= _ends_above_zero(law, at, data, ends, verdict)
    residuals = identification.linearize(law, at).residuals
    misfit = lack_of_fit(residuals, points, weights, law.free)
    names = {**options.columns, **data.columns}
    quality = Quality.of(law, at, data.rows, options.columns.get("run", "run"), misfit)
    reasons = [
        *tables.diagnose(data.rows, _values(law, data), law.target, names),
        *verdict.reasons,
        *design.held_reasons(law, data.target),
        *design.duplicate_reasons(data.inputs, data.target),
        *dropped_reasons(data.complete),
        *draws.notes,
        # Draws that only the verdict needs are told of if they failed.
        *(judged.notes if failed and not draws.notes else []),
        *_fewer_draws_reasons(options, len(data.target)),
        *quality.reasons(data.columns[law.target]),
        *replicates.lack_of_fit_reasons(misfit),
    ]
    # Whatever the draws say, nothing bounds a parameter that the rows leave free.
    ends |= {name: (None, None) for name in ends if name in verdict.undetermined}
    return _Judged(draws, chosen, ends, verdict, floor, quality, reasons)


def _affordable_draws(rows: int) -> int:
    """Number of bootstrap draws of a table that take seconds: the default."""
    draws = min(DEFAULT_DRAWS, MAX_DRAWN_ROWS // rows)
    return draws if draws >= MIN_DRAWS else 0


def _fewer_draws_reasons(options: FitOptions, rows: int) -> list[str]:
    """Say that a large table has fewer draws than others, unless the caller chose."""
    draws = _affordable_draws(rows)
    if options.bootstrap is not None or draws == DEFAULT_DRAWS:
        return []
    return [
        f"{draws or 'no'} bootstrap draws instead of {DEFAULT_DRAWS}, which would take long for "
        f"{rows} rows; --bootstrap {DEFAULT_DRAWS} makes them all"
    ]


def _intervals_and_ratios(
    law: ParametricLaw[Any], at: Optimum, draws: resampling.Draws
) -> tuple[dict[str, Interval], dict[str, float]]:
    """Intervals of the parameters, and the ratios of those of the sizes.

    Without draws both are empty. Draws none of which gave a fit leave every interval
    open.
    """
    fits = draws.theta[:, resampling.converged_mask(draws.theta)]
    ratios = intervals.size_ratios(law, at.problem, fits, LEVEL)
    if fits.shape[1]:
        return intervals.percentile_intervals(law, at.problem, fits, LEVEL), ratios
    tried, held = draws.theta.shape[1], dict(law.fixed)
    return {name: (None, None) for name in law.names if tried and name not in held}, ratios


def _ends_above_zero(
    law: ParametricLaw[Any],
    at: Optimum,
    data: _Data,
    ends: dict[str, Interval],
    verdict: Verdict,
) -> dict[str, Interval]:
    """Replace the upper ends of offsets that are zero by those of their profiles."""
    coordinates = dict(zip(law.names, law.coordinates, strict=True))
    replaced: dict[str, Interval] = {}
    for name in verdict.at_boundary:
        low, high = ends.get(name, (None, None))
        if high is None or coordinates[name] not in (OFFSET, FRACTION):
            continue
        end = profile.end_above_zero(law, at, data.inputs, data.target, name, LEVEL)
        replaced[name] = (low, None if end is None else max(high, end))
    return replaced


def _without_numbers(
    law: ParametricLaw[F],
    at: Optimum,
    loss: Loss,
    data: _Data,
    judged: _Judged,
    options: FitOptions,
) -> ParametricFit[F]:
    """The fit of a solver that did not converge: no parameters, intervals or scores."""
    limits = zip(law.inputs, data.inputs, strict=True)
    verdict = judged.verdict
    return ParametricFit(
        law=law,
        params=dict.fromkeys(law.names, np.nan),
        intervals={},
        objective=float(at.state.cost[0]) / loss.normalizer,
        gradient_norm=float(np.max(np.abs(at.state.gradient))) / loss.normalizer,
        starts_at_optimum=at.starts_at_optimum,
        n_rows=len(data.target),
        verdict=verdict.label,
        reasons=judged.reasons,
        loss=options.loss,
        columns=data.columns,
        condition=verdict.condition,
        at_boundary=verdict.at_boundary,
        noise=judged.noise,
        quality=judged.quality,
        seed=options.seed,
        clusters=judged.resampling.column,
        resample=judged.resampling.kind,
        ranges={name: (float(x.min()), float(x.max())) for name, x in limits},
        unvaried=design.unvaried(law, data.inputs) if verdict.undetermined else {},
        open_inputs=design.open_inputs(law, data.inputs, verdict.undetermined),
        optimum=at,
    )


def _with_numbers(
    fitted: ParametricFit[F], at: Optimum, data: _Data, judged: _Judged
) -> ParametricFit[F]:
    """The fit with its parameters, intervals, scores and draws."""
    law = fitted.law
    best = parameters_in_table_units(law, at.problem, at.theta[:, None])
    params = {name: float(np.ravel(value)[0]) for name, value in best._asdict().items()}
    holdout = Scores()
    if len(data.held_out_target):
        predicted = evaluate(law, params, data.held_out_inputs)
        holdout = Scores.of(predicted, data.held_out_target)
    scored = dataclasses.replace(
        fitted,
        params=params,
        intervals=judged.intervals,
        holdout=holdout,
        cross_validation=rolling_origin(law, at, data.inputs, data.target),
        views=_views(law, params),
    )
    drawn = judged.draws
    if not resampling.converged_mask(drawn.theta).any():
        return scored
    residuals = drawn.new_run
    if residuals is None:
        residuals = resampling.scaled_residuals(law, at)
    columns = _values(law, data)
    return dataclasses.replace(
        scored,
        draws=resampling.parameter_draws(law, at, drawn.theta),
        residuals=residuals[:STORED],
        assumption=drawn.assumption,
        rows=resampling.rows_digest(data.rows, columns.get("loss", data.target)),
    )


def _views(law: ParametricLaw[Any], params: dict[str, float]) -> dict[str, dict[str, float]]:
    """The fitted law in Chinchilla's letters, when it can be written so."""
    if not hasattr(law.form, "chinchilla"):
        return {}
    view = law.form(**params).chinchilla()
    return {"chinchilla": {name: float(value) for name, value in view._asdict().items()}}


def _with_column_of_table(
    law: ParametricLaw[F], frame: "DataFrame", named: Mapping[str, str]
) -> ParametricLaw[F]:
    """Replace the input "x" of a law of one column by the column of the table."""
    if law.inputs != ("x",):
        return law
    candidates = ("params", "tokens", "flops")
    choices = [name for name in candidates if name in named] or [
        name for name in candidates if name in frame.columns
    ]
    if len(choices) != 1:
        raise ValueError(
            f"the {law.name} law reads one of params, tokens and flops; the table has "
            f"{', '.join(choices) or 'none of them'}: name one, such as --columns params=THEIRS"
        )
    return dataclasses.replace(law, inputs=(choices[0],))


def _weights(data: _Data, column: str | None, loss: Loss) -> np.ndarray:
    """Return the row weights, (rows,): a column, or inverse variances."""
    if column is None:
        return np.ones(len(data.target))
    name = tables.column_for(data.rows, column)
    weights = tables.numeric_column(data.rows, name)
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(f"weights must be positive numbers; column {column!r} has others")
    if not name.endswith(STANDARD_ERROR):
        return weights
    # A residual of logarithms has the relative standard error.
    std = weights / data.target if loss.residual == "log" else weights
    return np.mean(std**2) / std**2
