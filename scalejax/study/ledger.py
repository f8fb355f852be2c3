"""The ledger of forecasts: registered before a run starts, scored when it is done.

The ledger is `forecasts.jsonl` in the study's folder. Lines are only ever added to it,
and each carries the hash of the line before, so that a later change shows.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scalejax.files import append_chained, content_hash
from scalejax.report.ledger_lines import (
    LEDGER,
    Forecast,
    Score,
    ScoredForecast,
    change_by_hand,
    read_ledger,
    scored_forecasts,
)
from scalejax.training.result import code_version
from scalejax.training.status import utc_now

if TYPE_CHECKING:
    import pandas as pd

    from scalejax.fitting.result import Estimate

# The columns of the fitted rows that a forecast depends on, as far as a table has them.
HASHED_COLUMNS = ("run", "params_with_head", "tokens", "loss", "top1_error")


def register(
    folder: Path,
    *,
    run: str,
    law: str,
    metric: str,
    estimate: "Estimate",
    distance: float | None,
    fits: Sequence[Path],
    rows: "pd.DataFrame | None",
) -> bool:
    """Add a forecast to the ledger; return whether the ledger has it now.

    A forecast that is there already is not added again, and one whose run has started
    is not registered any more.

    run: `<study>/<run id>`.
    law, metric: what predicts, and what is predicted.
    fits: the files of the fits that made the forecast; several for a chain of laws.
    rows: the rows that the fits used; None if only the fits are at hand.
    distance: see `Forecast`.

    The forecast's id is the sha256 of run, law with what it holds, metric and rows (or
    fits). A study that resumes after a kill therefore registers no forecast twice.
    """
    fit_sha256 = _hash_fits(fits)
    rows_sha256 = "" if rows is None else hash_rows(rows)
    content = json.dumps([run, law, metric, rows_sha256 or fit_sha256, *_constraints(fits)])
    key = hashlib.sha256(content.encode()).hexdigest()
    if any(line["id"] == key for line in read_ledger(folder)):
        return True
    if has_started(folder, run):
        return False
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
        "distance": distance,
        "fit_sha256": fit_sha256,
        "rows_sha256": rows_sha256,
        "code": code_version(),
        "created": utc_now(),
    }
    append_chained(folder / LEDGER, dict(forecast))
    return True


def has_started(folder: Path, run: str) -> bool:
    """Whether `<study>/<run id>` has taken steps of its own in the study's folder.

    Its trunk, which other runs share, may have been trained.
    """
    run_folder = folder / "runs" / run.rpartition("/")[2]
    return any((run_folder / name).exists() for name in ("status.json", "metrics.jsonl", "DONE"))


def check_ledger(folder: Path) -> None:
    """Raise ValueError if a line of the ledger was changed after it was written."""
    if change := change_by_hand(folder):
        raise ValueError(
            f"{folder / LEDGER}: {change}, so one of the two was changed, added or removed by "
            "hand; restore the file, or move it away: forecasts of runs that have started are "
            "then lost"
        )


def score(folder: Path, results: "pd.DataFrame") -> list[ScoredForecast]:
    """Score the forecasts whose runs are done; return all forecasts with their scores.

    results: the results table of the study. A forecast of a run that diverged, or whose
    metric was not measured, stays without a score.
    """
    rows = {row["run"]: row for row in results.to_dict("records")}
    for forecast, known in scored_forecasts(read_ledger(folder)):
        _, _, run = forecast["run"].rpartition("/")
        if known or run not in rows or rows[run]["status"] != "done":
            continue
        measured = rows[run].get(forecast["metric"])
        if isinstance(measured, float) and np.isfinite(measured):
            append_chained(folder / LEDGER, dict(_score(forecast, measured)))
    return scored_forecasts(read_ledger(folder))


def hash_rows(rows: "pd.DataFrame") -> str:
    """The sha256 of HASHED_COLUMNS to the last bit, whatever the order of the rows."""
    columns = [name for name in HASHED_COLUMNS if name in rows]
    texts = [
        json.dumps([str(value) for value in row]) for row in rows[columns].itertuples(index=False)
    ]
    return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()


def _hash_fits(fits: Sequence[Path]) -> str:
    """The sha256 of fits; how long they took is not part of what they are."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in fits]
    for record in records:
        # The file's own hash covers the seconds.
        for name in ("seconds", "sha256"):
            record.pop(name, None)
    return content_hash({"fits": records})


def _constraints(fits: Sequence[Path]) -> list[Any]:
    """What laws hold and tie: with E held, a law forecasts otherwise.

    Nothing for laws that do neither.
    """
    forms = [json.loads(path.read_text(encoding="utf-8")).get("form", {}) for path in fits]
    constraints = [[form.get(name) for name in ("fixed", "tied")] for form in forms]
    return [constraints] if any(part for form in constraints for part in form) else []


def _score(forecast: Forecast, measured: float) -> Score:
    low, high = forecast["low"], forecast["high"]
    # An interval that is open at one end contains everything on that side.
    above_low = low is None or low <= measured
    below_high = high is None or measured <= high
    has_interval = low is not None or high is not None
    return {
        "kind": "score",
        "id": forecast["id"],
        "measured": measured,
        "error": measured - forecast["value"],
        "inside": above_low and below_high if has_interval else None,
        "created": utc_now(),
    }
