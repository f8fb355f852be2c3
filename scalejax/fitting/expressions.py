"""Expressions that choose rows of a table, such as "params > 1e8 and set == 'c4'".

An expression is parsed and interpreted, never evaluated as code: a table or a command
line from somebody else can choose rows and do nothing else.
"""

import ast
import operator
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scalejax.fitting.tables import column_list

if TYPE_CHECKING:
    from pandas import DataFrame

# Column names in backticks may hold anything. Text in quotes is matched as well, so
# that a backtick inside it stays what it is; only the name in backticks is captured.
QUOTED = re.compile(r"""'[^']*'|"[^"]*"|`([^`]+)`""")

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
    backticks: dict[str, str]
    """Stand-in word -> the column name that stood in backticks."""


def row_mask(frame: "DataFrame", expression: str | None) -> np.ndarray:
    """Return the mask of the rows for which an expression holds, (rows,).

    An expression is COLUMN OP LITERAL, joined by and, or, not and parentheses. OP is
    one of == != < <= > >= in, not in. A column name that is not a single word is
    written in backticks. None holds for all rows.

    >>> import pandas
    >>> runs = pandas.DataFrame({"size": [1, 2, 3], "set": ["c4", "c4", "rw"]})
    >>> row_mask(runs, "size >= 2 and set == 'c4'").tolist()
    [False, True, False]

    Raises ValueError for anything else, and for a column that the table does not have.
    """
    if expression is None:
        return np.ones(len(frame), bool)
    parsed = _Expression(expression, frame, {})

    def replace_backticks(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        word = f"__{len(parsed.backticks)}__"
        parsed.backticks[word] = match[1]
        return word

    try:
        source = QUOTED.sub(replace_backticks, expression.strip())
        tree = ast.parse(source, mode="eval").body
    # Deeply nested parentheses exhaust the parser's stack or its memory.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"cannot read the expression {expression!r}; expected COLUMN OP LITERAL, such as "
            '"size >= 2"'
        ) from error
    return _mask(tree, parsed)


def _mask(node: ast.expr, expression: _Expression) -> np.ndarray:
    match node:
        case ast.BoolOp(op=op, values=parts):
            join = np.logical_and if isinstance(op, ast.And) else np.logical_or
            return join.reduce([_mask(part, expression) for part in parts])
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return ~_mask(part, expression)
        case ast.Compare(left=ast.Name(id=word), ops=[op], comparators=[right]):
            column = expression.backticks.get(word, word)
            return _compare(column, op, _literal(right, expression), expression)
    raise ValueError(
        f"{ast.unparse(node)!r} in {expression.text!r} is not COLUMN OP LITERAL, where OP is one "
        "of == != < <= > >= in, not in"
    )


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
    if column not in frame.columns:
        raise ValueError(f"no column {column!r} for {text!r}; the table has {column_list(frame)}")
    series = frame[column]
    is_list = isinstance(value, list | tuple)
    if is_list != isinstance(op, ast.In | ast.NotIn):
        raise ValueError(
            f"in {text!r}, `in` and `not in` take a list or tuple; the other comparisons take a "
            "single value"
        )
    is_numeric = series.dtype.kind in "biuf"
    if any(isinstance(item, str) == is_numeric for item in (value if is_list else [value])):
        kind = "numbers" if is_numeric else "text"
        raise ValueError(
            f"column {column!r} holds {kind}, which cannot be compared with {value!r} in {text!r}"
        )
    if is_list:
        inside = series.isin(list(value)).to_numpy()
        return inside if isinstance(op, ast.In) else ~inside
    return np.asarray(COMPARISONS[type(op)](series, value), bool)
