"""The result of a comparison: gains of compute by budget and by domain."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, NamedTuple

import numpy as np

from scalejax.fitting.charts.chart import QUIET, Chart, Line, Mark, Points, size_colours
from scalejax.fitting.charts.write import Picture, write
from scalejax.fitting.display import tables
from scalejax.fitting.parametric.result import ParametricFit
from scalejax.fitting.result import finite_or_none

# Version of what `scalejax compare --json` prints.
FORMAT = 1

# The columns that are printed of a gain.
HEAD = ("column", "FLOPs of B", "loss", "A needs", "95%")


class Gain(NamedTuple):
    """The compute that A needs for the loss of B, relative to the compute of B."""

    column: str
    """The column of the loss, such as loss or loss_wiki."""
    flops: float
    """Budget C of B."""
    loss: float
    """The loss that B reaches with it."""
    value: float
    """g, such that A reaches this loss with g C; infinite if A never does."""
    low: float | None
    """Lower end of the 95% interval; None where nothing bounds it."""
    high: float | None
    notes: tuple[str, ...]
    """Where the comparison goes beyond the runs of A or B, in words."""

    def record(self) -> dict[str, Any]:
        """The gain in JSON."""
        return {
            "column": self.column,
            "flops": self.flops,
            "loss": self.loss,
            "gain": finite_or_none(self.value),
            "interval": [self.low, self.high],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Recipe or corpus B against A, at equal loss."""

    law: str
    column: str
    """The column of the loss; the gains in it are the result, others are domains."""
    gains: list[Gain]
    pairs: int
    """Number of rows of A that share inputs and seed with one of B."""
    correlation: float | None
    """Of the errors of paired runs; None if they count as independent."""
    reasons: list[str]
    """What to know of the interval, and of the two tables."""
    fits: dict[str, tuple[ParametricFit[Any], ParametricFit[Any]]] = field(repr=False)
    """Fits of A and B by the column of the loss."""

    def shortfalls(self, require: float) -> list[Gain]:
        """Return the gains in the loss, not in domains, that may be below `require`."""
        return [
            gain
            for gain in self.gains
            if gain.column == self.column and (gain.low is None or gain.low < require)
        ]

    def summary(self) -> dict[str, Any]:
        """What `scalejax compare --json` prints."""
        rows = [fit.n_rows for fit in self.fits[self.column]]
        return {
            "format": FORMAT,
            "law": self.law,
            "column": self.column,
            "gains": [gain.record() for gain in self.gains],
            "rows": rows,
            "pairs": self.pairs,
            "correlation": self.correlation,
            "reasons": self.reasons,
        }

    def __str__(self) -> str:
        reasons = [f"  {reason}" for reason in self.reasons]
        table = tables.plain(HEAD, self._cells())
        return "\n".join([self._title(), *reasons, table, *self._notes()])

    def _repr_html_(self) -> str:
        """What notebooks show: what `print` shows, with a table."""
        lines = "".join(f"<li>{escape(line)}</li>" for line in [*self.reasons, *self._notes()])
        table = tables.html_table(HEAD, self._cells())
        return f"<p>{escape(self._title())}</p><ul>{lines}</ul>{table}"

    def _title(self) -> str:
        rows = " and ".join(str(fit.n_rows) for fit in self.fits[self.column])
        agree = "independent errors"
        if self.correlation is not None:
            agree = f"{self.pairs} pairs whose errors are correlated by {self.correlation:.2f}"
        return f"B against A at equal loss: {self.law} law, {rows} rows, {agree}"

    def _cells(self) -> list[list[str]]:
        return [
            [
                gain.column,
                f"{gain.flops:.3g}",
                f"{gain.loss:.4f}",
                f"{gain.value:.3f} x" if np.isfinite(gain.value) else "never",
                tables.interval_text((gain.low, gain.high)),
            ]
            for gain in self.gains
        ]

    def _notes(self) -> list[str]:
        """The notes of all gains, each of them once."""
        notes = (
            f"{gain.column} at {gain.flops:.3g} FLOPs: {note}"
            for gain in self.gains
            for note in gain.notes
        )
        return list(dict.fromkeys(notes))

    def figure(self) -> Picture:
        """Return the figure, which a notebook shows."""
        return Picture(self.charts())

    def charts(self) -> list[Chart]:
        """Return the figure: gains against the budget, one line per column."""
        columns = list(dict.fromkeys(gain.column for gain in self.gains))
        colours = size_colours(range(len(columns)))
        marks: list[Mark] = []
        for number, column in enumerate(columns):
            own = [gain for gain in self.gains if gain.column == column]
            marks += _marks(own, column, colours[number], shift=1.02**number)
        return [
            Chart(
                name="gain",
                title="Compute that B saves at equal loss",
                caption=(
                    "The FLOPs that A needs for the loss that B reaches, in units of the FLOPs of "
                    "B. Bars are 95% intervals; a bar without an end is open."
                ),
                x_label="training FLOPs of B",
                y_label="FLOPs of A / FLOPs of B",
                marks=marks,
                log_x=True,
                reference=(1.0, "equal"),
            )
        ]

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Write the figure as .png, .svg or .html; raises ValueError for others."""
        write(self.charts(), path, "B against A")


def _marks(gains: Sequence[Gain], label: str, colour: str, shift: float) -> list[Mark]:
    """Points with their intervals; columns are shifted so that bars do not overlap."""
    known = [gain for gain in gains if np.isfinite(gain.value)]
    marks: list[Mark] = []
    for gain in known:
        # An open end is drawn to the value only, in grey.
        ends = [gain.value if end is None else end for end in (gain.low, gain.high)]
        open_end = None in (gain.low, gain.high)
        bar = np.full(2, gain.flops * shift)
        marks.append(
            Line(
                label=label,
                colour=QUIET if open_end else colour,
                x=bar,
                y=np.array(ends),
                width=2.0,
                in_legend=False,
            )
        )
    if known:
        x = np.array([gain.flops * shift for gain in known])
        y = np.array([gain.value for gain in known])
        marks.append(Points(label=label, colour=colour, x=x, y=y))
    return marks
