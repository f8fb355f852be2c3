"""Charts as data, drawn twice: by plotly for the page, by matplotlib for the paper."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

INK, QUIET, ALARM, RULE = "#1a1d21", "#6b7280", "#b3261e", "#e7e9ee"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
BAND_OPACITY = 0.15
DOTS_PER_INCH = 200


@dataclass(frozen=True, kw_only=True)
class Series:
    """One set of marks. Series of one label share a legend entry; a band lies between `y` and `high`."""

    label: str
    colour: str
    x: np.ndarray
    y: np.ndarray
    kind: str = "points"
    """`points`, `line` or `band`."""
    high: np.ndarray | None = None
    """Upper edge of a band."""
    x_error: np.ndarray | None = None
    """Standard error along x (points)."""
    y_error: np.ndarray | None = None
    """Standard error along y (points)."""
    hover: Sequence[str] = ()
    """What the pointer shows: one text per mark, or one plotly template for the whole line."""
    symbol: str = "circle"
    """`circle`, `diamond` or `x` (points)."""
    dash: bool = False
    width: float = 1.6
    """Of a line, in points."""
    in_legend: bool = True


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure: axes, marks, and the sentence under it."""

    name: str
    """File name of the PNG, without the ending."""
    title: str
    caption: str
    x_label: str
    y_label: str
    series: list[Series]
    log_x: bool = False
    y_ticks: dict[float, str] = field(default_factory=dict)
    """Words in place of numbers along y."""
    y_range: tuple[float, float] | None = None
    """What the y axis shows; all marks unless given."""
    level: tuple[float, str] | None = None
    """A horizontal reference line and its name."""
    height: int = 440
    """CSS pixels."""


def plotly_div(chart: Chart) -> str:
    """The chart as an HTML fragment; the page around it carries plotly's script."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for one, in_legend in _with_legend(chart.series):
        group = escape(one.label)
        figure.add_scatter(
            name=group, legendgroup=group, showlegend=in_legend, **_plotly_marks(one)
        )
    if chart.level:
        place, words = chart.level
        line = {"color": QUIET, "width": 1.2, "dash": "dash"}
        figure.add_hline(
            y=place, line=line, annotation={"text": escape(words), "font": {"color": QUIET}}
        )
    legend = {"x": 1.02, "y": 1, "font": {"size": 13}, "tracegroupgap": 0}
    figure.update_layout(
        template="none",
        font={"family": FONT, "size": 14, "color": INK},
        legend=legend,
        margin={"l": 64, "r": 16, "t": 28, "b": 64},
        height=chart.height,
        hovermode="closest",
    )
    ruled = {
        "gridcolor": RULE,
        "linecolor": QUIET,
        "showline": True,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
    }
    low, high = x_span(chart)
    ends = [math.log10(low), math.log10(high)] if chart.log_x else [low, high]
    figure.update_xaxes(title={"text": chart.x_label, "font": {"size": 14}}, range=ends, **ruled)
    figure.update_yaxes(
        title={"text": chart.y_label, "font": {"size": 14}}, automargin=True, **ruled
    )
    if chart.y_range:
        figure.update_yaxes(range=chart.y_range)
    if chart.log_x:
        ticks = log_ticks(low, high)
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=[compact(tick) for tick in ticks])
    if chart.y_ticks:
        words = [escape(word).replace("\n", "<br>") for word in chart.y_ticks.values()]
        figure.update_yaxes(tickvals=list(chart.y_ticks), ticktext=words, showgrid=False)
    config = {
        "displaylogo": False,
        "responsive": True,
        "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
    }
    height = f"{chart.height}px"
    return figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        config=config,
        div_id=chart.name,
        default_height=height,
    )


def _plotly_marks(one: Series) -> dict[str, Any]:
    if one.kind == "band":
        assert one.high is not None
        outline = {
            "x": np.concatenate([one.x, one.x[::-1]]),
            "y": np.concatenate([one.high, one.y[::-1]]),
        }
        red, green, blue = (int(one.colour[i : i + 2], 16) for i in (1, 3, 5))
        fill = f"rgba({red},{green},{blue},{BAND_OPACITY})"
        return {
            **outline,
            "fill": "toself",
            "fillcolor": fill,
            "line": {"width": 0},
            "mode": "lines",
            "hoverinfo": "skip",
        }
    words = (
        {"text": list(one.hover), "hovertemplate": "%{text}<extra></extra>"}
        if one.hover
        else {"hoverinfo": "skip"}
    )
    if one.kind == "line":
        words = (
            {"hovertemplate": one.hover[0] + "<extra></extra>"}
            if one.hover
            else {"hoverinfo": "skip"}
        )
        line = {
            "color": one.colour,
            "width": one.width * 4 / 3,
            "dash": "dash" if one.dash else "solid",
        }
        return {"x": one.x, "y": one.y, "mode": "lines", "line": line, **words}
    marker = {
        "color": one.colour,
        "size": 7 if one.symbol == "circle" else 10,
        "symbol": one.symbol,
    }
    marker["line"] = {"color": "white", "width": 1}
    bars = {"x": one.x_error, "y": one.y_error}
    errors = {
        f"error_{axis}": {"array": bar, "thickness": 1.2, "width": 3}
        for axis, bar in bars.items()
        if bar is not None
    }
    return {"x": one.x, "y": one.y, "mode": "markers", "marker": marker, **words, **errors}


def png(chart: Chart) -> bytes:
    """The chart as a PNG of 200 dots per inch, as wide as a page's text."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, max(2.2, chart.height / 105)), layout="constrained")
    axes = figure.subplots()
    for one, in_legend in _with_legend(chart.series):
        _matplotlib_marks(axes, one, one.label if in_legend else None)
    if chart.level:
        axes.axhline(
            chart.level[0], color=QUIET, linewidth=0.9, linestyle="--", label=chart.level[1] or None
        )
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.grid(color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    low, high = x_span(chart)
    if chart.y_range:
        axes.set_ylim(*chart.y_range)
    if not chart.log_x:
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlim(low, high)
    else:
        ticks = log_ticks(low, high)
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.minorticks_off()
        axes.set_xticks(ticks, [compact(tick) for tick in ticks])
    if chart.y_ticks:
        axes.set_yticks(list(chart.y_ticks), list(chart.y_ticks.values()), linespacing=1.4)
    axes.legend(
        frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.4
    )
    stream = io.BytesIO()
    figure.savefig(stream, dpi=DOTS_PER_INCH, format="png")
    return stream.getvalue()


def _matplotlib_marks(axes: Any, one: Series, label: str | None) -> None:
    if one.kind == "band":
        axes.fill_between(one.x, one.y, one.high, color=one.colour, alpha=BAND_OPACITY, linewidth=0)
    elif one.kind == "line":
        style = "--" if one.dash else "-"
        axes.plot(
            one.x,
            one.y,
            style,
            color=one.colour,
            linewidth=one.width,
            label=label,
            solid_capstyle="butt",
        )
    else:
        look = {
            "fmt": {"circle": "o", "diamond": "D", "x": "x"}[one.symbol],
            "color": one.colour,
            "markersize": 4.5,
        }
        bars = {"xerr": one.x_error, "yerr": one.y_error, "elinewidth": 0.8, "capsize": 1.5}
        axes.errorbar(one.x, one.y, **bars, **look, label=label, zorder=3)


def _with_legend(series: Sequence[Series]) -> list[tuple[Series, bool]]:
    """Each series, and whether it stands in the legend: the first of its label that wants to."""
    first: dict[str, Series] = {}
    for one in series:
        if one.in_legend:
            first.setdefault(one.label, one)
    return [(one, first.get(one.label) is one) for one in series]


def x_span(chart: Chart) -> tuple[float, float]:
    """What the x axis shows: all marks and their error bars, with 4% of room on both sides."""
    bars = [
        (one.x, 0.0 if one.x_error is None else np.nan_to_num(one.x_error)) for one in chart.series
    ]
    low = min(float(np.min(x - bar)) for x, bar in bars)
    high = max(float(np.max(x + bar)) for x, bar in bars)
    if chart.log_x:
        room = (high / low) ** 0.04 if high > low else 1.5
        return low / room, high * room
    room = 0.04 * (high - low) or 0.01 * abs(high) or 1.0
    return low - room, high + room


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, denser the fewer decades they span.

    >>> log_ticks(5e5, 2.5e6)
    [500000.0, 600000.0, 800000.0, 1000000.0, 1500000.0, 2000000.0]
    """
    steps = (
        (1, 1.5, 2, 3, 4, 5, 6, 8) if high < 10 * low else (1, 2, 5) if high < 1e3 * low else (1,)
    )
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    return [tick for tick in ticks if low <= tick <= high] or [low, high]


def compact(number: float) -> str:
    """Three digits and a unit.

    >>> [compact(x) for x in (950, 27_648, 1_200_000, 7e9, 5.88e23)]
    ['950', '27.6k', '1.2M', '7B', '5.88e+23']
    """
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if unit * 0.9995 <= abs(number) < unit * 1e3:
            return f"{number / unit:.3g}{name}"
    return f"{number:.3g}"
