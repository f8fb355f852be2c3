"""Writes charts to a file, as an image or as an interactive page."""

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

from scalejax.files import replacing
from scalejax.fitting.charts.chart import FONT, INK, Chart
from scalejax.fitting.charts.matplotlib import image
from scalejax.fitting.charts.plotly import plotly_html

SUFFIXES = (".png", ".svg", ".html")


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
            content = image(charts, "svg")
        case _:
            content = image(charts, "png")
    with replacing(target) as temporary:
        temporary.write_bytes(content)


def _page(charts: Sequence[Chart], title: str) -> str:
    """A page of interactive charts. It needs no network."""
    from plotly.offline import get_plotlyjs

    figures = "".join(
        f"<h2>{escape(chart.title)}</h2>{plotly_html(chart)}<p>{escape(chart.caption)}</p>"
        for chart in charts
    )
    style = f"body {{ font: 16px/1.5 {FONT}; color: {INK}; max-width: 60rem; margin: 2rem auto; }}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{style}</style><script>{get_plotlyjs()}</script></head>"
        f"<body><h1>{escape(title)}</h1>{figures}</body></html>"
    )
