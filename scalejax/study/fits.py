"""Fit the laws of a study, and register what they forecast."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scalejax.config import Run
from scalejax.fitting import chain
from scalejax.fitting.fit import fit
from scalejax.fitting.result import Estimate, Fit
from scalejax.fitting.tables import PARAMS_COLUMN
from scalejax.grids import run_id
from scalejax.model.transformer import counts
from scalejax.study import ledger
from scalejax.study.study import Study

if TYPE_CHECKING:
    import pandas as pd


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
    (folder / "fits").mkdir(exist_ok=True)
    # An earlier call may have fitted other laws, or fewer runs.
    for old in (folder / "fits").glob("*.json"):
        old.unlink()
    fits, unfitted = {}, {}
    for law in study.laws:
        # When runs failed, too few rows may be left for a law. The study still ends
        # with its tables, its other laws and its report.
        try:
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


def register_forecasts(
    study: Study, fits: dict[str, Fit], rows: "pd.DataFrame", folder: Path
) -> list[str]:
    """Register what the fits predict for every run of `Study.forecast`.

    Call this before any of those runs starts. rows: what the laws were fitted to.
    Returns the ids of runs that had started: their forecasts are not registered.
    """
    late: dict[str, None] = {}
    for run in study.forecast:
        for prediction in _predictions(run, fits):
            registered = ledger.register(
                folder,
                run=f"{study.name}/{run_id(run)}",
                law="+".join(prediction.laws),
                metric=prediction.metric,
                estimate=prediction.estimate,
                fits=[_fit_file(folder, law) for law in prediction.laws],
                rows=rows,
            )
            if not registered:
                late[run_id(run)] = None
    return list(late)


def _predictions(run: Run, fits: dict[str, Fit]) -> list[Prediction]:
    """What every law and every chain of two laws predicts for a run.

    A law of params and tokens predicts the loss. Chained to a law of the error against
    the loss, it also predicts the top-1 error.
    """
    known = {"params", "tokens"}
    loss_laws = [
        name
        for name, one in fits.items()
        if one.law.target == "loss" and set(one.law.inputs) <= known
    ]
    error_laws = [
        name
        for name, one in fits.items()
        if one.law.target == "top1_error" and one.law.inputs == ("loss",)
    ]
    predictions = []
    for name in loss_laws:
        inputs = run_inputs(run, fits[name])
        predictions.append(Prediction((name,), "loss", fits[name].predict(**inputs)))
        for error_law in error_laws:
            # The error's interval must include the error of the predicted loss.
            estimate = chain.predict(fits[name], fits[error_law], **inputs)
            predictions.append(Prediction((name, error_law), "top1_error", estimate))
    return predictions


def run_inputs(run: Run, fit: Fit) -> dict[str, float]:
    """The inputs of a fit for a run, with its parameters counted as the fit counts."""
    count = fit.columns.get("params", PARAMS_COLUMN)
    known = {"params": getattr(counts(run.model), count), "tokens": run.tokens_read}
    return {name: known[name] for name in fit.law.inputs}


def _fit_file(folder: Path, law: str) -> Path:
    return folder / "fits" / f"{law}.json"
