"""Charts as data, as figures of a page, and as images (mirrors
scalejax/fitting/charts)."""

import json
import re

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
from scalejax.fitting.charts.figure import figure
from scalejax.fitting.charts.matplotlib import images

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
        hover=["one", "</script><b>two"],
    )
    drawn = chart([band, line, points], log_x=True)
    html = figure([drawn])
    assert "the whole line" in html and "floor" in html
    assert "a <b>" not in html and "<b>two" not in html, "a text is not escaped"
    assert html.count("</script>") == 1, "a text ends the script"
    assert images([drawn], ["png"])["png"].startswith(b"\x89PNG")
    assert figure([drawn]) == html, "equal charts give different pages"


def test_the_place_of_a_tooltip_is_that_of_the_point():
    """The middle of three points is in the middle of the axes, from the left as well as
    from the top."""
    at, level = np.array([1e4, 1e5, 1e6]), np.array([3.0, 2.5, 2.0])
    points = Points(label="a", colour="#112233", x=at, y=level, hover=["one", "two", "three"])
    html = figure([chart([points], log_x=True)])
    data = re.search(r'<script type="application/json">(.*?)</script>', html)
    assert data
    found = json.loads(data[1])["points"]
    first, middle, last = ([x, y] for x, y, *_ in found)
    assert middle == pytest.approx(np.mean([first, last], axis=0), abs=0.1)
    assert first[0] < last[0] - 100 and first[1] < last[1] - 50, "y grows downwards"
    # Matplotlib writes the position of each marker into the SVG.
    uses = re.findall(r'<use [^>]*x="([0-9.]+)" y="([0-9.]+)"', html)
    places = {(round(float(x), 1), round(float(y), 1)) for x, y in uses}
    assert all((x, y) in places for x, y in (first, middle, last))


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
