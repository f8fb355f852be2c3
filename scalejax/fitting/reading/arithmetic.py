"""Arithmetic on the columns of a table, such as "log(ppl)" or "1 - acc".

An expression is parsed and interpreted, never evaluated as code.
"""

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from scalejax.fitting.reading.parsing import Parsed, parse

OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "exp": np.exp,
    "sqrt": np.sqrt,
}

GRAMMAR = f"numbers, columns, + - * / ** ( ) and {', '.join(FUNCTIONS)}"


def is_arithmetic(text: str) -> bool:
    """Whether a text computes something, and is more than the name of a column."""
    parsed = parse(text)
    if parsed is None:
        return False
    tree = parsed.tree
    # A single word is a name; a name in backticks needs the parser to find its column.
    return not (isinstance(tree, ast.Name) and tree.id not in parsed.backticks)


def compute(text: str, column: Callable[[str], np.ndarray], rows: int) -> np.ndarray:
    """Return the value of an expression in every row, (rows,), as float64.

    column: returns the numbers of a column of the table, or raises ValueError.

    >>> compute("1 - acc", {"acc": np.array([0.25, 0.5])}.__getitem__, rows=2).tolist()
    [0.75, 0.5]

    Raises ValueError for anything but arithmetic.
    """
    parsed = parse(text)
    if parsed is None:
        raise ValueError(f"cannot read the expression {text!r}; expected {GRAMMAR}")
    try:
        # A logarithm of zero gives a row without a value, which the tables leave out.
        with np.errstate(all="ignore"):
            value = _value(parsed.tree, parsed, column, text)
    except RecursionError:
        raise ValueError(f"the expression {text!r} is nested too deeply") from None
    return np.array(np.broadcast_to(value, rows), np.float64)


def _value(
    node: ast.expr, parsed: Parsed, column: Callable[[str], np.ndarray], text: str
) -> np.ndarray | np.float64:
    def value(part: ast.expr) -> np.ndarray | np.float64:
        return _value(part, parsed, column, text)

    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return np.float64(number)
        case ast.Name(id=word):
            return column(parsed.column(word))
        case ast.UnaryOp(op=ast.USub(), operand=part):
            return -value(part)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](value(left), value(right))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](value(argument))
    raise ValueError(f"{ast.unparse(node)!r} in {text!r} is not arithmetic; expected {GRAMMAR}")
