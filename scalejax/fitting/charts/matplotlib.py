"""Draw charts with matplotlib: as PNG and SVG images, and into axes of a page."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from scalejax.fitting.charts.chart import (
    BAND_OPACITY,
    QUIET,
    RULE,
    Band,
    Chart,
    Line,
    Mark,
    compact_number,
    legend_entries,
    log_ticks,
    series,
    x_range,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

DOTS_PER_INCH = 200

# Width of a page's text, in inches.
WIDTH = 7.0

# Width of a panel beside others, in inches.
PANEL_WIDTH = 4.8

# Converts the height of a chart on the page to inches.
PIXELS_PER_INCH = 105

Form = Literal["png", "svg"]

# Matplotlib's marker for each symbol.
MARKERS = {"circle": "o", "diamond": "D"}


def images(
    charts: Sequence[Chart], forms: Sequence[Form], *, panel: bool = False
) -> dict[Form, bytes]:
    """The charts side by side, as one image in each of the forms.

    panel: draw a single chart as if it were beside others, narrow and with its legend
    inside.
    """
    # Figure draws without pyplot, which would keep global state.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    height = max(2.2, max(chart.height for chart in charts) / PIXELS_PER_INCH)
    beside = panel or len(charts) > 1
    width = PANEL_WIDTH * len(charts) if beside else WIDTH
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(1, len(charts), squeeze=False).ravel()
    for axes, chart in zip(panels, charts, strict=True):
        draw_chart(axes, chart)
        _add_legend(axes, chart, beside=beside)
    drawn: dict[Form, bytes] = {}
    for form in forms:
        stream = io.BytesIO()
        # Without a date and with a salt of ours, equal charts give equal files.
        metadata = {"Date": None} if form == "svg" else None
        with rc_context({"svg.hashsalt": "scalejax"}):
            figure.savefig(stream, dpi=DOTS_PER_INCH, format=form, metadata=metadata)
        drawn[form] = stream.getvalue()
        # The first form settled the layout, which takes as long as drawing.
        figure.set_layout_engine(None)
    return drawn


def draw_chart(axes: "Axes", chart: Chart) -> None:
    """Draw the marks and axes of a chart, without a legend.

    The group id of what is drawn for a mark is `series-K`, where K is the position of
    its label in `series(chart.marks)`.
    """
    number = {label: i for i, label in enumerate(series(chart.marks))}
    for mark, in_legend in legend_entries(chart.marks):
        for artist in _draw(axes, mark, mark.label if in_legend else None):
            artist.set_gid(f"series-{number[mark.label]}")
    if chart.reference:
        position, label = chart.reference
        axes.axhline(position, color=QUIET, linewidth=0.9, linestyle="--", label=label or None)
    _set_axes(axes, chart)


def _add_legend(axes: "Axes", chart: Chart, *, beside: bool) -> None:
    """Add the legend, and the title of a chart that is beside others."""
    if beside:
        axes.set_title(chart.title, fontsize=10, loc="left")
    if not axes.get_legend_handles_labels()[0]:
        return
    # A panel beside others has no room for a legend on its right.
    if beside:
        axes.legend(frameon=False, fontsize=7, handlelength=1.4, loc="best")
    else:
        axes.legend(
            frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.4
        )


def _set_axes(axes: "Axes", chart: Chart) -> None:
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.grid(color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    low, high = x_range(chart)
    if chart.y_range:
        axes.set_ylim(*chart.y_range)
    if chart.log_y:
        axes.set_yscale("log")
        ticks = log_ticks(*axes.get_ylim())
        axes.set_yticks(ticks, [compact_number(tick) for tick in ticks])
    if chart.log_x:
        ticks = log_ticks(low, high)
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.minorticks_off()
        axes.set_xticks(ticks, [compact_number(tick) for tick in ticks])
    else:
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlim(low, high)
    if chart.y_ticks:
        axes.set_yticks(list(chart.y_ticks), list(chart.y_ticks.values()), linespacing=1.4)


def _draw(axes: "Axes", mark: Mark, label: str | None) -> "list[Artist]":
    """Draw a mark and return its artists."""
    if isinstance(mark, Band):
        area = axes.fill_between(
            mark.x, mark.low, mark.high, color=mark.colour, alpha=BAND_OPACITY, linewidth=0
        )
        return [area]
    if isinstance(mark, Line):
        lines = axes.plot(
            mark.x,
            mark.y,
            "--" if mark.dashed else "-",
            color=mark.colour,
            linewidth=mark.width,
            label=label,
            solid_capstyle="butt",
        )
        return list(lines)
    points = axes.errorbar(
        mark.x,
        mark.y,
        xerr=mark.x_error,
        yerr=mark.y_error,
        fmt=MARKERS[mark.symbol],
        color=mark.colour,
        markersize=mark.diameter,
        elinewidth=0.8,
        capsize=1.5,
        label=label,
        zorder=3,
    )
    return points.get_children()
