"""The ledger of forecasts: registered before a run starts, scored when it is done; lines are only ever added."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scalejax.files import append_lines, read_lines
from scalejax.training.result import code_version
from scalejax.training.status import utc_now

if TYPE_CHECKING:
    import pandas as pd

    from scalejax.fitting.fit import Estimate

LEDGER = "forecasts.jsonl"


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
    """Adds the forecast of `metric` for `run` to the ledger and gives its id; one that is there already is not added again.

    fits: the files of the fits it was made with, several for a chain. The id is the sha256 of (run, law, metric, fitted rows),
    so a study that goes on after a kill registers nothing twice.
    """
    rows_sha256 = hash_rows(rows)
    key = hashlib.sha256(json.dumps([run, law, metric, rows_sha256]).encode()).hexdigest()
    if all(line["id"] != key for line in read_lines(folder / LEDGER)):
        line = {"kind": "forecast", "id": key, "run": run, "law": law, "metric": metric}
        line |= {
            "value": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "level": estimate.level,
        }
        content = b"".join(path.read_bytes() for path in fits)
        line |= {"fit_sha256": hashlib.sha256(content).hexdigest(), "rows_sha256": rows_sha256}
        append_lines(folder / LEDGER, [line | {"code": code_version(), "created": utc_now()}])
    return key


def score(folder: Path, measured: "pd.DataFrame") -> list[dict[str, Any]]:
    """Scores every forecast whose run is in `measured` (a results table) and gives forecasts joined with their scores."""
    lines = read_lines(folder / LEDGER)
    scores = {line["id"]: line for line in lines if line["kind"] == "score"}
    found = {row["run"]: row for row in measured.to_dict("records")}
    joined = []
    for line in (line for line in lines if line["kind"] == "forecast"):
        row = found.get(line["run"].rpartition("/")[2])
        if (
            line["id"] not in scores
            and row is not None
            and row["status"] == "done"
            and np.isfinite(row[line["metric"]])
        ):
            scores[line["id"]] = _score(line, float(row[line["metric"]]))
            append_lines(folder / LEDGER, [scores[line["id"]]])
        joined.append(
            {
                **line,
                **{
                    k: v
                    for k, v in scores.get(line["id"], {}).items()
                    if k in ("measured", "error", "inside")
                },
            }
        )
    return joined


def hash_rows(rows: "pd.DataFrame") -> str:
    """sha256 of the fitted rows: run, params, tokens and what was measured, to the last bit, whatever their order."""
    names = [
        name for name in ("run", "params_with_head", "tokens", "loss", "top1_error") if name in rows
    ]
    text = [
        json.dumps([str(value) for value in row]) for row in rows[names].itertuples(index=False)
    ]
    return hashlib.sha256("\n".join(sorted(text)).encode()).hexdigest()


def _score(forecast: dict[str, Any], measured: float) -> dict[str, Any]:
    """error = measured - predicted; an open end of an interval holds everything on its side."""
    low, high = forecast["low"], forecast["high"]
    inside = (low is None or low <= measured) and (high is None or measured <= high)
    error = measured - forecast["value"]
    return {
        "kind": "score",
        "id": forecast["id"],
        "measured": measured,
        "error": error,
        "inside": inside,
        "created": utc_now(),
    }
