"""Draw charts with matplotlib, as PNG or SVG images for paper."""

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
    x_range,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOTS_PER_INCH = 200

# Width of a page's text, in inches.
WIDTH = 7.0

# Width of a panel beside others, in inches.
PANEL_WIDTH = 4.8

# Converts the height of a chart on the page to inches.
PIXELS_PER_INCH = 105

# Matplotlib's marker for each symbol.
MARKERS = {"circle": "o", "diamond": "D"}


def png(chart: Chart) -> bytes:
    """The chart as a PNG image."""
    return image([chart], "png")


def image(charts: Sequence[Chart], form: Literal["png", "svg"]) -> bytes:
    """The charts as one image, side by side."""
    # Figure draws without pyplot, which would keep global state.
    from matplotlib.figure import Figure

    height = max(2.2, max(chart.height for chart in charts) / PIXELS_PER_INCH)
    width = max(WIDTH, PANEL_WIDTH * len(charts))
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(1, len(charts), squeeze=False).ravel()
    for axes, chart in zip(panels, charts, strict=True):
        _draw_chart(axes, chart, titled=len(charts) > 1)
    stream = io.BytesIO()
    # Without a date, equal charts give equal files.
    metadata = {"Date": None} if form == "svg" else None
    figure.savefig(stream, dpi=DOTS_PER_INCH, format=form, metadata=metadata)
    return stream.getvalue()


def _draw_chart(axes: "Axes", chart: Chart, *, titled: bool) -> None:
    for mark, in_legend in legend_entries(chart.marks):
        _draw(axes, mark, mark.label if in_legend else None)
    if chart.reference:
        position, label = chart.reference
        axes.axhline(position, color=QUIET, linewidth=0.9, linestyle="--", label=label or None)
    _set_axes(axes, chart)
    if titled:
        axes.set_title(chart.title, fontsize=10, loc="left")
    if not axes.get_legend_handles_labels()[0]:
        return
    # A panel beside others has no room for a legend on its right.
    if titled:
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


def _draw(axes: "Axes", mark: Mark, label: str | None) -> None:
    if isinstance(mark, Band):
        axes.fill_between(
            mark.x, mark.low, mark.high, color=mark.colour, alpha=BAND_OPACITY, linewidth=0
        )
    elif isinstance(mark, Line):
        axes.plot(
            mark.x,
            mark.y,
            "--" if mark.dashed else "-",
            color=mark.colour,
            linewidth=mark.width,
            label=label,
            solid_capstyle="butt",
        )
    else:
        axes.errorbar(
            mark.x,
            mark.y,
            xerr=mark.x_error,
            yerr=mark.y_error,
            fmt=MARKERS[mark.symbol],
            color=mark.colour,
            markersize=4.5,
            elinewidth=0.8,
            capsize=1.5,
            label=label,
            zorder=3,
        )
