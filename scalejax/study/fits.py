"""Fit the laws of a study, and register what they forecast."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scalejax.config import Run
from scalejax.data.batches import batches, unique_tokens
from scalejax.data.preparation import prepare
from scalejax.files import make_folder
from scalejax.fitting import chain
from scalejax.fitting.curves.result import CurveFit
from scalejax.fitting.extrapolation import distance
from scalejax.fitting.fit import fit, load
from scalejax.fitting.parametric.result import ParametricFit
from scalejax.fitting.result import Estimate, Fit, Forecast
from scalejax.fitting.tables import PARAMS_COLUMN
from scalejax.grids import run_id
from scalejax.launch.claims import Claims
from scalejax.launch.jobs import read_plan
from scalejax.laws.curves.laws import CurveLaw
from scalejax.laws.law import Law
from scalejax.model.transformer import counts
from scalejax.optim.schedules import learning_rates
from scalejax.study import ledger
from scalejax.study.results import whole_curves
from scalejax.study.study import Study

if TYPE_CHECKING:
    import pandas as pd

# The most draws behind the intervals of a whole-curve law: each refits all curves.
MAX_CURVE_DRAWS = 200


class StudyFits(NamedTuple):
    """The laws of a study, fitted to its runs."""

    fits: dict[str, Fit]
    """Fits by the name of their law."""
    unfitted: dict[str, str]
    """Why a law could not be fitted, by the name of the law."""


class Prediction(NamedTuple):
    """What one law, or a chain of two, predicts for one run."""

    laws: tuple[str, ...]
    """The law's name; for a chain, the law of the loss and then the law of the
    error."""
    metric: str
    """`loss` or `top1_error`."""
    estimate: Estimate
    distance: float | None
    """How far the run is beyond the fitted rows; see `ledger_lines.Forecast`."""


def rows_to_fit(results: "pd.DataFrame", study: Study) -> "pd.DataFrame":
    """The rows that laws are fitted to: runs of `Study.runs` that are done.

    Runs that diverged are left out, and so are the runs to forecast.
    """
    if not len(results):
        return results
    fitted_runs = [run_id(run) for run in study.runs]
    return results.loc[results["run"].isin(fitted_runs) & (results["status"] == "done"), :]


def fit_laws(study: Study, rows: "pd.DataFrame", folder: Path) -> StudyFits:
    """Fit every law of the study to `rows` and save each fit as `fits/<law>.json`."""
    make_folder(folder / "fits")
    # An earlier call may have fitted other laws, or fewer runs.
    for old in (folder / "fits").glob("*.json"):
        old.unlink()
    fits, unfitted = {}, {}
    for law in study.laws:
        # When runs failed, too few rows may be left for a law. The study still ends
        # with its tables, its other laws and its report.
        try:
            if isinstance(law, CurveLaw):
                law_fit = _fit_curves(law, rows, folder, study.bootstrap)
            else:
                law_fit = fit(rows, law, bootstrap=study.bootstrap)
        except ValueError as error:
            unfitted[law.name] = str(error)
            continue
        if law_fit.verdict == "not-converged":
            unfitted[law.name] = "; ".join(law_fit.reasons)
            continue
        law_fit.save(_fit_file(folder, law.name))
        fits[law.name] = law_fit
    return StudyFits(fits, unfitted)


def _fit_curves(law: CurveLaw, rows: "pd.DataFrame", folder: Path, bootstrap: int) -> CurveFit:
    """Fit a whole-curve law to the curves of the runs in `rows`, clustered by trunk."""
    sizes = len({*rows[PARAMS_COLUMN]})
    if sizes > 1 and "params" not in law.inputs:
        raise ValueError(
            f"the {law.name} law is one of a single model size, and the runs have {sizes}; use "
            "laws.annealing_size(), or one study for each size"
        )
    losses, schedules = whole_curves(folder)
    of_run = rows.set_index("run")
    curves = losses.loc[losses["curve"].isin(rows["run"]), :]
    for column in ("trunk", PARAMS_COLUMN):
        curves = curves.assign(**{column: curves["curve"].map(of_run[column])})
    # No law holds during warmup, which ends where the rate is first at its peak.
    rates = schedules.groupby("curve")["learning_rate"]
    peaks = {name: int(np.argmax(of_curve)) for name, of_curve in rates}
    curves = curves.loc[curves["step"] >= curves["curve"].map(peaks), :]
    # What branches have in common with their trunk was measured once.
    curves = curves.drop_duplicates(["trunk", "step", "loss"])
    draws = min(bootstrap, MAX_CURVE_DRAWS)
    return fit(curves, law, schedules=schedules, cluster="trunk", bootstrap=draws)


def register_forecasts(
    study: Study, fits: dict[str, Fit], rows: "pd.DataFrame", folder: Path
) -> list[str]:
    """Register what the fits predict for every run of `Study.forecast`.

    Call this before any of those runs starts. rows: what the laws were fitted to.
    Returns what is not registered, and why, a sentence each: the forecasts of runs that
    have started, and errors that no run can have.
    """
    left_out: dict[str, None] = {}
    for run in study.forecast:
        for prediction in _predictions(run, fits):
            law, value = "+".join(prediction.laws), prediction.estimate.value
            if prediction.metric == "top1_error" and not 0 <= value <= 1:
                reason = (
                    f"no forecast of the top-1 error of run {run_id(run)} by {law}: the law gives "
                    f"{value:.3g}, and an error is between 0 and 1"
                )
                left_out[reason] = None
                continue
            registered = ledger.register(
                folder,
                run=f"{study.name}/{run_id(run)}",
                law=law,
                metric=prediction.metric,
                estimate=prediction.estimate,
                distance=prediction.distance,
                fits=[_fit_file(folder, law) for law in prediction.laws],
                rows=rows,
            )
            if not registered:
                reason = (
                    f"run {run_id(run)} has started, so no forecast of it is registered any more"
                )
                left_out[reason] = None
    return list(left_out)


def _predictions(run: Run, fits: dict[str, Fit]) -> list[Prediction]:
    """What every law of the loss predicts for a run, and what follows for its error.

    A law of the run's size and tokens, chained to a law of the error against the loss,
    also predicts the top-1 error. A whole-curve law predicts the loss of the last step.
    """
    predictions = []
    for name, fitted in fits.items():
        if not _forecasts_runs(fitted.law):
            continue
        inputs = run_inputs(run, fitted)
        forecast = fitted.forecast(**inputs)
        far = _distance(fitted, forecast)
        predictions.append(Prediction((name,), "loss", forecast.estimate, far))
        if isinstance(fitted.law, CurveLaw):
            continue
        for error_name, error_law in fits.items():
            if error_law.law.target == "top1_error" and error_law.law.inputs == ("loss",):
                # The error's interval must include the error of the predicted loss.
                estimate = chain.predict(fitted, error_law, **inputs)
                predictions.append(Prediction((name, error_name), "top1_error", estimate, far))
    return predictions


def _forecasts_runs(law: Law) -> bool:
    """Whether a law predicts the loss from what is known before a run starts."""
    known = {"params", "tokens", "unique_tokens", "learning_rate"}
    return law.target == "loss" and bool(law.inputs) and set(law.inputs) <= known


def register_run(run_folder: Path, fit_path: Path, law: Law | None = None) -> Estimate:
    """Register what a saved fit predicts for one run of a study that has not started.

    run_folder: OUT/<study>/runs/<id>, which need not exist yet.
    law: the law of the fit if it is your own.

    Raises ValueError when the study has no such run, when the run has started, or when
    the law needs more than the run's size and tokens.
    """
    study, name = run_folder.absolute().parent.parent, run_folder.name
    runs = {job.segment.id: job.segment.run for job in read_plan(study) if job.segment.final}
    if name not in runs:
        raise ValueError(
            f"{run_folder} is not the folder of a run that {study.name} plans; expected "
            f"{study / 'runs'}/<id> with an id that `scalejax status {study}` lists"
        )
    fitted = load(fit_path, law)
    if not _forecasts_runs(fitted.law):
        raise ValueError(
            f"{fit_path} predicts {fitted.law.target} from {', '.join(fitted.law.inputs)}; the "
            "forecast of a run needs a law of the loss by params and tokens"
        )
    ledger.check_ledger(study)
    forecast = fitted.forecast(**run_inputs(runs[name], fitted))
    # While this process holds the claim, nobody can start the run.
    claim = Claims(study).take(name)
    with claim or contextlib.nullcontext():
        registered = claim is not None and ledger.register(
            study,
            run=f"{study.name}/{name}",
            law=fitted.law.name,
            metric="loss",
            estimate=forecast.estimate,
            distance=_distance(fitted, forecast),
            fits=[fit_path],
            rows=None,
        )
    if not registered:
        raise ValueError(
            f"run {name} has started, so what a law says of it is no forecast any more; register "
            f"forecasts of runs that `scalejax status {study}` lists as waiting"
        )
    return forecast.estimate


def run_inputs(run: Run, fit: Fit) -> dict[str, Any]:
    """The inputs of a fit for a run, which need not have started.

    Raises ValueError when the fit does not say how it counts parameters.
    """
    inputs: dict[str, Any] = {"tokens": run.tokens_read}
    if "params" in fit.law.inputs:
        inputs["params"] = _params_as_fitted(run, fit)
    if "unique_tokens" in fit.law.inputs:
        rows = batches(prepare(run.data), run)
        inputs["unique_tokens"] = unique_tokens(rows, run, run.tokens_read)
    read = {name: inputs[name] for name in fit.law.inputs if name in inputs}
    return read | ({"learning_rates": learning_rates(run)} if isinstance(fit, CurveFit) else {})


def _params_as_fitted(run: Run, fit: Fit) -> int:
    """The run's parameters, counted as in the table of the fit."""
    column, count = fit.columns.get("params", PARAMS_COLUMN), counts(run.model)
    if column not in count._fields:
        raise ValueError(
            f"the law was fitted to parameters in the column {column!r}, which does not say "
            "whether embeddings and the head count; fit it to a column named "
            f"{', '.join(count._fields)}"
        )
    return getattr(count, column)


def _distance(fit: Fit, forecast: Forecast) -> float | None:
    """How far a forecast extrapolates; None for a fit that does not say."""
    if not isinstance(fit, ParametricFit | CurveFit) or not fit.ranges:
        return None
    return distance(forecast.run, fit.ranges)


def _fit_file(folder: Path, law: str) -> Path:
    return folder / "fits" / f"{law}.json"
