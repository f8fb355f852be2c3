"""Expressions that choose rows of a table, such as "params > 1e8 and set == 'c4'".

An expression is parsed and interpreted, never evaluated as code: a table or a command
line from somebody else can choose rows and do nothing else.
"""

import ast
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scalejax.fitting.reading.parsing import Parsed, parse
from scalejax.fitting.tables import column_list, numeric_column

if TYPE_CHECKING:
    from pandas import DataFrame

COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}

Scalar = str | int | float | bool
Literal = Scalar | list[Scalar] | tuple[Scalar, ...]


class _Expression(NamedTuple):
    """An expression, and the table that it is about."""

    text: str
    frame: "DataFrame"
    parsed: Parsed


def chosen_rows(frame: "DataFrame", where: str | None) -> "DataFrame":
    """Return the rows for which an expression holds, or all rows where it is None.

    where: see `row_mask`.

    Raises ValueError when no row is left.
    """
    chosen = frame.loc[row_mask(frame, where)]
    if not len(chosen):
        raise ValueError(
            "the table has no rows"
            if where is None
            else f"--where {where!r} leaves no rows of {len(frame)}"
        )
    return chosen


def row_mask(frame: "DataFrame", expression: str | None) -> np.ndarray:
    """Return the mask of the rows for which an expression holds, (rows,).

    An expression is COLUMN OP LITERAL, joined by and, or, not and parentheses. OP is
    one of == != < <= > >= in, not in. A column name that is not a single word is
    written in backticks. `last(RUN, STEP)` holds for the row of each run with the
    largest step; columns named after it must have a value there, as in
    `last(run, step, loss)`. None holds for all rows.

    >>> import pandas
    >>> runs = pandas.DataFrame({"size": [1, 2, 3], "set": ["c4", "c4", "rw"]})
    >>> row_mask(runs, "size >= 2 and set == 'c4'").tolist()
    [False, True, False]

    Raises ValueError for anything else, and for a column that the table does not have.
    """
    if expression is None:
        return np.ones(len(frame), bool)
    parsed = parse(expression)
    if parsed is None:
        raise ValueError(
            f"cannot read the expression {expression!r}; expected COLUMN OP LITERAL, such as "
            '"size >= 2"'
        )
    return _mask(parsed.tree, _Expression(expression, frame, parsed))


def _mask(node: ast.expr, expression: _Expression) -> np.ndarray:
    match node:
        case ast.BoolOp(op=op, values=parts):
            join = np.logical_and if isinstance(op, ast.And) else np.logical_or
            return join.reduce([_mask(part, expression) for part in parts])
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return ~_mask(part, expression)
        case ast.Compare(left=ast.Name() as left, ops=[op], comparators=[right]):
            column = _column(left, expression)
            return _compare(column, op, _literal(right, expression), expression)
        case ast.Call(func=ast.Name(id="last"), args=[_, _, *_] as words, keywords=[]):
            return _last_rows([_column(word, expression) for word in words], expression.frame)
    raise ValueError(
        f"{ast.unparse(node)!r} in {expression.text!r} is not COLUMN OP LITERAL, where OP is one "
        "of == != < <= > >= in, not in; nor is it last(RUN, STEP)"
    )


def _column(node: ast.expr, expression: _Expression) -> str:
    if not isinstance(node, ast.Name):
        raise ValueError(f"{ast.unparse(node)!r} in {expression.text!r} is not a column")
    column = expression.parsed.column(node.id)
    if column not in expression.frame.columns:
        raise ValueError(
            f"no column {column!r} for {expression.text!r}; the table has "
            f"{column_list(expression.frame)}"
        )
    return column


def _last_rows(columns: list[str], frame: "DataFrame") -> np.ndarray:
    """The row of each run with the largest step, of those that have all of the columns.

    columns: the run, the step, and others that must not be missing.
    """
    run, step, *_ = columns
    steps = frame[[run]].assign(step=numeric_column(frame, step))
    present = frame[columns].notna().all(axis=1) & steps["step"].notna()
    last = steps[present].groupby(run, sort=False)["step"].idxmax()
    return np.isin(frame.index, last)


def _literal(node: ast.expr, expression: _Expression) -> Literal:
    # literal_eval builds constants and containers of them; it calls nothing.
    try:
        value = ast.literal_eval(node)
        items = value if isinstance(value, list | tuple) else [value]
        if all(isinstance(item, str | int | float | bool) for item in items):
            return value
    except (ValueError, TypeError, SyntaxError):
        pass
    raise ValueError(
        f"{ast.unparse(node)!r} in {expression.text!r} is not a number, a quoted text, or a list "
        "of them"
    )


def _compare(column: str, op: ast.cmpop, value: Literal, expression: _Expression) -> np.ndarray:
    frame, text = expression.frame, expression.text
    series = frame[column]
    is_list = isinstance(value, list | tuple)
    if is_list != isinstance(op, ast.In | ast.NotIn):
        raise ValueError(
            f"in {text!r}, `in` and `not in` take a list or tuple; the other comparisons take a "
            "single value"
        )
    items = list(value) if isinstance(value, list | tuple) else [value]
    is_numeric = series.dtype.kind in "biuf"
    asks_numbers = not any(isinstance(item, str) for item in items)
    if asks_numbers and not is_numeric:
        # Numbers may be written as text, such as 50M; anything else is refused.
        series = type(series)(numeric_column(frame, column))
    elif any(isinstance(item, str) == is_numeric for item in items):
        kind = "numbers" if is_numeric else "text"
        raise ValueError(
            f"column {column!r} holds {kind}, which cannot be compared with {value!r} in {text!r}"
        )
    if is_list:
        inside = series.isin(items).to_numpy()
        return inside if isinstance(op, ast.In) else ~inside
    # In a nullable column, a missing value compares as NA. In others it is NaN, which
    # differs from everything.
    return COMPARISONS[type(op)](series, value).to_numpy(bool, na_value=isinstance(op, ast.NotEq))
