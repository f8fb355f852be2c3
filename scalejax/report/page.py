"""The HTML page around a report. It needs no network."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from string import Template

from scalejax.fitting.charts import script as figure_script
from scalejax.fitting.charts import style as figure_style
from scalejax.fitting.charts.chart import FONT
from scalejax.fitting.charts.style import COLOURS
from scalejax.report.table_script import TABLES


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    value: float | None = None
    """Number to sort by; None to sort by the text."""
    is_alarm: bool = False
    """Whether the cell needs attention."""
    is_text: bool = False
    """Whether the cell holds sentences, which may take several lines."""


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    title: str
    body: str
    """HTML."""


def page(*, title: str, lead: str, sections: Sequence[Section], footer: str) -> str:
    """A complete HTML page with a table of contents.

    `title` is plain text. `lead` and `footer` are HTML whose text is already escaped.
    """
    contents, body = [], []
    for number, section in enumerate(sections):
        heading = escape(section.title)
        contents.append(f'<a href="#section-{number}">{heading}</a>')
        body.append(
            f'<section id="section-{number}"><h2>{heading}</h2>\n{section.body}\n</section>'
        )
    return Template(PAGE).substitute(
        title=escape(title),
        style=COLOURS + Template(STYLE).substitute(font=FONT) + figure_style.STYLE,
        lead=lead,
        contents="\n".join(contents),
        body="\n".join(body),
        footer=footer,
        script=figure_script.SCRIPT + TABLES,
    )


def paragraph(text: str) -> str:
    """An HTML paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def bullets(texts: Sequence[str], css_class: str = "") -> str:
    """An HTML list of plain texts."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="{css_class}">{items}</ul>'


def descriptions(pairs: Sequence[tuple[str, str]]) -> str:
    """An HTML description list of plain (term, text) pairs."""
    items = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in pairs)
    return f"<dl>{items}</dl>"


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], *, sortable: bool = False) -> str:
    """An HTML table of at least one row.

    The headings of a sortable table are buttons.
    """
    headings = []
    for name, cell in zip(head, rows[0], strict=True):
        label = f'<button type="button">{escape(name)}</button>' if sortable else escape(name)
        css_class = "" if cell.value is None else "number"
        headings.append(f'<th scope="col" class="{css_class}">{label}</th>')
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    attribute = ' class="sortable"' if sortable else ""
    copy = "".join(
        f'<button type="button" data-form="{form.lower()}">Copy as {form}</button>'
        for form in ("LaTeX", "Markdown")
    )
    # Without the tab stop, a keyboard could not scroll a wide table.
    return (
        f'<div class="copy">{copy}</div><div class="wide" tabindex="0">'
        f"<table{attribute}><thead><tr>{''.join(headings)}</tr></thead>\n"
        f"<tbody>{body}</tbody></table></div>"
    )


def columns(*parts: str) -> str:
    """HTML side by side where the window is wide enough."""
    return f'<div class="columns">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def folded(conclusion: str, body: str) -> str:
    """HTML that is hidden until a reader opens it, under a sentence of plain text."""
    return f"<details><summary>{escape(conclusion)}</summary>{body}</details>"


def _cell(cell: Cell) -> str:
    marks = {"number": cell.value is not None, "alarm": cell.is_alarm, "text": cell.is_text}
    classes = [name for name, is_set in marks.items() if is_set]
    # json writes an infinite value as Infinity, which JavaScript reads as a number.
    value = "" if cell.value is None else f' data-value="{json.dumps(cell.value)}"'
    return f'<td class="{" ".join(classes)}"{value}>{escape(cell.text)}</td>'


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header><h1>$title</h1>
$lead
</header>
<nav aria-label="Contents">
$contents
</nav>
<main>
$body
</main>
<footer>$footer</footer>
<script>$script</script>
</body>
</html>
"""

STYLE = """
html { scroll-padding-top: 3.5rem; }
body { margin: 0 auto; max-width: 110rem; padding: 2rem 1.5rem 4rem; font: 16px/1.55 $font; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 {
  font-size: 1.25rem; margin: 2.2rem 0 .6rem; padding-top: .9rem;
  border-top: 1px solid var(--rule);
}
nav {
  position: sticky; top: 0; z-index: 3; display: flex; gap: 0 1.4rem; padding: .6rem 0;
  background: var(--scrolls), var(--paper); border-bottom: 1px solid var(--rule); overflow-x: auto;
  font-size: .9rem; white-space: nowrap;
}
nav a { text-decoration: none; padding: .1rem 0; }
nav a:hover { text-decoration: underline; }
main > section:first-child h2 { border-top: 0; margin-top: .8rem; }
p, ul { max-width: 60rem; margin: .5rem 0; }
ul { padding-left: 1.2rem; }
li { margin: .35rem 0; }
dl {
  display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .5rem 1.4rem;
  margin: .8rem 0; max-width: 72rem;
}
dt { font-weight: 600; }
dd { margin: 0; }
.lead { font-size: 1.15rem; }
.notes {
  border-left: 3px solid var(--alarm); padding: .2rem 1rem .2rem 1.9rem;
  background: var(--notes); overflow-wrap: anywhere;
}
figcaption, footer, .small { color: var(--quiet); font-size: .88rem; max-width: 60rem; }
code { font: .92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
footer { margin-top: 3rem; border-top: 1px solid var(--rule); padding-top: 1rem; }
details { margin: .8rem 0; border-left: 3px solid var(--rule); padding-left: .9rem; }
summary { cursor: pointer; max-width: 60rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); }
.columns { gap: 0 2rem; }
.wide { overflow-x: auto; background: var(--scrolls); }
.copy { margin: .8rem 0 .2rem; }
.copy button {
  font: inherit; font-size: .8rem; color: var(--link); background: none; cursor: pointer;
  border: 1px solid var(--rule); border-radius: 4px; padding: .05rem .5rem; margin-right: .5rem;
}
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td {
  padding: .28rem 1.4rem .28rem 0; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--rule); vertical-align: top;
}
td.text { white-space: normal; min-width: 14rem; max-width: 34rem; }
td.number, th.number { text-align: right; }
th { vertical-align: bottom; border-bottom: 2px solid var(--ink); }
th button {
  font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0;
  cursor: pointer;
}
th button:hover, th button:focus-visible { text-decoration: underline; }
th[aria-sort=ascending] button::after { content: " ▲"; font-size: .7em; }
th[aria-sort=descending] button::after { content: " ▼"; font-size: .7em; }
.alarm { color: var(--alarm); font-weight: 600; }
@media (max-width: 40rem) {
  body { padding: 1.2rem 1rem 3rem; }
  dl { display: block; }
  dd { margin-bottom: .7rem; }
  th, td { padding-right: .9rem; }
  td.text:first-child { min-width: 9rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav, .copy { display: none; }
  .wide { overflow: visible; background: none; }
  table { font-size: 7.5pt; }
  th, td { padding-right: .5rem; }
  tr { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""
