"""Writes charts to an image file, an interactive page, or a notebook."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from scalejax.files import replacing
from scalejax.fitting.charts.chart import FONT, Chart
from scalejax.fitting.charts.figure import figure
from scalejax.fitting.charts.matplotlib import images
from scalejax.fitting.charts.script import SCRIPT
from scalejax.fitting.charts.style import COLOURS, STYLE

SUFFIXES = (".png", ".svg", ".html")

# Width of a chart in a notebook, in CSS pixels. Two fit side by side on a wide screen.
NOTEBOOK_WIDTH = 480


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Raise ValueError unless the path ends in one of SUFFIXES."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"a figure is written to a file in {', '.join(SUFFIXES)}; got {path}")


def write(charts: Sequence[Chart], path: str | os.PathLike[str], title: str) -> None:
    """Write charts to one file, completely or not at all. Its suffix says as what.

    Raises ValueError for another suffix.
    """
    check_suffix(path)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    match target.suffix.lower():
        case ".html":
            content = _page(charts, title).encode()
        case ".svg":
            content = images(charts, ["svg"])["svg"]
        case _:
            content = images(charts, ["png"])["png"]
    with replacing(target) as temporary:
        temporary.write_bytes(content)


@dataclass(frozen=True)
class Picture:
    """Charts that a notebook shows."""

    charts: Sequence[Chart] = field(repr=False)

    def _repr_html_(self) -> str:
        """Images that wrap to the width of the page."""
        return "".join(_image(chart) for chart in self.charts)


def _image(chart: Chart) -> str:
    """An image of a chart, in HTML that needs no other file."""
    image = base64.b64encode(images([chart], ["png"], panel=True)["png"]).decode()
    alt = escape(f"{chart.title}. {chart.caption}")
    return (
        f'<img src="data:image/png;base64,{image}" alt="{alt}" width="{NOTEBOOK_WIDTH}" '
        'style="max-width: 100%">'
    )


def _page(charts: Sequence[Chart], title: str) -> str:
    """A page of interactive charts. It needs no network."""
    figures = "".join(f"<h2>{escape(chart.title)}</h2>{figure([chart])}" for chart in charts)
    body = (
        f"body {{ font: 16px/1.5 {FONT}; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }}"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{COLOURS}{STYLE}{body}</style></head>"
        f"<body><h1>{escape(title)}</h1>{figures}<script>{SCRIPT}</script></body></html>"
    )
