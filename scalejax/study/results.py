"""The tables of a study: one row per finished run, and every evaluation of every run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalejax.files import read_json, read_lines, replacing
from scalejax.training.result import Result

if TYPE_CHECKING:
    import pandas as pd

CURVE_COLUMNS = ("run", "step", "tokens", "learning_rate", "train_loss", "loss", "weights")


def results(folder: str | Path) -> "pd.DataFrame":
    """The results table of a study's folder: one row per finished run, at its last step; columns as in the README.

    Raises FileNotFoundError when the folder holds no study.
    """
    import pandas as pd

    folder = Path(folder)
    return pd.DataFrame([Result.load(run).row for run in finished_runs(folder)])


def curves(folder: str | Path) -> "pd.DataFrame":
    """Every metrics row of every finished run: (run, step, tokens, learning_rate, train_loss, loss, weights).

    `weights` is `raw`, or the name of an average such as `ema-20000`. `loss` is NaN where only the training loss was logged.
    Rows of one step and the same weights are one row.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for run in finished_runs(Path(folder)):
        merged: dict[tuple[int, str], dict[str, Any]] = {}
        for row in read_lines(run / "metrics.jsonl"):
            key = (row["step"], row.get("weights", "raw"))
            merged.setdefault(key, {"run": run.name, "weights": "raw"}).update(row)
        rows += merged.values()
    return pd.DataFrame(rows).reindex(columns=list(CURVE_COLUMNS))


def write_tables(folder: Path) -> "pd.DataFrame":
    """Writes results.parquet and curves.parquet, each whole or not at all; gives the results."""
    table = results(folder)
    for name, frame in (("results", table), ("curves", curves(folder))):
        with replacing(folder / f"{name}.parquet") as temporary:
            frame.to_parquet(temporary, index=False)
    return table


def finished_runs(folder: Path) -> list[Path]:
    """Folders of the study's finished runs, in the order of study.json.

    Raises FileNotFoundError when there is no study.json.
    """
    if not (folder / "study.json").exists():
        raise FileNotFoundError(
            f"{folder} is no study's folder (it has no study.json); give OUT/<study>, or run the study first"
        )
    study = read_json(folder / "study.json")
    runs = [folder / "runs" / name for name in [*study["runs"], *study["forecast"]]]
    return [run for run in runs if (run / "DONE").exists()]


def run_state(run: Path) -> dict[str, Any]:
    """State of the run in a folder: `waiting`, `started` (resumable), `done` or `diverged`, with its step and last loss."""
    if (run / "DONE").exists():
        row = Result.load(run).row
        return {
            "status": row["status"],
            "step": row["step"],
            "loss": row["loss"] if row["status"] == "done" else None,
        }
    rows = read_lines(run / "metrics.jsonl")
    status = "started" if (run / "status.json").exists() else "waiting"
    return {
        "status": status,
        "step": rows[-1]["step"] if rows else 0,
        "loss": rows[-1].get("train_loss") if rows else None,
    }
