"""What the folder of a study holds once runs have finished: its tables, fits and forecasts, read together."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scalejax.files import read_json, read_lines
from scalejax.fitting import fit as fits
from scalejax.fitting.result import Fit
from scalejax.fitting.tables import PARAMS_COLUMN as SIZE
from scalejax.report import figures

if TYPE_CHECKING:
    import pandas as pd

STUDY_KEYS = ("name", "question", "runs", "forecast", "plan")
RESULT_COLUMNS = ("run", "status", SIZE, "tokens", "loss")


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a study's folder holds."""

    folder: Path
    study: dict[str, Any]
    """study.json."""
    results: "pd.DataFrame"
    """One row per finished run."""
    curves: "pd.DataFrame | None"
    forecasts: list[dict[str, Any]]
    """Forecast lines, each with its score's `measured`, `error` and `inside` when there is one."""
    fits: dict[str, Fit]
    unreadable: list[str]
    """Why a file of fits/ is not among `fits`."""

    @cached_property
    def done(self) -> "pd.DataFrame":
        """Rows of the runs that did not diverge."""
        return self.results.loc[
            (self.results["status"] == "done") & np.isfinite(self.results["loss"]), :
        ]

    @property
    def fitted(self) -> "pd.DataFrame":
        """Rows of `done` that laws are fitted to."""
        return self.done.loc[~self.done["run"].isin(self.study["forecast"]), :]

    @property
    def held_out(self) -> "pd.DataFrame":
        """Rows of `done` that were forecast."""
        return self.done.loc[self.done["run"].isin(self.study["forecast"]), :]

    @property
    def with_error(self) -> "pd.DataFrame":
        """Rows of `done` whose downstream task was measured."""
        return (
            self.done.dropna(subset=["top1_error"])
            if "top1_error" in self.done
            else self.done.iloc[:0]
        )

    @property
    def chance(self) -> float | None:
        """Top-1 error of guessing; None when the runs do not say."""
        known = list(self.results["top1_chance"].dropna()) if "top1_chance" in self.results else []
        return float(known[0]) if known else None

    @property
    def unfinished(self) -> list[str]:
        """Runs of the study without a row."""
        finished = set(self.results["run"])
        return [
            run for run in [*self.study["runs"], *self.study["forecast"]] if run not in finished
        ]

    @cached_property
    def sizes(self) -> dict[float, str]:
        """Colour of every model size."""
        return figures.colours(self.results[SIZE])


def read_study(folder: Path) -> Record:
    """Reads OUT/<study>.

    Raises FileNotFoundError when it is no study's folder, ValueError when nothing in it has finished or a table is damaged.
    """
    import pandas as pd

    for name, made_by in (
        ("study.json", "give OUT/<study>"),
        ("results.parquet", "`scalejax run` writes it when runs finish"),
    ):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} is no study's folder to report on: it has no {name}; {made_by}"
            )
    study, results = read_json(folder / "study.json"), pd.read_parquet(folder / "results.parquet")
    if not len(results):
        raise ValueError(f"{folder} has no finished run to report on; run the study first")
    for name, needed, given in (
        ("study.json", STUDY_KEYS, study),
        ("results.parquet", RESULT_COLUMNS, results),
    ):
        if lacking := [key for key in needed if key not in given]:
            raise ValueError(
                f"{folder / name} lacks {', '.join(lacking)}; `scalejax run` writes it anew"
            )
    has_curves = (folder / "curves.parquet").is_file()
    found, unreadable = {}, []
    for path in sorted((folder / "fits").glob("*.json")):
        try:
            found[path.stem] = fits.load(path)
        except ValueError as error:
            unreadable.append(str(error))
    return Record(
        folder=folder,
        study=study,
        results=results,
        curves=pd.read_parquet(folder / "curves.parquet") if has_curves else None,
        forecasts=_scored(read_lines(folder / "forecasts.jsonl")),
        fits=found,
        unreadable=unreadable,
    )


def _scored(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Forecast lines joined with their scores."""
    scores = {
        line["id"]: {key: line[key] for key in ("measured", "error", "inside")}
        for line in lines
        if line["kind"] == "score"
    }
    return [line | scores.get(line["id"], {}) for line in lines if line["kind"] == "forecast"]
