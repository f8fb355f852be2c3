"""The ledger of forecasts: registered before a run starts, scored when it is done.

The ledger is `forecasts.jsonl` in the study's folder. Lines are only ever added to it,
so a forecast cannot be changed once the truth is known.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict, cast

import numpy as np

from scalejax.files import append_lines, read_lines
from scalejax.training.result import code_version
from scalejax.training.status import utc_now

if TYPE_CHECKING:
    import pandas as pd

    from scalejax.fitting.result import Estimate

LEDGER = "forecasts.jsonl"

# The columns of the fitted rows that a forecast depends on, as far as a table has them.
HASHED_COLUMNS = ("run", "params_with_head", "tokens", "loss", "top1_error")


class Forecast(TypedDict):
    """A line of the ledger that registers a forecast."""

    kind: str
    """`forecast`."""
    id: str
    """sha256 of the run, the law, the metric and the fitted rows."""
    run: str
    """`<study>/<run id>`."""
    law: str
    """Name of the law; of a chain, the names joined by `+`."""
    metric: str
    """`loss` or `top1_error`."""
    value: float
    low: float | None
    """Lower end of the prediction interval; None if the fit cannot bound it."""
    high: float | None
    """Upper end of the prediction interval; None if the fit cannot bound it."""
    level: float
    """Coverage of the interval, such as 0.95."""
    fit_sha256: str
    """sha256 of the files of the fits that made the forecast."""
    rows_sha256: str
    """sha256 of the rows that the fits used."""
    code: str
    """Version of scalejax."""
    created: str
    """Time of registration, ISO 8601 in UTC."""


class Score(TypedDict):
    """A line of the ledger that scores the forecast of the same id."""

    kind: str
    """`score`."""
    id: str
    measured: float
    """What the run measured."""
    error: float
    """`measured` minus the forecast value."""
    inside: bool
    """Whether `measured` lies in the forecast interval."""
    created: str
    """Time of scoring, ISO 8601 in UTC."""


class ScoredForecast(NamedTuple):
    """A forecast with its score, which is None until the run is done."""

    forecast: Forecast
    score: Score | None


def register(
    folder: Path,
    *,
    run: str,
    law: str,
    metric: str,
    estimate: "Estimate",
    fits: Sequence[Path],
    rows: "pd.DataFrame",
) -> str:
    """Add a forecast to the ledger, unless it is already there, and return its id.

    run: `<study>/<run id>`.
    law, metric: what predicts, and what is predicted.
    fits: the files of the fits that made the forecast; several for a chain of laws.
    rows: the rows that the fits used.

    The id is the sha256 of run, law, metric and rows. A study that resumes after a kill
    therefore registers no forecast twice.
    """
    rows_sha256 = hash_rows(rows)
    key = hashlib.sha256(json.dumps([run, law, metric, rows_sha256]).encode()).hexdigest()
    if any(line["id"] == key for line in read_lines(folder / LEDGER)):
        return key
    fit_files = b"".join(path.read_bytes() for path in fits)
    forecast: Forecast = {
        "kind": "forecast",
        "id": key,
        "run": run,
        "law": law,
        "metric": metric,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "level": estimate.level,
        "fit_sha256": hashlib.sha256(fit_files).hexdigest(),
        "rows_sha256": rows_sha256,
        "code": code_version(),
        "created": utc_now(),
    }
    append_lines(folder / LEDGER, [dict(forecast)])
    return key


def score(folder: Path, results: "pd.DataFrame") -> list[ScoredForecast]:
    """Score the forecasts whose runs are done; return all forecasts with their scores.

    results: the results table of the study. A forecast of a run that diverged, or whose
    metric was not measured, stays without a score.
    """
    lines = read_lines(folder / LEDGER)
    forecasts = [cast(Forecast, line) for line in lines if line["kind"] == "forecast"]
    scores = {line["id"]: cast(Score, line) for line in lines if line["kind"] == "score"}
    rows = {row["run"]: row for row in results.to_dict("records")}
    for forecast in forecasts:
        _, _, run = forecast["run"].rpartition("/")
        if forecast["id"] in scores or run not in rows or rows[run]["status"] != "done":
            continue
        measured = float(rows[run][forecast["metric"]])
        if np.isfinite(measured):
            new_score = _score(forecast, measured)
            append_lines(folder / LEDGER, [dict(new_score)])
            scores[forecast["id"]] = new_score
    return [ScoredForecast(forecast, scores.get(forecast["id"])) for forecast in forecasts]


def hash_rows(rows: "pd.DataFrame") -> str:
    """The sha256 of HASHED_COLUMNS to the last bit, whatever the order of the rows."""
    columns = [name for name in HASHED_COLUMNS if name in rows]
    texts = [
        json.dumps([str(value) for value in row]) for row in rows[columns].itertuples(index=False)
    ]
    return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()


def _score(forecast: Forecast, measured: float) -> Score:
    low, high = forecast["low"], forecast["high"]
    # An interval that is open at one end contains everything on that side.
    above_low = low is None or low <= measured
    below_high = high is None or measured <= high
    return {
        "kind": "score",
        "id": forecast["id"],
        "measured": measured,
        "error": measured - forecast["value"],
        "inside": above_low and below_high,
        "created": utc_now(),
    }
