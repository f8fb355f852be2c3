"""Parameters of fits as a table, in LaTeX, Markdown or HTML."""

import html
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

Format = Literal["latex", "markdown"]

# An interval, whose open ends are None.
Ends = tuple[float | None, float | None]

LATEX_SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"}


def parameter_rows(
    params: Mapping[str, float], intervals: Mapping[str, Ends], digits: int = 4
) -> list[list[str]]:
    """One row per parameter: its name, its value and its 95% interval.

    >>> parameter_rows({"E": 1.687}, {"E": (1.61, None)})
    [['E', '1.687', '[1.61, open]']]
    """
    rows = []
    for name, value in params.items():
        number = f"{value:.{digits}g}" if np.isfinite(value) else "unknown"
        rows.append([name, number, interval_text(intervals.get(name), digits)])
    return rows


def interval_text(ends: Ends | None, digits: int = 4) -> str:
    """An interval in brackets; empty when there is none."""
    if ends is None:
        return ""
    low, high = ("open" if end is None else f"{end:.{digits}g}" for end in ends)
    return f"[{low}, {high}]"


def render(head: Sequence[str], rows: Sequence[Sequence[str]], form: Format) -> str:
    """A table of texts. The LaTeX needs the package booktabs.

    Raises ValueError for another format.
    """
    if form == "markdown":
        return _markdown(head, rows)
    if form == "latex":
        return _latex(head, rows)
    raise ValueError(f"a table is written as latex or markdown; got {form!r}")


def plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts in aligned columns.

    >>> print(plain(["set", "alpha"], [["c4", "0.34"], ["books", "0.3"]]))
    set    alpha
    c4     0.34
    books  0.3
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in (head, *rows)
    )
    return "\n".join(line.rstrip() for line in lines)


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts in HTML, as notebooks show it."""
    headings = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{headings}</tr></thead><tbody>{body}</tbody></table>"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def _latex(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"{' & '.join(map(_escaped, cells))} \\\\"

    return "\n".join(
        [
            f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            "\\toprule",
            line(head),
            "\\midrule",
            *(line(row) for row in rows),
            "\\bottomrule",
            "\\end{tabular}",
        ]
    )


def _escaped(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(character, character) for character in text)
