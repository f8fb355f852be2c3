"""Tables of runs: read CSV or Parquet, choose rows by an expression, check columns and values."""

import ast
import operator
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame

MAX_COLUMNS_SHOWN, MAX_NAME_LENGTH = 24, 40  # column names in a message, and letters of each
PARAMS_COLUMN = (
    "params_with_head"  # what `params` means in a results table unless another count is named
)
TOP1_ERROR = "top1_error"
QUOTED = re.compile(
    r"""'[^']*'|"[^"]*"|`([^`]+)`"""
)  # text literals are left alone; a name in backticks is captured
COMPARISONS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def read(table: "str | Path | DataFrame") -> "DataFrame":
    """A table from a .csv or .parquet path, or a data frame as it is. Raises ValueError for what is not a table."""
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        return _named_once(table.reset_index(drop=True), "the table")
    path = Path(table)
    if not path.is_file():
        what = f"{path} is a folder" if path.is_dir() else f"no table at {path}"
        raise FileNotFoundError(f"{what}; expected a CSV or Parquet file")
    parquet = path.suffix in (".parquet", ".pq")
    try:
        frame = pd.read_parquet(path) if parquet else pd.read_csv(path, skipinitialspace=True)
    except (
        pd.errors.EmptyDataError,
        pd.errors.ParserError,
        UnicodeDecodeError,
        OSError,
        ValueError,
    ) as error:
        raise ValueError(
            f"{path} cannot be read as {'Parquet' if parquet else 'CSV'}: {str(error).strip()}"
        ) from error
    frame = frame.rename(columns=lambda name: str(name).strip())
    if len(frame.columns) == 1 and (
        between := [mark for mark in ";\t|" if mark in frame.columns[0]]
    ):
        raise ValueError(
            f"{path} separates its columns by {between[0]!r}; expected commas (and points in numbers)"
        )
    if frame.empty:
        raise ValueError(f"{path} has no rows (columns: {column_list(frame)})")
    return _named_once(frame, str(path))


def _named_once(frame: "DataFrame", what: str) -> "DataFrame":
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise ValueError(f"{what} has two columns named {twice[0]!r}; each needs a name of its own")
    return frame


def column_list(frame: "DataFrame") -> str:
    """The names of a table's columns, the first of them where they are many."""
    names = [
        str(name) if len(str(name)) < MAX_NAME_LENGTH else f"{str(name)[:MAX_NAME_LENGTH]}.."
        for name in frame.columns[:MAX_COLUMNS_SHOWN]
    ]
    rest = len(frame.columns) - len(names)
    return ", ".join(names) + (f" and {rest} more" if rest else "")


def row_mask(frame: "DataFrame", expression: str | None) -> np.ndarray:
    """Mask of the rows for which the expression holds: COLUMN OP LITERAL joined by and, or, not and brackets.

    OP is == != < <= > >= in or not in. A column whose name is not one word stands in backticks. The expression is parsed, never
    evaluated as code.

    >>> import pandas
    >>> row_mask(pandas.DataFrame({"size": [1, 2, 3], "set": ["c4", "c4", "rw"]}), "size >= 2 and set == 'c4'").tolist()
    [False, True, False]
    """
    if expression is None:
        return np.ones(len(frame), bool)
    quoted: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        word = f"__{len(quoted)}__"
        quoted[word] = match[1]
        return word

    try:
        tree = ast.parse(QUOTED.sub(stand_in, expression.strip()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(
            f'cannot read the expression {expression!r}: expected COLUMN OP LITERAL, such as "size >= 2"'
        ) from error
    return _mask(tree, frame, expression, quoted)


def _mask(
    node: ast.expr, frame: "DataFrame", expression: str, quoted: dict[str, str]
) -> np.ndarray:
    match node:
        case ast.BoolOp(op=op, values=parts):
            join = np.logical_and if isinstance(op, ast.And) else np.logical_or
            return join.reduce([_mask(part, frame, expression, quoted) for part in parts])
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return ~_mask(part, frame, expression, quoted)
        case ast.Compare(left=ast.Name(id=column), ops=[op], comparators=[right]):
            return _compare(
                frame, quoted.get(column, column), op, _literal(right, expression), expression
            )
    raise ValueError(
        f"{ast.unparse(node)!r} in {expression!r} is not COLUMN OP LITERAL (== != < <= > >= in, not in)"
    )


def _literal(node: ast.expr, expression: str) -> Any:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError) as error:
        raise ValueError(
            f"{ast.unparse(node)!r} in {expression!r} is not a number, a quoted string, or a list of them"
        ) from error
    flat = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, str | int | float | bool) for item in flat):
        raise ValueError(
            f"{ast.unparse(node)!r} in {expression!r} is not a number, a quoted string, or a list of them"
        )
    return value


def _compare(
    frame: "DataFrame", column: str, op: ast.cmpop, value: Any, expression: str
) -> np.ndarray:
    if column not in frame.columns:
        raise ValueError(
            f"no column {column!r} for {expression!r}; the table has {column_list(frame)}"
        )
    series, several = frame[column], isinstance(value, list | tuple)
    if several != isinstance(op, ast.In | ast.NotIn):
        raise ValueError(
            f"in {expression!r}, `in` and `not in` take a list or tuple, the other comparisons one value"
        )
    numbers = series.dtype.kind in "biuf"
    if any(isinstance(item, str) == numbers for item in (value if several else [value])):
        kind = "numbers" if numbers else "text"
        raise ValueError(
            f"column {column!r} holds {kind}; {value!r} in {expression!r} does not compare with it"
        )
    if several:
        inside = series.isin(value).to_numpy()
        return inside if isinstance(op, ast.In) else ~inside
    return np.asarray(COMPARISONS[type(op)](series, value), bool)


class Columns(NamedTuple):
    """The numbers that a law reads."""

    inputs: list[np.ndarray]
    target: np.ndarray
    complete: np.ndarray
    """Mask over the rows given: False where a value was missing or infinite."""
    names: dict[str, str]
    """Which column of the table each name was read from."""


def read_columns(
    frame: "DataFrame", inputs: tuple[str, ...], target: str, named: dict[str, str] | None = None
) -> Columns:
    """Reads the columns a law needs, by name or by `named` (our name -> their column).

    In a results table `params` is params_with_head unless another count is named. Rows with a missing or infinite value are
    left out (see `kept`). Raises ValueError for a missing column, text, zero or negative values.
    """
    read_from = {name: column_for(frame, name, named) for name in (*inputs, target)}
    values = {name: numeric_column(frame, column) for name, column in read_from.items()}
    kept = np.all([np.isfinite(x) for x in values.values()], axis=0)
    for name, x in values.items():
        wrong = np.flatnonzero(
            kept & (x < np.finfo(np.float64).tiny)
        )  # below, float64 rounds to nothing
        if len(wrong):
            raise ValueError(
                f"{read_from[name]} is {x[wrong[0]]:g} in row {frame.index[wrong[0]]} (from 0); a law needs positive values"
            )
    if target == TOP1_ERROR and np.any(kept & (values[target] > 1)):
        most = np.max(values[target][kept])
        raise ValueError(
            f"{read_from[target]} reaches {most:g}; a top-1 error is a fraction, at most 1 (percent: divide by 100)"
        )
    return Columns([values[name][kept] for name in inputs], values[target][kept], kept, read_from)


def column_for(frame: "DataFrame", name: str, named: dict[str, str] | None = None) -> str:
    """The table's column for one of our names."""
    named = named or {}
    column = named.get(
        name, PARAMS_COLUMN if name == "params" and PARAMS_COLUMN in frame.columns else name
    )
    if column not in frame.columns:
        given = f" (named for {name})" if name in named else ""
        raise ValueError(
            f"no column {column!r}{given}; the table has {column_list(frame)}. Say which is {name}: --columns {name}=THEIRS"
        )
    return column


def numeric_column(frame: "DataFrame", column: str) -> np.ndarray:
    """A column as float64, nan where it is missing. Raises ValueError where it holds text."""
    import pandas as pd

    series = frame[column]
    if (
        series.dtype.kind not in "iuf"
    ):  # numpy's kinds of numbers; text, dates and truth values are read one by one
        series = series.astype(str).where(series.notna())
    read = np.asarray(pd.to_numeric(series, errors="coerce"), np.float64)
    text = np.flatnonzero(np.isnan(read) & np.asarray(series.notna()))
    if len(text):
        raise ValueError(
            f"{column} holds text in row {frame.index[text[0]]} (from 0): {series.iloc[text[0]]!r}; expected a number"
        )
    return read
