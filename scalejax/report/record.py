"""The content of a study's folder: its tables, fits and forecasts."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast

import numpy as np

from scalejax.files import read_json, wrong_field
from scalejax.fitting import fit as fits
from scalejax.fitting.reading.files import read_parquet
from scalejax.fitting.result import Fit
from scalejax.fitting.tables import PARAMS_COLUMN
from scalejax.report.analysis import Analysis, read_analysis
from scalejax.report.ledger_lines import ScoredForecast, read_ledger, scored_forecasts
from scalejax.report.run_facts import run_facts

if TYPE_CHECKING:
    import pandas as pd

# A row of the results table by column. The type of a value depends on the column.
Row = Mapping[Hashable, Any]

# Without these a report cannot be written.
REQUIRED_STUDY_KEYS = ("name", "question", "runs", "forecast", "plan")
# Columns of results.parquet and curves.parquet that must hold numbers.
NUMBER_COLUMNS = {PARAMS_COLUMN, "tokens", "step", "loss", "train_loss", "top1_error"}
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


@dataclass(frozen=True, kw_only=True)
class Record:
    """The content of a study's folder."""

    folder: Path
    study: StudyFile
    results: "pd.DataFrame"
    """results.parquet: one row per finished run, with text about it in `facts`."""
    curves: "pd.DataFrame | None"
    """curves.parquet: one row per logged step of every run."""
    forecasts: list[ScoredForecast]
    fits: dict[str, Fit]
    """Fits by the name of their file, which is the name of their law."""
    unreadable_fits: list[str]
    """Why files in fits/ could not be read."""
    analysis: Analysis | None = None
    """What the study concludes, if it has an analysis."""

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
        finished = {*self.results["run"], *self.untabled}
        planned = [*self.study["runs"], *self.study["forecast"]]
        return [run for run in planned if run not in finished]

    @cached_property
    def untabled(self) -> list[str]:
        """Ids of runs that have finished since the tables were written."""
        tabled = {*self.results["run"]}
        return [
            run
            for run in [*self.study["runs"], *self.study["forecast"]]
            if run not in tabled and (self.folder / "runs" / run / "DONE").is_file()
        ]


def read_study(folder: Path) -> Record:
    """Read the folder of a study, OUT/<study>.

    Raises FileNotFoundError if it is not the folder of a study, and ValueError if no
    run has finished or a table is damaged.
    """
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
    study, results = read_json(study_path), _read_table(results_path)
    if not len(results):
        raise ValueError(f"{folder} has no finished run to report on; run the study first")
    _check_complete(study_path, study, REQUIRED_STUDY_KEYS)
    _check_study(study_path, study)
    _check_complete(results_path, list(results.columns), REQUIRED_COLUMNS)
    curves_path = folder / "curves.parquet"
    readable, unreadable = _read_fits(folder / "fits")
    return Record(
        folder=folder,
        study=cast(StudyFile, study),
        results=results.assign(facts=run_facts(results)),
        curves=_read_table(curves_path) if curves_path.is_file() else None,
        forecasts=scored_forecasts(read_ledger(folder)),
        fits=readable,
        unreadable_fits=unreadable,
        analysis=read_analysis(folder),
    )


def _check_complete(
    path: Path, names: Mapping[str, Any] | Sequence[str], required: Sequence[str]
) -> None:
    if missing := [name for name in required if name not in names]:
        raise ValueError(f"{path} lacks {', '.join(missing)}; `scalejax run` writes it again")


def _check_study(path: Path, study: Mapping[str, Any]) -> None:
    """Raise ValueError for a study.json with a field of the wrong type."""
    texts, number = "a list of texts", (int, float)
    kinds = {"name": str, "question": str, "runs": list, "forecast": list, "plan": dict}
    plan_kinds = {"flops": number, "flops_separate": number, "saved_fraction": number}
    wrong = wrong_field(study, kinds) or wrong_field(study["plan"], plan_kinds)
    lists = {
        "runs": study["runs"],
        "forecast": study["forecast"],
        "warnings": study["plan"].get("warnings") if isinstance(study["plan"], dict) else None,
    }
    for name, values in lists.items():
        is_texts = isinstance(values, list) and all(isinstance(value, str) for value in values)
        wrong = wrong or ("" if is_texts else f"{name}, which must be {texts},")
    unfitted = study.get("unfitted", {})
    if not isinstance(unfitted, dict) or not all(isinstance(v, str) for v in unfitted.values()):
        wrong = wrong or "unfitted"
    if wrong:
        raise ValueError(
            f"{path} is damaged: the field {wrong} has a value that it cannot have; `scalejax run` "
            "writes it again"
        )


def _read_table(path: Path) -> "pd.DataFrame":
    """A table of the study. Raises ValueError, naming the file, when it is damaged."""
    import pandas as pd

    try:
        table = read_parquet(path)
        # A standard error is None where a single document was read, and a training loss
        # where every step was skipped; a column of None holds no floats as it is.
        numbers = [name for name in table.columns if name.endswith("_se") or name in NUMBER_COLUMNS]
        return table.astype(
            {name: float for name in numbers if not pd.api.types.is_numeric_dtype(table[name])}
        )
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged ({reason}); `scalejax run` writes it again") from error


def _read_fits(folder: Path) -> tuple[dict[str, Fit], list[str]]:
    """Fit by name, and why the other files could not be read."""
    readable, unreadable = {}, []
    for path in sorted(folder.glob("*.json")):
        try:
            readable[path.stem] = fits.load(path)
        except ValueError as error:
            unreadable.append(str(error))
    return readable, unreadable
