"""Charts as data: axes and marks, to be drawn as an image or on a page."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

# Colours of text and axes, of secondary marks, of what needs attention, and of grid
# lines.
INK, QUIET, ALARM, RULE = "#1a1d21", "#6b7280", "#b3261e", "#e7e9ee"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
BAND_OPACITY = 0.15


@dataclass(frozen=True, kw_only=True)
class Points:
    """Points with optional error bars."""

    label: str
    """Text in the legend. Marks with the same label share an entry."""
    colour: str
    x: np.ndarray
    y: np.ndarray
    x_error: np.ndarray | None = None
    """Standard error along x."""
    y_error: np.ndarray | None = None
    """Standard error along y."""
    symbol: Literal["circle", "diamond"] = "circle"
    diameter: float = 4.5
    """In points."""
    hover: Sequence[str] = ()
    """Text under the pointer, one for each point; lines end in a newline."""
    in_legend: bool = True


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line through points."""

    label: str
    """Text in the legend. Marks with the same label share an entry."""
    colour: str
    x: np.ndarray
    y: np.ndarray
    dashed: bool = False
    width: float = 1.6
    """In points."""
    hover: str = ""
    """Text under the pointer, above the position on the line; empty for no text."""
    in_legend: bool = True


@dataclass(frozen=True, kw_only=True)
class Band:
    """The area between two lines. It is never in the legend."""

    label: str
    """Legend entry that shows and hides the band."""
    colour: str
    x: np.ndarray
    low: np.ndarray
    high: np.ndarray


Mark = Points | Line | Band


def joined_points(
    label: str, colour: str, x: np.ndarray, y: np.ndarray, y_error: np.ndarray | None = None
) -> list[Mark]:
    """Points of one series, and the line that joins them."""
    return [
        Points(label=label, colour=colour, x=x, y=y, y_error=y_error),
        Line(label=label, colour=colour, x=x, y=y),
    ]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure: axes, marks and a caption."""

    name: str
    """Name of the image file without the suffix."""
    title: str
    caption: str
    x_label: str
    y_label: str
    marks: list[Mark]
    log_x: bool = False
    log_y: bool = False
    y_ticks: dict[float, str] = field(default_factory=dict)
    """Labels that replace the numbers along y."""
    y_range: tuple[float, float] | None = None
    """Range of the y axis; None to show all marks."""
    reference: tuple[float, str] | None = None
    """Position and label of a dashed horizontal line."""
    height: int = 440
    """In CSS pixels."""
    view: str = ""
    """What this chart shows of a figure that a page can show in several ways, such as
    `FLOPs`."""


def legend_entries(marks: Sequence[Mark]) -> list[tuple[Mark, bool]]:
    """Each mark, and whether it has an entry in the legend: the first of its label."""
    first: dict[str, Mark] = {}
    for mark in marks:
        if not isinstance(mark, Band) and mark.in_legend:
            first.setdefault(mark.label, mark)
    return [(mark, first.get(mark.label) is mark) for mark in marks]


def series(marks: Sequence[Mark]) -> list[str]:
    """The labels of marks in their order, each once."""
    return list(dict.fromkeys(mark.label for mark in marks))


def x_range(chart: Chart) -> tuple[float, float]:
    """Range of the x axis: all marks and error bars, with 4% of space on both sides."""
    lows, highs = [], []
    for mark in chart.marks:
        error = mark.x_error if isinstance(mark, Points) else None
        bar = 0.0 if error is None else np.nan_to_num(error)
        lows.append(float(np.min(mark.x - bar)))
        highs.append(float(np.max(mark.x + bar)))
    low, high = min(lows), max(highs)
    if chart.log_x:
        factor = (high / low) ** 0.04 if high > low else 1.5
        return low / factor, high * factor
    space = 0.04 * (high - low) or 0.01 * abs(high) or 1.0
    return low - space, high + space


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high. The fewer decades they span, the denser they are.

    >>> log_ticks(5e5, 2.5e6)
    [500000.0, 600000.0, 800000.0, 1000000.0, 1500000.0, 2000000.0]
    """
    if high < 10 * low:
        steps = (1, 1.5, 2, 3, 4, 5, 6, 8)
    elif high < 1e3 * low:
        steps = (1, 2, 5)
    else:
        steps = (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    return [tick for tick in ticks if low <= tick <= high] or [low, high]


def compact_number(number: float) -> str:
    """A number with three digits and a unit.

    >>> [compact_number(x) for x in (950, 27_648, 1_200_000, 7e9, 5.88e23)]
    ['950', '27.6k', '1.2M', '7B', '5.88e+23']
    """
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        # From 0.9995 of a unit on, three digits round to 1 of that unit.
        if unit * 0.9995 <= abs(number) < unit * 1e3:
            return f"{number / unit:.3g}{name}"
    return f"{number:.3g}"


# Colours of series that have no order: easier to tell apart than shades of one colour.
SERIES_COLOURS = (
    *("#1f5fa8", "#7a4fb5", "#444a54", "#d1741f", "#b3261e"),
    *("#2e8b57", "#b58900", "#008b9a", "#c2408f"),
)


def size_colours(sizes: Iterable[float]) -> dict[float, str]:
    """Return a colour for each model size, or budget: viridis by its rank."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    ordered = sorted(set(sizes))
    # Beyond 0.58, viridis has less than three times the contrast to white that marks
    # need.
    step = 0.58 / max(1, len(ordered) - 1)
    return {size: to_hex(colormaps["viridis"](step * i)) for i, size in enumerate(ordered)}
