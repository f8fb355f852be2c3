"""Parses the expressions that users write about a table's columns."""

import ast
import re
from typing import NamedTuple

# Column names in backticks may hold anything. Text in quotes is matched as well, so
# that a backtick inside it stays what it is; only the name in backticks is captured.
QUOTED = re.compile(r"""'[^']*'|"[^"]*"|`([^`]+)`""")


class Parsed(NamedTuple):
    """An expression as a tree, and the columns that it writes in backticks."""

    tree: ast.expr
    backticks: dict[str, str]
    """Stand-in word -> the column name that stood in backticks."""

    def column(self, word: str) -> str:
        """Return the column that a word of the tree names."""
        return self.backticks.get(word, word)


def parse(expression: str) -> Parsed | None:
    """Parse an expression, or return None when it cannot be read.

    The syntax is that of Python, with column names in backticks where they are not a
    single word. Nothing is evaluated.
    """
    backticks: dict[str, str] = {}

    def replace_backticks(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        word = f"__{len(backticks)}__"
        backticks[word] = match[1]
        return word

    try:
        source = QUOTED.sub(replace_backticks, expression.strip())
        return Parsed(ast.parse(source, mode="eval").body, backticks)
    # Deeply nested parentheses exhaust the parser's stack or its memory.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
