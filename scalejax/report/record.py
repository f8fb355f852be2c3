"""The content of a study's folder: its tables, fits and forecasts."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, TypedDict, cast

import numpy as np

from scalejax.files import read_json, read_lines
from scalejax.fitting import fit as fits
from scalejax.fitting.result import Fit
from scalejax.fitting.tables import PARAMS_COLUMN

if TYPE_CHECKING:
    import pandas as pd

# A row of the results table by column. The type of a value depends on the column.
Row = Mapping[Hashable, Any]

# Without these a report cannot be written.
REQUIRED_STUDY_KEYS = ("name", "question", "runs", "forecast", "plan")
REQUIRED_COLUMNS = ("run", "status", PARAMS_COLUMN, "tokens", "loss")


class PlanSummary(TypedDict):
    """What study.json says about the plan, as far as the report uses it."""

    flops: float
    """Training FLOPs of the study."""
    flops_separate: float
    """Training FLOPs if no runs shared a trunk."""
    saved_fraction: float
    warnings: list[str]


class StudyFile(TypedDict):
    """The content of study.json."""

    name: str
    question: str
    """The docstring of the experiment file."""
    runs: list[str]
    """Ids of the runs that laws are fitted to."""
    forecast: list[str]
    """Ids of the runs to forecast."""
    trunks: NotRequired[dict[str, str]]
    """The trunk of each run, by the run's id; see `Plan.trunk_of`."""
    plan: PlanSummary
    unfitted: NotRequired[dict[str, str]]
    """Why a law could not be fitted, by the name of the law."""


class Forecast(TypedDict):
    """A registered forecast, as far as the report uses it."""

    run: str
    """`<study>/<run id>`."""
    law: str
    metric: str
    """`loss` or `top1_error`."""
    value: float
    low: float | None
    """Lower end of the prediction interval; None if the fit cannot bound it."""
    high: float | None
    """Upper end of the prediction interval; None if the fit cannot bound it."""
    level: float
    """Coverage of the interval, such as 0.95."""


class Score(TypedDict):
    """The measurement that a forecast is compared with."""

    measured: float
    error: float
    """`measured` minus the forecast value."""
    inside: bool
    """Whether `measured` lies in the forecast interval."""


class ScoredForecast(NamedTuple):
    """A forecast with its score, which is None until the run is done."""

    forecast: Forecast
    score: Score | None


@dataclass(frozen=True, kw_only=True)
class Record:
    """The content of a study's folder."""

    folder: Path
    study: StudyFile
    results: "pd.DataFrame"
    """results.parquet: one row per finished run."""
    curves: "pd.DataFrame | None"
    """curves.parquet: one row per logged step of every run."""
    forecasts: list[ScoredForecast]
    fits: dict[str, Fit]
    """Fits by the name of their file, which is the name of their law."""
    unreadable_fits: list[str]
    """Why files in fits/ could not be read."""

    @cached_property
    def converged(self) -> "pd.DataFrame":
        """Results of the runs that did not diverge."""
        is_done = self.results["status"] == "done"
        return self.results.loc[is_done & np.isfinite(self.results["loss"]), :]

    @property
    def fitted(self) -> "pd.DataFrame":
        """Results of the converged runs that laws are fitted to."""
        return self.converged.loc[~self.converged["run"].isin(self.study["forecast"]), :]

    @property
    def forecast_runs(self) -> "pd.DataFrame":
        """Results of the converged runs that were forecast."""
        return self.converged.loc[self.converged["run"].isin(self.study["forecast"]), :]

    @property
    def with_top1_error(self) -> "pd.DataFrame":
        """Results of the converged runs that measured a downstream task."""
        if "top1_error" not in self.converged:
            return self.converged.iloc[:0]
        return self.converged.dropna(subset=["top1_error"])

    @property
    def chance_error(self) -> float | None:
        """Top-1 error of guessing; None when the runs do not tell."""
        if "top1_chance" not in self.results:
            return None
        values = list(self.results["top1_chance"].dropna())
        return float(values[0]) if values else None

    @property
    def unfinished(self) -> list[str]:
        """Ids of the study's runs that have not finished."""
        finished = set(self.results["run"])
        planned = [*self.study["runs"], *self.study["forecast"]]
        return [run for run in planned if run not in finished]


def read_study(folder: Path) -> Record:
    """Read the folder of a study, OUT/<study>.

    Raises FileNotFoundError if it is not the folder of a study, and ValueError if no
    run has finished or a table is damaged.
    """
    import pandas as pd

    study_path, results_path = folder / "study.json", folder / "results.parquet"
    if not study_path.is_file():
        raise FileNotFoundError(
            f"{folder} is not the folder of a study: it has no study.json; give OUT/<study>"
        )
    if not results_path.is_file():
        raise FileNotFoundError(
            f"{folder} has nothing to report yet: it has no results.parquet, which "
            "`scalejax run` writes when runs finish"
        )
    study, results = read_json(study_path), pd.read_parquet(results_path)
    if not len(results):
        raise ValueError(f"{folder} has no finished run to report on; run the study first")
    _check_complete(study_path, study, REQUIRED_STUDY_KEYS)
    _check_complete(results_path, list(results.columns), REQUIRED_COLUMNS)
    curves_path = folder / "curves.parquet"
    readable, unreadable = _read_fits(folder / "fits")
    return Record(
        folder=folder,
        study=cast(StudyFile, study),
        results=results,
        curves=pd.read_parquet(curves_path) if curves_path.is_file() else None,
        forecasts=_with_scores(read_lines(folder / "forecasts.jsonl")),
        fits=readable,
        unreadable_fits=unreadable,
    )


def _check_complete(
    path: Path, names: Mapping[str, Any] | Sequence[str], required: Sequence[str]
) -> None:
    if missing := [name for name in required if name not in names]:
        raise ValueError(f"{path} lacks {', '.join(missing)}; `scalejax run` writes it again")


def _read_fits(folder: Path) -> tuple[dict[str, Fit], list[str]]:
    """Fit by name, and why the other files could not be read."""
    readable, unreadable = {}, []
    for path in sorted(folder.glob("*.json")):
        try:
            readable[path.stem] = fits.load(path)
        except ValueError as error:
            unreadable.append(str(error))
    return readable, unreadable


def _with_scores(lines: list[dict[str, Any]]) -> list[ScoredForecast]:
    """The forecasts in the ledger, each with the score of the same id."""
    scores = {line["id"]: cast(Score, line) for line in lines if line["kind"] == "score"}
    return [
        ScoredForecast(cast(Forecast, line), scores.get(line["id"]))
        for line in lines
        if line["kind"] == "forecast"
    ]
