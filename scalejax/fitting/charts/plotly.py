"""Draw charts with plotly, as interactive HTML."""

import math
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from scalejax.fitting.charts.chart import (
    BAND_OPACITY,
    FONT,
    INK,
    QUIET,
    RULE,
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

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Matplotlib measures lines in points and plotly in CSS pixels.
PIXELS_PER_POINT = 4 / 3


def plotly_html(chart: Chart) -> str:
    """The chart as an HTML fragment, for a page that contains plotly's script."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for mark, in_legend in legend_entries(chart.marks):
        label = escape(mark.label)
        figure.add_scatter(name=label, legendgroup=label, showlegend=in_legend, **_scatter(mark))
    if chart.reference:
        position, label = chart.reference
        line = {"color": QUIET, "width": 1.2, "dash": "dash"}
        annotation = {"text": escape(label), "font": {"color": QUIET}}
        figure.add_hline(y=position, line=line, annotation=annotation)
    figure.update_layout(
        template="none",
        font={"family": FONT, "size": 14, "color": INK},
        legend={"x": 1.02, "y": 1, "font": {"size": 13}, "tracegroupgap": 0},
        margin={"l": 64, "r": 16, "t": 28, "b": 64},
        height=chart.height,
        hovermode="closest",
    )
    _set_axes(figure, chart)
    unused_buttons = ["select2d", "lasso2d", "autoScale2d"]
    return figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        config={"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": unused_buttons},
        div_id=chart.name,
        default_height=f"{chart.height}px",
    )


def _set_axes(figure: "Figure", chart: Chart) -> None:
    style: dict[str, Any] = {
        "gridcolor": RULE,
        "linecolor": QUIET,
        "showline": True,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
    }
    low, high = x_range(chart)
    # Plotly takes the range of a logarithmic axis in powers of ten.
    ends = [math.log10(low), math.log10(high)] if chart.log_x else [low, high]
    x_title = {"text": chart.x_label, "font": {"size": 14}}
    y_title = {"text": chart.y_label, "font": {"size": 14}}
    figure.update_xaxes(title=x_title, range=ends, **style)
    figure.update_yaxes(title=y_title, automargin=True, **style)
    if chart.log_y:
        figure.update_yaxes(type="log", exponentformat="power")
    if chart.y_range:
        ends = [math.log10(end) for end in chart.y_range] if chart.log_y else chart.y_range
        figure.update_yaxes(range=ends)
    if chart.log_x:
        ticks = log_ticks(low, high)
        labels = [compact_number(tick) for tick in ticks]
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=labels)
    if chart.y_ticks:
        labels = [escape(label).replace("\n", "<br>") for label in chart.y_ticks.values()]
        figure.update_yaxes(tickvals=list(chart.y_ticks), ticktext=labels, showgrid=False)


def _scatter(mark: Mark) -> dict[str, Any]:
    """The arguments of plotly's scatter trace for a mark."""
    if isinstance(mark, Band):
        return _band(mark)
    if isinstance(mark, Line):
        return _line(mark)
    return _points(mark)


def _band(band: Band) -> dict[str, Any]:
    red, green, blue = (int(band.colour[i : i + 2], 16) for i in (1, 3, 5))
    return {
        # The outline runs along the upper edge and back along the lower one.
        "x": np.concatenate([band.x, band.x[::-1]]),
        "y": np.concatenate([band.high, band.low[::-1]]),
        "fill": "toself",
        "fillcolor": f"rgba({red},{green},{blue},{BAND_OPACITY})",
        "line": {"width": 0},
        "mode": "lines",
        "hoverinfo": "skip",
    }


def _line(line: Line) -> dict[str, Any]:
    hover = {"hoverinfo": "skip"}
    if line.hover:
        # <extra> is plotly's box with the name of the trace.
        hover = {"hovertemplate": f"{line.hover}<extra></extra>"}
    style = {
        "color": line.colour,
        "width": line.width * PIXELS_PER_POINT,
        "dash": "dash" if line.dashed else "solid",
    }
    return {"x": line.x, "y": line.y, "mode": "lines", "line": style, **hover}


def _points(points: Points) -> dict[str, Any]:
    trace: dict[str, Any] = {"x": points.x, "y": points.y, "mode": "markers"}
    trace["marker"] = {
        "color": points.colour,
        "size": 7 if points.symbol == "circle" else 10,
        "symbol": points.symbol,
        "line": {"color": "white", "width": 1},
    }
    if points.hover:
        trace |= {"text": list(points.hover), "hovertemplate": "%{text}<extra></extra>"}
    else:
        trace["hoverinfo"] = "skip"
    for axis, error in (("x", points.x_error), ("y", points.y_error)):
        if error is not None:
            trace[f"error_{axis}"] = {"array": error, "thickness": 1.2, "width": 3}
    return trace
