"""The tables of a study: one row per finished run, and one row per evaluation."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalejax.files import read_json, read_lines, replacing
from scalejax.training.result import Result

if TYPE_CHECKING:
    import pandas as pd

CURVE_COLUMNS = ("run", "step", "tokens", "learning_rate", "train_loss", "loss", "weights")


def results(folder: str | Path) -> "pd.DataFrame":
    """The results of a study: one row per finished run, measured at its last step.

    The columns are those of `scalejax.training.result.result_row`, and `trunk`: the id
    of the trunk that the run was cut from, or the run's own id. Rows of one trunk are
    not independent. Raises FileNotFoundError if `folder` is not the folder of a study.
    """
    import pandas as pd

    folder = Path(folder)
    rows = [Result.load(run).row for run in finished_runs(folder)]
    trunks = read_json(folder / "study.json").get("trunks", {})
    # The columns that say what a row is come first.
    return pd.DataFrame(
        [
            {"run": row["run"], "study": row["study"], "trunk": trunks.get(row["run"], row["run"])}
            | row
            for row in rows
        ]
    )


def curves(folder: str | Path) -> "pd.DataFrame":
    """The losses of every finished run in the course of its training.

    The columns are CURVE_COLUMNS. `weights` is `raw` for the weights themselves, or the
    name of an average of them, such as `ema-20000`. `loss` is NaN in rows for which
    only the training loss was logged. There is one row for every run, step and
    `weights`.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for run in finished_runs(Path(folder)):
        # The training loss and the held-out loss of one step are logged on separate
        # lines.
        merged: dict[tuple[int, str], dict[str, Any]] = {}
        for row in read_lines(run / "metrics.jsonl"):
            key = (row["step"], row.get("weights", "raw"))
            merged.setdefault(key, {"run": run.name, "weights": "raw"}).update(row)
        rows += merged.values()
    return pd.DataFrame(rows).reindex(columns=list(CURVE_COLUMNS))


def write_tables(folder: Path) -> "pd.DataFrame":
    """Write results.parquet and curves.parquet atomically; return the results."""
    results_table = results(folder)
    for name, table in (("results", results_table), ("curves", curves(folder))):
        with replacing(folder / f"{name}.parquet") as temporary:
            table.to_parquet(temporary, index=False)
    return results_table


def finished_runs(folder: Path) -> list[Path]:
    """The folders of the study's finished runs, in the order of study.json.

    Raises FileNotFoundError if there is no study.json.
    """
    if not (folder / "study.json").exists():
        raise FileNotFoundError(
            f"{folder} is not the folder of a study: it has no study.json; give OUT/<study>, or "
            "run the study first"
        )
    study = read_json(folder / "study.json")
    runs = [folder / "runs" / name for name in [*study["runs"], *study["forecast"]]]
    return [run for run in runs if (run / "DONE").exists()]
