"""Tables of runs: what can be read as a table, and the columns that a law reads."""

import contextlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from scalejax.fitting.reading import arithmetic, diagnoses
from scalejax.fitting.reading.files import read_file
from scalejax.fitting.reading.numbers import parse_number

if TYPE_CHECKING:
    from pandas import DataFrame

# Messages list at most this many column names, each cut to so many letters.
MAX_COLUMNS_SHOWN = 24
MAX_NAME_LENGTH = 40

# The column that `params` means in a results table, unless another count is named.
PARAMS_COLUMN = "params_with_head"

TOP1_ERROR = "top1_error"

# Laws multiply what they read, and float64 ends at 1.8e308.
LARGEST = 1e100

# Texts that stand for a value which a row does not have.
NOT_FINITE = ("nan", "inf", "+inf", "-inf", "infinity", "none", "null")

# What `scalejax.fit` reads: a path, a data frame, or anything that pandas takes.
Table = object


def read(table: Table) -> "DataFrame":
    """Return a table as a data frame.

    table: the path of a CSV, TSV, JSON, JSON-lines or Parquet file; a data frame of
    pandas, polars or pyarrow; or anything else that `pandas.DataFrame` takes, such as a
    dictionary of columns or a list of records.

    Raises FileNotFoundError, or ValueError for what is not a table with rows and
    distinct column names.
    """
    import pandas as pd

    if isinstance(table, str | os.PathLike):
        return _read_path(Path(table))
    frame = table
    if not isinstance(frame, pd.DataFrame):
        try:
            to_pandas = getattr(table, "to_pandas", None)
            frame = to_pandas() if to_pandas else pd.DataFrame(cast(Any, table))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"a {type(table).__name__} cannot be read as a table: {error}. Give a path, a "
                "data frame, a dictionary of columns or a list of records"
            ) from error
    return _with_distinct_columns(frame.reset_index(drop=True), "the table")


def _read_path(path: Path) -> "DataFrame":
    if not path.is_file():
        problem = f"{path} is a folder" if path.is_dir() else f"no table at {path}"
        raise FileNotFoundError(f"{problem}; expected a CSV, TSV, JSON or Parquet file")
    frame = read_file(path).rename(columns=lambda name: str(name).strip())
    if frame.empty:
        raise ValueError(f"{path} has no rows (columns: {column_list(frame)})")
    return _with_distinct_columns(frame, str(path))


def _with_distinct_columns(frame: "DataFrame", table: str) -> "DataFrame":
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise ValueError(f"{table} has two columns named {repeated[0]!r}; rename one of them")
    return frame


def column_list(frame: "DataFrame") -> str:
    """List the names of a table's columns for a message; the first ones, if many."""
    names = []
    for column in frame.columns[:MAX_COLUMNS_SHOWN]:
        name = str(column)
        names.append(name if len(name) < MAX_NAME_LENGTH else f"{name[:MAX_NAME_LENGTH]}...")
    rest = len(frame.columns) - len(names)
    return ", ".join(names) + (f" and {rest} more" if rest else "")


class Columns(NamedTuple):
    """The numbers that a law reads, from the rows where all of them are finite."""

    inputs: list[np.ndarray]
    """One (rows,) array per input."""
    target: np.ndarray
    """(rows,)"""
    complete: np.ndarray
    """Mask over all rows of the table: False if a value is missing or infinite."""
    names: dict[str, str]
    """The table's column from which each input and the target was read."""


def read_columns(
    frame: "DataFrame",
    inputs: Sequence[str],
    target: str,
    names: Mapping[str, str] | None = None,
    signed: Collection[str] = (),
) -> Columns:
    """Read the columns of a law as float64.

    inputs, target: our names of the columns. names: our name of a column -> the
    table's, where they differ. In a results table, `params` is params_with_head unless
    another count is named. Rows with a missing or infinite value are left out.
    signed: inputs that may be zero or negative.

    Raises ValueError for a missing column, for text, for values beyond LARGEST, and for
    other values that are zero or negative.
    """
    sources = {name: column_for(frame, name, names) for name in (*inputs, target)}
    values = {name: numeric_column(frame, column) for name, column in sources.items()}
    complete = np.all([np.isfinite(x) for x in values.values()], axis=0)
    # Numbers below the smallest normal float64 lose their digits; they count as zero.
    smallest = np.finfo(np.float64).tiny
    for name, x in values.items():
        wrong = np.flatnonzero(complete & (x < smallest))
        if len(wrong) and name not in signed:
            raise ValueError(
                f"{sources[name]} is {x[wrong[0]]:g} in row {frame.index[wrong[0]]} (from 0); a "
                "law needs positive values"
            )
        wrong = np.flatnonzero(complete & (np.abs(x) > LARGEST))
        if len(wrong):
            raise ValueError(
                f"{sources[name]} is {x[wrong[0]]:g} in row {frame.index[wrong[0]]} (from 0); a "
                f"law takes values up to {LARGEST:g}, because it multiplies them"
            )
    if target == TOP1_ERROR and np.any(complete & (values[target] > 1)):
        largest = np.max(values[target][complete])
        raise ValueError(
            f"{sources[target]} reaches {largest:g}; a top-1 error is a fraction, at most 1. "
            "Divide percentages by 100: --columns "
            f"{TOP1_ERROR}={diagnoses.quoted(sources[target])}/100"
        )
    return Columns(
        inputs=[values[name][complete] for name in inputs],
        target=values[target][complete],
        complete=complete,
        names=sources,
    )


def column_for(frame: "DataFrame", name: str, names: Mapping[str, str] | None = None) -> str:
    """Return the column for one of our names, or the expression that computes it.

    Raises ValueError when the table has no such column.
    """
    names = names or {}
    default = PARAMS_COLUMN if name == "params" and PARAMS_COLUMN in frame.columns else name
    column = names.get(name, default)
    if column in frame.columns or (name in names and arithmetic.is_arithmetic(column)):
        return column
    why = f" (named for {name})" if name in names else ""
    raise ValueError(
        f"no column {column!r}{why}; the table has {column_list(frame)}. Say which is {name}: "
        f"--columns {name}=THEIRS"
    )


def numeric_column(frame: "DataFrame", column: str) -> np.ndarray:
    """Read a column as float64, (rows,), with nan where a value is missing.

    column: of the table, or arithmetic on its columns, such as "log(ppl)". Numbers may
    be written as text: 50M, 1.3B or 50,000,000.

    Raises ValueError where the column holds text that is no number, and for an
    expression that cannot be read.
    """
    import pandas as pd

    if column not in frame.columns:
        return arithmetic.compute(column, lambda name: _operand(frame, name, column), len(frame))
    series = frame[column]
    if series.dtype.kind in "iuf":
        return np.asarray(pd.to_numeric(series, errors="coerce"), np.float64)
    # Columns of another type (text, dates, truth values, integers above 2^64) are read
    # value by value, so that numbers written as text count and truth values do not.
    values = np.full(len(series), np.nan)
    for row in np.flatnonzero(series.notna()):
        text = str(series.iloc[row])
        number = parse_number(text)
        if number is None and text.strip().lower() in NOT_FINITE:
            number = np.nan
        if number is None:
            raise ValueError(
                f"{column} holds text in row {frame.index[row]} (from 0): {text!r}; expected a "
                "number"
            )
        values[row] = number
    return values


def labels(frame: "DataFrame", column: str) -> list[str]:
    """Return the values of a column as text, by which rows of two tables are matched.

    A column of whole numbers that misses one in some row is read as float64, so 1.0 is
    written as 1.

    >>> import pandas
    >>> labels(pandas.DataFrame({"seed": [0.0, 1.0, None]}), "seed")
    ['0', '1', 'nan']
    """
    series = frame[column]
    if series.dtype.kind != "f":
        return series.astype(str).tolist()
    numbers = series.to_numpy(np.float64, na_value=np.nan).tolist()
    return [str(int(x)) if x.is_integer() else str(x) for x in numbers]


def _operand(frame: "DataFrame", column: str, expression: str) -> np.ndarray:
    """The numbers of a column that an expression names."""
    if column not in frame.columns:
        raise ValueError(
            f"no column {column!r} for {expression!r}; the table has {column_list(frame)}"
        )
    return numeric_column(frame, column)


def diagnose(
    frame: "DataFrame", values: Mapping[str, np.ndarray], target: str, names: Mapping[str, str]
) -> list[str]:
    """Say what the fitted rows look like other than what the law reads.

    frame: the fitted rows.  values: what the law reads from them, (rows,) each, by our
    name of the column.  target: our name of what the law predicts.  names: our name of
    a column -> the table's, of all that were read and of others that the user names.
    """
    inputs = {name: x for name, x in values.items() if name != target}
    reasons = diagnoses.direction_reasons(inputs, values[target], target, names[target])
    if "loss" in values:
        reasons = reasons or diagnoses.loss_reasons(names["loss"], values["loss"])
    # What an expression computes has no name that could say what it is.
    for name in [name for name in ("loss", target) if names.get(name) in frame.columns]:
        reasons = reasons or diagnoses.name_reasons(name, names[name])
    for name, x in inputs.items():
        reasons += diagnoses.gap_reasons(name, names.get(name, name), x)
    if {"tokens", "unique_tokens"} <= inputs.keys():
        reasons += diagnoses.repeat_reasons(inputs["tokens"], inputs["unique_tokens"], names)
    return reasons + _unit_reasons(frame, values, names)


def _unit_reasons(
    frame: "DataFrame", values: Mapping[str, np.ndarray], names: Mapping[str, str]
) -> list[str]:
    """Say that params, tokens or FLOPs are in other units than single ones."""
    flops = names.get("flops", "flops")
    if not {"params", "tokens"} <= values.keys():
        return []
    if "flops" in names or flops in frame.columns:
        # The law need not read this column, so it need not hold numbers.
        with contextlib.suppress(ValueError):
            spent = numeric_column(frame, flops)
            columns = {**names, "flops": flops}
            if reasons := diagnoses.flops_reasons(
                values["params"], values["tokens"], spent, columns
            ):
                return reasons
    return diagnoses.ratio_reasons(values["params"], values["tokens"], names)
