"""Tables of runs: reading CSV and Parquet files, and the columns that a law reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame

# Messages list at most this many column names, each cut to so many letters.
MAX_COLUMNS_SHOWN = 24
MAX_NAME_LENGTH = 40

# The column that `params` means in a results table, unless another count is named.
PARAMS_COLUMN = "params_with_head"

TOP1_ERROR = "top1_error"

# Separators that are common in tables, beside the comma.
OTHER_SEPARATORS = ";\t|"


def read(table: "str | Path | DataFrame") -> "DataFrame":
    """Read a table from a .csv or .parquet file; returns a data frame as it is.

    Raises FileNotFoundError, or ValueError for a file that is not a table with rows and
    distinct column names.
    """
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        return _with_distinct_columns(table.reset_index(drop=True), "the table")
    path = Path(table)
    if not path.is_file():
        problem = f"{path} is a folder" if path.is_dir() else f"no table at {path}"
        raise FileNotFoundError(f"{problem}; expected a CSV or Parquet file")
    is_parquet = path.suffix in (".parquet", ".pq")
    try:
        frame = pd.read_parquet(path) if is_parquet else pd.read_csv(path, skipinitialspace=True)
    except (
        pd.errors.EmptyDataError,
        pd.errors.ParserError,
        UnicodeDecodeError,
        OSError,
        ValueError,
    ) as error:
        kind = "Parquet" if is_parquet else "CSV"
        raise ValueError(f"{path} cannot be read as {kind}: {str(error).strip()}") from error
    frame = frame.rename(columns=lambda name: str(name).strip())
    if len(frame.columns) == 1:
        for separator in OTHER_SEPARATORS:
            if separator in frame.columns[0]:
                raise ValueError(
                    f"{path} separates its columns by {separator!r}; expected commas, and points "
                    "in numbers"
                )
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
) -> Columns:
    """Read the columns of a law as float64.

    inputs, target: our names of the columns. names: our name of a column -> the
    table's, where they differ. In a results table, `params` is params_with_head unless
    another count is named. Rows with a missing or infinite value are left out.

    Raises ValueError for a missing column, for text, and for values that are zero or
    negative.
    """
    sources = {name: column_for(frame, name, names) for name in (*inputs, target)}
    values = {name: numeric_column(frame, column) for name, column in sources.items()}
    complete = np.all([np.isfinite(x) for x in values.values()], axis=0)
    # Numbers below the smallest normal float64 lose their digits; they count as zero.
    smallest = np.finfo(np.float64).tiny
    for name, x in values.items():
        wrong = np.flatnonzero(complete & (x < smallest))
        if len(wrong):
            raise ValueError(
                f"{sources[name]} is {x[wrong[0]]:g} in row {frame.index[wrong[0]]} (from 0); a "
                "law needs positive values"
            )
    if target == TOP1_ERROR and np.any(complete & (values[target] > 1)):
        largest = np.max(values[target][complete])
        raise ValueError(
            f"{sources[target]} reaches {largest:g}; a top-1 error is a fraction, at most 1. "
            "Divide percentages by 100"
        )
    return Columns(
        inputs=[values[name][complete] for name in inputs],
        target=values[target][complete],
        complete=complete,
        names=sources,
    )


def column_for(frame: "DataFrame", name: str, names: Mapping[str, str] | None = None) -> str:
    """Return the table's column for one of our names, or raises ValueError."""
    names = names or {}
    default = PARAMS_COLUMN if name == "params" and PARAMS_COLUMN in frame.columns else name
    column = names.get(name, default)
    if column not in frame.columns:
        why = f" (named for {name})" if name in names else ""
        raise ValueError(
            f"no column {column!r}{why}; the table has {column_list(frame)}. Say which is {name}: "
            f"--columns {name}=THEIRS"
        )
    return column


def numeric_column(frame: "DataFrame", column: str) -> np.ndarray:
    """Read a column as float64, (rows,), with nan where a value is missing.

    Raises ValueError where it holds text.
    """
    import pandas as pd

    series = frame[column]
    # Columns of another type than a number (text, dates, truth values) are read value
    # by value, so that numbers written as text count and truth values do not.
    if series.dtype.kind not in "iuf":
        series = series.astype(str).where(series.notna())
    values = np.asarray(pd.to_numeric(series, errors="coerce"), np.float64)
    text_rows = np.flatnonzero(np.isnan(values) & np.asarray(series.notna()))
    if len(text_rows):
        row = text_rows[0]
        raise ValueError(
            f"{column} holds text in row {frame.index[row]} (from 0): {series.iloc[row]!r}; "
            "expected a number"
        )
    return values
