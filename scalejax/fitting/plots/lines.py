"""Parts that the figures of all kinds of law share."""

from collections.abc import Callable
from typing import Any

import numpy as np

from scalejax.fitting.charts.chart import Band, Line, Mark, compact_number

# The error of a fit that has no rows to draw.
NO_ROWS = (
    "a figure needs the fitted rows, which a file does not hold; plot the Fit that `fit` "
    "returned, or use `scalejax fit --plot`"
)

# Points of a fitted line.
LINE_POINTS = 40

# Colour of what belongs to the law and to no single size.
LAW_COLOUR = "#1f4e79"


def spaced(low: float, high: float, *, log: bool = True) -> np.ndarray:
    """Return the points of a line from low to high."""
    if low == high:
        return np.array([low])
    return np.geomspace(low, high, LINE_POINTS) if log else np.linspace(low, high, LINE_POINTS)


def predicted(
    label: str, colour: str, x: np.ndarray, predict: Callable[[float], Any]
) -> list[Mark]:
    """Return a line of predictions and, where they have intervals, its band.

    predict: returns the `Estimate` at one x.
    """
    estimates = [predict(float(point)) for point in x]
    value = np.array([estimate.value for estimate in estimates])
    marks: list[Mark] = [Line(label=label, colour=colour, x=x, y=value, in_legend=False)]
    if all(estimate.low is not None and estimate.high is not None for estimate in estimates):
        low = np.array([estimate.low for estimate in estimates], float)
        high = np.array([estimate.high for estimate in estimates], float)
        marks.insert(0, Band(label=label, colour=colour, x=x, low=low, high=high))
    return marks


def in_words(size: float, what: str) -> str:
    """Return a quantity for a legend, such as "50M params"."""
    return f"{compact_number(size)} {what}"
