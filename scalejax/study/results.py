"""The tables of a study: one row per finished run, and one row per evaluation."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from scalejax.files import read_json, read_lines, replacing, wrong_field
from scalejax.optim.schedules import learning_rates
from scalejax.training.result import Result
from scalejax.training.segment import TrainingJob
from scalejax.training.status import check_seal

if TYPE_CHECKING:
    import pandas as pd

# Types of the columns in metrics.jsonl; all but the step may be absent.
NUMBER = (int, float, type(None))
CURVE_TYPES = {"step": int, "tokens": NUMBER, "learning_rate": NUMBER, "train_loss": NUMBER}
CURVE_TYPES |= {"grad_norm": NUMBER, "loss": NUMBER, "weights": str}
CURVE_COLUMNS = ("run", "step", "tokens", "learning_rate", "train_loss", "grad_norm", "loss")
CURVE_COLUMNS += ("weights",)


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
    if not isinstance(trunks, dict) or not all(isinstance(name, str) for name in trunks.values()):
        raise ValueError(
            f"{folder / 'study.json'} is damaged: its field trunks does not name the trunk of each "
            "run; `scalejax run` writes it again"
        )
    # The columns that say what a row is come first.
    table = pd.DataFrame(
        [
            {"run": row["run"], "study": row["study"], "trunk": trunks.get(row["run"], row["run"])}
            | row
            for row in rows
        ]
    )
    # The standard error of a loss is None when a single document was read.
    return table.astype({name: float for name in table.columns if name.endswith("_se")})


def curves(folder: str | Path) -> "pd.DataFrame":
    """The losses of every finished run in the course of its training.

    The columns are CURVE_COLUMNS. Steps count from 0, as whole-curve laws count them:
    the row of step s was measured after the update with the rate of step s. `weights`
    is `raw` for the weights themselves, or the name of an average of them, such as
    `ema-20000`. `loss` is NaN in rows for which only the training loss was logged.
    There is one row for every run, step and `weights`.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for run in finished_runs(Path(folder)):
        # The training loss and the held-out loss of one step are logged on separate
        # lines.
        merged: dict[tuple[int, str], dict[str, Any]] = {}
        for row in read_curve(run):
            key = (row["step"], row.get("weights", "raw"))
            merged.setdefault(key, {"run": run.name, "weights": "raw"}).update(row)
        rows += merged.values()
    table = pd.DataFrame(rows).reindex(columns=list(CURVE_COLUMNS))
    # metrics.jsonl counts the steps that are done, so its first step is 1.
    table["step"] -= 1
    return table


class WholeCurves(NamedTuple):
    """The two tables that whole-curve laws read."""

    losses: "pd.DataFrame"
    """One row per held-out loss, with the columns curve, step and loss. The curve is
    the id of the run."""
    schedules: "pd.DataFrame"
    """One row per step of every curve, with the columns curve, step and
    learning_rate."""


def whole_curves(folder: str | Path) -> WholeCurves:
    """The held-out losses of every finished run with the learning rate of every step.

    Losses are those of the weights themselves, not of averages. Steps count from 0, as
    in `curves`.

    Raises FileNotFoundError if `folder` is not the folder of a study.
    """
    table = curves(Path(folder))
    measured = table.loc[(table["weights"] == "raw") & table["loss"].notna(), :]
    losses = measured[["run", "step", "loss"]].rename(columns={"run": "curve"})
    return WholeCurves(losses, schedules(folder))


def schedules(folder: str | Path) -> "pd.DataFrame":
    """The learning rate of every step of every finished run; see `WholeCurves`."""
    import pandas as pd

    tables = [pd.DataFrame(columns=["curve", "step", "learning_rate"])]
    for run in finished_runs(Path(folder)):
        rates = learning_rates(TrainingJob.read(run).segment.run)
        columns = {"curve": run.name, "step": range(len(rates)), "learning_rate": rates}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables[1:] or tables, ignore_index=True)


def read_curve(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl; none before its first step.

    Raises ValueError, with file and line, for a row that is damaged.
    """
    path = run / "metrics.jsonl"
    check_seal(path)
    rows = read_lines(path)
    for number, row in enumerate(rows, start=1):
        kinds = {name: kind for name, kind in CURVE_TYPES.items() if name in row or name == "step"}
        if wrong := wrong_field(row, kinds):
            raise ValueError(
                f"{path}, line {number}: the field {wrong} is missing or has a value that it "
                f"cannot have; restore the file, or delete {run} to train the run anew"
            )
    return rows


def write_tables(folder: Path) -> "pd.DataFrame":
    """Write results, curves and schedules as .parquet; return the results.

    Each file is replaced at once.
    """
    results_table = results(folder)
    tables = {"results": results_table, "curves": curves(folder), "schedules": schedules(folder)}
    for name, table in tables.items():
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
    names = []
    for field in ("runs", "forecast"):
        values = study.get(field)
        # A name is part of a path: one with a slash could lead out of the study.
        if not isinstance(values, list) or not all(map(_is_run_name, values)):
            raise ValueError(
                f"{folder / 'study.json'} is damaged: its field {field} is not a list of run ids; "
                "`scalejax run` writes it again"
            )
        names += values
    runs = [folder / "runs" / name for name in names]
    return [run for run in runs if (run / "DONE").exists()]


def _is_run_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w+", value) is not None
