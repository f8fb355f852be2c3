"""The ledger of a study's forecasts: what its lines hold, and how they are read.

`scalejax.study.ledger` writes them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict, cast

from scalejax.files import broken_link, read_lines, wrong_field

# The name of the ledger in the study's folder.
LEDGER = "forecasts.jsonl"

NUMBER = (int, float)
OPTIONAL_NUMBER = (int, float, type(None))
# The fields of each kind of line that readers use, with their types.
FIELDS: dict[str, dict[str, Any]] = {
    "forecast": {
        "id": str,
        "run": str,
        "law": str,
        "metric": str,
        "value": NUMBER,
        "low": OPTIONAL_NUMBER,
        "high": OPTIONAL_NUMBER,
        "level": NUMBER,
    },
    "score": {"id": str, "measured": NUMBER, "error": NUMBER, "inside": (bool, type(None))},
}


class Forecast(TypedDict):
    """A line that registers a forecast."""

    kind: str
    """`forecast`."""
    id: str
    """sha256 of the run, the law with what it holds and ties, the metric and the fitted
    rows."""
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
    distance: NotRequired[float | None]
    """The largest factor by which an input of the law lies beyond the fitted rows, 1
    within them; None if the fit does not say. Old ledgers lack it."""
    fit_sha256: str
    """sha256 of the files of the fits that made the forecast, without their timings."""
    rows_sha256: str
    """sha256 of the rows that the fits used; empty if only the fits are at hand."""
    code: str
    """Version of scalejax."""
    created: str
    """Time of registration, ISO 8601 in UTC."""


class Score(TypedDict):
    """A line that scores the forecast of the same id."""

    kind: str
    """`score`."""
    id: str
    measured: float
    """What the run measured."""
    error: float
    """`measured` minus the forecast value."""
    inside: bool | None
    """Whether `measured` lies in the forecast interval; None if it has none."""
    created: str
    """Time of scoring, ISO 8601 in UTC."""


class ScoredForecast(NamedTuple):
    """A forecast with its score, which is None until the run is done."""

    forecast: Forecast
    score: Score | None


def read_ledger(folder: Path) -> list[dict[str, Any]]:
    """The lines of forecasts.jsonl in a study's folder; none when there is no file.

    Raises ValueError, with file and line, for a line that is no forecast and no score.
    """
    path = folder / LEDGER
    lines = read_lines(path)
    for number, line in enumerate(lines, start=1):
        kind = line.get("kind")
        fields = FIELDS.get(kind) if isinstance(kind, str) else None
        # Ledgers are kept for years, and the early ones have no distances.
        optional = {"distance": OPTIONAL_NUMBER} if "distance" in line else {}
        wrong = wrong_field(line, fields | optional) if fields else "kind"
        if wrong:
            raise ValueError(
                f"{path}, line {number}: the field {wrong} is missing or has a value that it "
                "cannot have; lines are only ever added to this file by scalejax, so restore it"
            )
    return lines


def scored_forecasts(lines: Sequence[dict[str, Any]]) -> list[ScoredForecast]:
    """The forecasts among the lines of a ledger, each with the score of the same id."""
    scores = {line["id"]: cast(Score, line) for line in lines if line["kind"] == "score"}
    return [
        ScoredForecast(cast(Forecast, line), scores.get(line["id"]))
        for line in lines
        if line["kind"] == "forecast"
    ]


def change_by_hand(folder: Path) -> str:
    """Say which line shows that the ledger was changed by hand; empty if none does."""
    number = broken_link(folder / LEDGER)
    if number is None:
        return ""
    return f"line {number} does not carry the hash of the line before it, or its own"
