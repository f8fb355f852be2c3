"""Charts as data, and as drawn by plotly and by matplotlib.

Mirrors scalejax/report/charts.py, plotly_charts.py and png_charts.py.
"""

import numpy as np
import pytest

from scalejax.fitting.charts.chart import (
    Band,
    Chart,
    Line,
    Mark,
    Points,
    compact_number,
    legend_entries,
    log_ticks,
    x_range,
)
from scalejax.fitting.charts.matplotlib import png
from scalejax.fitting.charts.plotly import plotly_html

X, Y = np.array([1e5, 1e6]), np.array([3.0, 2.5])


def chart(marks: list[Mark], *, log_x: bool = False) -> Chart:
    return Chart(
        name="c",
        title="",
        caption="",
        x_label="tokens",
        y_label="loss",
        marks=marks,
        log_x=log_x,
        reference=(2.8, "floor"),
    )


def test_both_drawings_contain_the_chart():
    band = Band(label="a <b>", colour="#112233", x=X, low=Y, high=Y + 0.2)
    line = Line(label="a <b>", colour="#112233", x=X, y=Y, hover="the whole line")
    points = Points(
        label="a <b>",
        colour="#112233",
        x=X,
        y=Y,
        x_error=np.array([1.0, 1.0]),
        y_error=np.array([0.1, 0.1]),
        hover=["one", "two"],
    )
    html = plotly_html(chart([band, line, points], log_x=True))
    assert '"two"' in html and "the whole line" in html and "floor" in html
    assert "a <b>" not in html, "the label is not escaped"
    assert png(chart([band, line, points], log_x=True)).startswith(b"\x89PNG")


def test_marks_with_the_same_label_share_one_entry_of_the_legend():
    band = Band(label="a", colour="#112233", x=X, low=Y, high=Y)
    hidden = Line(label="a", colour="#112233", x=X, y=Y, in_legend=False)
    first = Points(label="a", colour="#112233", x=X, y=Y)
    second = Points(label="a", colour="#112233", x=X, y=Y)
    shown = [in_legend for _, in_legend in legend_entries([band, hidden, first, second])]
    assert shown == [False, False, True, False]


@pytest.mark.parametrize(("low", "high"), [(5e5, 2.5e6), (1e3, 9e5), (1e3, 1e9), (7e5, 7.1e5)])
def test_log_ticks_are_few_and_lie_within_the_axis(low, high):
    ticks = log_ticks(low, high)
    assert 2 <= len(ticks) <= 10 and ticks == sorted(ticks)
    assert low <= ticks[0] and ticks[-1] <= high
    assert len({compact_number(tick) for tick in ticks}) == len(ticks)


@pytest.mark.parametrize("log_x", [False, True])
def test_the_axis_of_a_single_point_has_a_width(log_x):
    point = Points(label="", colour="#000000", x=np.array([2.0]), y=np.array([1.0]))
    low, high = x_range(chart([point], log_x=log_x))
    assert low < 2 < high
