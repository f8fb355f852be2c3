"""Folders of made-up studies, for the tests of reports."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from scalejax.files import append_lines, write_json
from scalejax.laws.forms import Chinchilla

# The true law of the losses, without noise.
LAW = Chinchilla(A=60.0, B=900.0, E=1.7, alpha=0.45, beta=0.5)

SIZES = (20_000, 45_000, 80_000, 120_000)
BUDGETS = (6e5, 8.5e5, 1.2e6, 1.7e6, 2.4e6)

# Id of the run that is forecast, and of a run that tests declare diverged.
FORECAST_RUN, DIVERGED_RUN = "feed0000feed0000", "0000000000000004"

QUESTION = "Does <b>size</b> & data pay alike?\n\nScientific: size."


def results_table() -> pd.DataFrame:
    """A results table on a Chinchilla surface, with noise of 0.004 nats.

    The last row is the forecast run.
    """
    noise = np.random.default_rng(0)
    grid = [(size, tokens) for size in SIZES for tokens in BUDGETS] + [(250_000, 2.4e6)]
    rows = pd.DataFrame(grid, columns=["params_with_head", "tokens"])
    rows["run"] = [f"{number:016x}" for number in range(1, len(rows))] + [FORECAST_RUN]
    losses = LAW.loss(rows["params_with_head"].to_numpy(), rows["tokens"].to_numpy())
    rows["loss"] = np.asarray(losses) + noise.normal(0, 0.004, len(rows))
    rows["loss_se"], rows["status"], rows["learning_rate"] = 0.008, "done", 0.008
    rows["flops"] = 6.0 * rows["params_with_head"] * rows["tokens"]
    rows["top1_error"] = 0.75 - 4 * np.exp(-0.9 * rows["loss"]) + noise.normal(0, 0.008, len(rows))
    rows["top1_error_se"], rows["top1_chance"] = 0.02, 0.75
    rows["wall_seconds"], rows["code"], rows["jax"] = 4.2, "0.1.0+abc", "0.10.2"
    return rows


def curves_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Training losses every 16 steps of 512 tokens, which fall to the final loss.

    Only the final loss is measured on held-out text.
    """
    noise, parts = np.random.default_rng(1), []
    for row in rows.to_dict("records"):
        tokens = np.arange(1, int(row["tokens"] // (16 * 512)) + 1) * 16 * 512.0
        final = row["loss"] if np.isfinite(row["loss"]) else 6.0
        losses = final + 3 * (tokens / 8192) ** -0.6 + noise.normal(0, 0.03, len(tokens))
        part = pd.DataFrame({"step": tokens / 512, "tokens": tokens, "train_loss": losses})
        part = part.assign(run=row["run"], loss=np.nan, learning_rate=0.008, weights="raw")
        part.loc[part.index[-1], "loss"] = row["loss"]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def write_study(folder: Path, rows: pd.DataFrame) -> Path:
    """Write study.json and the tables of a study that has just ended."""
    folder.mkdir(parents=True)
    study = {
        "name": "made@1",
        "question": QUESTION,
        "runs": [run for run in rows["run"] if run != FORECAST_RUN],
        "forecast": [FORECAST_RUN],
        "plan": {"flops": 6e13, "flops_separate": 1e14, "saved_fraction": 0.4, "warnings": []},
    }
    write_json(folder / "study.json", study)
    rows.to_parquet(folder / "results.parquet", index=False)
    curves_table(rows).to_parquet(folder / "curves.parquet", index=False)
    return folder


def register_forecast(
    folder: Path, *, value: float, low: float | None, high: float | None, measured: float
) -> None:
    """Write a forecast of the loss of FORECAST_RUN, and its score."""
    forecast = {
        "kind": "forecast",
        "id": "f1",
        "run": f"made@1/{FORECAST_RUN}",
        "law": "chinchilla",
        "metric": "loss",
        "level": 0.95,
        "value": value,
        "low": low,
        "high": high,
    }
    inside = (low is None or low <= measured) and (high is None or measured <= high)
    score = {
        "kind": "score",
        "id": "f1",
        "measured": measured,
        "error": measured - value,
        "inside": inside,
    }
    append_lines(folder / "forecasts.jsonl", [forecast, score])


def ledger(folder: Path) -> list[dict]:
    """The lines of the ledger of forecasts."""
    return [json.loads(line) for line in (folder / "forecasts.jsonl").read_text().splitlines()]
