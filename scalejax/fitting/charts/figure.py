"""Charts as figures of an HTML page: SVG with a legend of buttons and a tooltip.

The SVG is in the page, so that a figure shows without scripts, prints sharply, and
needs no network. The script adds what a reader can ask for: the facts of the point
under the pointer or the arrow keys, series that can be hidden, and other views.
"""

import io
import json
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from scalejax.fitting.charts.chart import (
    Band,
    Chart,
    Line,
    Mark,
    Points,
    compact_number,
    legend_entries,
    series,
)
from scalejax.fitting.charts.matplotlib import draw_chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Size of the drawing in inches. A page scales it to the width that it has.
WIDTH, PIXELS_PER_INCH = 6.9, 117

# The SVG measures in points.
POINTS_PER_INCH = 72

# Ids that matplotlib gives to axes, ticks and texts. Nothing refers to them, and
# several figures in a page would repeat them.
UNUSED_ID = re.compile(r' id="[A-Za-z.]+[0-9]*[a-z]*_[0-9]+"')
SERIES_ID = re.compile(r' id="series-([0-9]+)"')


def figure(charts: Sequence[Chart], *, has_files: bool = False) -> str:
    """Return one figure that shows the charts as views between which a reader chooses.

    has_files: whether figures/NAME.png and figures/NAME.svg of each chart are beside
    the page; the figure then has links to them.
    """
    name = escape(charts[0].name, quote=True)
    switch = ""
    if len(charts) > 1:
        options = "".join(
            f'<label><input type="radio" name="view-{name}" value="{i}"'
            f"{' checked' if i == 0 else ''}>{escape(chart.view)}</label>"
            for i, chart in enumerate(charts)
        )
        switch = f'<fieldset class="switch"><legend>Show</legend>{options}</fieldset>'
    views = "".join(
        f'<div class="view"{" hidden" if i else ""}>{_view(chart, has_files)}</div>'
        for i, chart in enumerate(charts)
    )
    return f'<figure class="chart" id="figure-{name}">{switch}{views}</figure>'


def _view(chart: Chart, has_files: bool) -> str:
    """The plot of a chart; beside it its legend, its caption and links to its files."""
    drawing, facts = _draw(chart)
    label = escape(f"{chart.title}. {chart.caption}", quote=True)
    caption = f"<strong>{escape(chart.title)}.</strong> {escape(chart.caption)}"
    links = ""
    if has_files:
        files = (
            f'<a href="figures/{chart.name}.{form}" download>{form.upper()}</a>'
            for form in ("png", "svg")
        )
        links = f'<p class="files">Download: {" ".join(files)}</p>'
    css_class = "plot named" if chart.y_ticks else "plot"
    hint = " Arrow keys move from point to point." if facts["points"] else ""
    # A script element ends at the first "</", whatever is around it.
    data = json.dumps(facts, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<div class="{css_class}" tabindex="0" role="group" aria-label="{label}{hint}">{drawing}'
        '<div class="tip" role="status" hidden></div></div>'
        f'<div class="beside">{_legend(chart)}<figcaption>{caption}</figcaption>'
        f'{links}</div><script type="application/json">{data}</script>'
    )


def _draw(chart: Chart) -> tuple[str, dict[str, list]]:
    """The SVG of a chart without its legend, and the facts about its points."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    size = (WIDTH, max(1.6, chart.height / PIXELS_PER_INCH))
    stream = io.StringIO()
    # Texts stay texts, in the font of the page. The salt makes ids that differ between
    # charts and are the same each time.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": chart.name}):
        drawing = Figure(figsize=size, layout="constrained")
        axes = drawing.subplots()
        draw_chart(axes, chart)
        drawing.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
        points = _facts(drawing, axes, chart)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # The page sets the size, and the drawing keeps its shape through its viewBox.
    for side in ("width", "height"):
        svg = re.sub(rf'<svg ([^>]*?){side}="[^"]*pt"', r"<svg \1", svg)
    svg = SERIES_ID.sub(r' data-series="\1"', svg)
    svg = UNUSED_ID.sub("", svg)
    return svg.replace("<svg ", '<svg aria-hidden="true" ', 1), points


def _facts(drawing: "Figure", axes: "Axes", chart: Chart) -> dict[str, list]:
    """Positions of points in the SVG, and their texts.

    A point is [x, y, series, mark, index of its text, its own line of text].
    """
    texts: dict[str, int] = {}
    points = []
    number = {label: i for i, label in enumerate(series(chart.marks))}
    box = axes.get_window_extent()
    height = drawing.get_figheight() * POINTS_PER_INCH
    for i, mark in enumerate(chart.marks):
        own = _texts(mark, chart)
        if isinstance(mark, Band) or not own:
            continue
        pixels = axes.transData.transform(np.column_stack([mark.x, mark.y]))
        for (x, y), (text, line) in zip(pixels, own, strict=True):
            # Points outside the axes are not drawn.
            if not box.padded(1, 1).contains(x, y):
                continue
            at = np.array([x, y]) * POINTS_PER_INCH / drawing.dpi
            place = [round(float(at[0]), 1), round(float(height - at[1]), 1)]
            of = [number[mark.label], i, texts.setdefault(text, len(texts))]
            points.append([*place, *of, line])
    # The arrow keys follow this order: series by series, along x.
    points.sort(key=lambda point: (point[2], point[3], point[0]))
    return {"texts": list(texts), "points": points}


def _texts(mark: Mark, chart: Chart) -> list[tuple[str, str]]:
    """(text, own line) of each point of a mark; empty for a mark without texts."""
    if isinstance(mark, Points):
        # What the lines above say of a run is shared by all of its points.
        parts = [text.rpartition("\n") for text in mark.hover]
        return [(head, last) for head, _, last in parts]
    if isinstance(mark, Line) and mark.hover:
        quantity = chart.y_label.partition(",")[0]
        unit = chart.x_label.rpartition(" ")[2]
        return [
            (mark.hover, f"{quantity} {y:.4g} at {compact_number(x)} {unit}")
            for x, y in zip(mark.x, mark.y, strict=True)
        ]
    return []


def _legend(chart: Chart) -> str:
    """A button for each entry of the legend, which shows and hides its series."""
    number = {label: i for i, label in enumerate(series(chart.marks))}
    items = [
        f'<li><button type="button" aria-pressed="true" data-series="{number[mark.label]}">'
        f"{_swatch(mark)}{escape(mark.label)}</button></li>"
        for mark, in_legend in legend_entries(chart.marks)
        if in_legend and mark.label
    ]
    if chart.reference and chart.reference[1]:
        items.append(f'<li class="reference">{escape(chart.reference[1])} (dashed)</li>')
    return f'<ul class="legend" aria-label="Legend">{"".join(items)}</ul>' if items else ""


def _swatch(mark: Mark) -> str:
    """The sign of a mark in the legend, as SVG."""
    colour = escape(mark.colour, quote=True)
    if isinstance(mark, Line):
        dashes = ' stroke-dasharray="4 2"' if mark.dashed else ""
        width = min(6.0, mark.width * 1.4)
        shape = f'<path d="M1 7H17" stroke="{colour}" stroke-width="{width:.1f}"{dashes}/>'
    elif isinstance(mark, Points) and mark.symbol == "diamond":
        shape = f'<path d="M9 2L14 7L9 12L4 7Z" fill="{colour}"/>'
    else:
        shape = f'<circle cx="9" cy="7" r="4.5" fill="{colour}"/>'
    return f'<svg class="swatch" viewBox="0 0 18 14" aria-hidden="true">{shape}</svg>'
