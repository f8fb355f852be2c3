"""The HTML page around a study's report: one template, a sortable table, and nothing that needs a network."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from string import Template

from scalejax.report.charts import ALARM, FONT, INK, QUIET, RULE


@dataclass(frozen=True)
class Cell:
    """What a cell of a table shows, and the number it sorts by (its text, where there is none)."""

    text: str
    value: float | None = None
    alarming: bool = False


@dataclass(frozen=True)
class Section:
    """A heading and the HTML under it."""

    title: str
    body: str


def page(*, title: str, lead: str, sections: Sequence[Section], footer: str) -> str:
    """The whole page. `title` is text; the rest is HTML, escaped by who made it. plotly's script is in it, once."""
    from plotly.offline import get_plotlyjs

    body = "\n".join(
        f"<section><h2>{escape(one.title)}</h2>\n{one.body}\n</section>" for one in sections
    )
    colours = {"ink": INK, "quiet": QUIET, "alarm": ALARM, "rule": RULE}
    style = Template(STYLE).substitute(font=FONT, **colours)
    parts = {"title": escape(title), "style": style, "lead": lead, "body": body, "footer": footer}
    return Template(PAGE).substitute(script=get_plotlyjs(), sort=SORT, **parts)


def paragraph(text: str) -> str:
    """Text as an HTML paragraph."""
    return f"<p>{escape(text)}</p>"


def bullets(texts: Sequence[str], kind: str = "") -> str:
    """Texts as an HTML list of a CSS class."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="{kind}">{items}</ul>'


def glossary(pairs: Sequence[tuple[str, str]]) -> str:
    """(name, text) pairs as an HTML description list."""
    return (
        "<dl>"
        + "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in pairs)
        + "</dl>"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], *, sortable: bool = False) -> str:
    """An HTML table of at least one row; the headings of a sortable one are buttons."""
    names = [
        f'<button type="button">{escape(name)}</button>' if sortable else escape(name)
        for name in head
    ]
    kinds = ["" if cell.value is None else "number" for cell in rows[0]]
    top = "".join(
        f'<th scope="col" class="{kind}">{name}</th>'
        for name, kind in zip(names, kinds, strict=True)
    )
    body = "\n".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    sorts = ' class="sortable"' if sortable else ""
    return f'<div class="wide"><table{sorts}><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    kinds = " ".join(
        name
        for name, holds in (("number", cell.value is not None), ("alarm", cell.alarming))
        if holds
    )
    value = (
        "" if cell.value is None else f' data-value="{json.dumps(cell.value)}"'
    )  # Infinity, as JavaScript reads it
    return f'<td class="{kinds}"{value}>{escape(cell.text)}</td>'


def picture(div: str, png_base64: str, title: str, caption: str) -> str:
    """A chart: plotly's on a screen, the PNG on paper and where scripts do not run."""
    image = (
        f'<img alt="{escape(title)}. {escape(caption)}" src="data:image/png;base64,{png_base64}">'
    )
    live = f'<div class="screen">{div}</div><div class="paper">{image}</div>'
    return f"<figure>{live}<figcaption>{escape(caption)}</figcaption></figure>"


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
<noscript><style>.screen { display: none; } .paper { display: block; }</style></noscript>
<script>$script</script>
</head>
<body>
<main>
<header><h1>$title</h1>
$lead
</header>
$body
<footer>$footer</footer>
</main>
<script>$sort</script>
</body>
</html>
"""

STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #fff; color: $ink; font: 16px/1.55 $font; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: .9rem; border-top: 1px solid $rule; }
p, ul { max-width: 46rem; margin: .5rem 0; }
ul { padding-left: 1.2rem; }
li { margin: .35rem 0; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .5rem 1.4rem; margin: .8rem 0; max-width: 54rem; }
dt { font-weight: 600; }
dd { margin: 0; }
.lead { font-size: 1.15rem; color: #3b424c; }
.notes { border-left: 3px solid $alarm; padding: .2rem 1rem .2rem 1.9rem; background: #fdf4f3; }
figure { margin: 1rem 0 1.6rem; }
figcaption, footer, .small { color: $quiet; font-size: .88rem; max-width: 46rem; }
code { font: .92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
footer { margin-top: 3rem; border-top: 1px solid $rule; padding-top: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .9rem .28rem 0; text-align: left; white-space: nowrap; border-bottom: 1px solid $rule; }
td.number, th.number { text-align: right; }
th { vertical-align: bottom; border-bottom: 2px solid $ink; }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th button:hover, th button:focus-visible { text-decoration: underline; }
th[aria-sort=ascending] button::after { content: " ▲"; font-size: .7em; }
th[aria-sort=descending] button::after { content: " ▼"; font-size: .7em; }
.alarm { color: $alarm; font-weight: 600; }
img { width: 100%; height: auto; }
.paper { display: none; }
@media (max-width: 40rem) { dl { display: block; } dd { margin-bottom: .7rem; } }
@media print {
  main { max-width: none; padding: 0; }
  body { font-size: 10.5pt; }
  .screen { display: none; }
  .paper { display: block; }
  .wide { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding-right: .5rem; }
  figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""

SORT = """
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener('click', () => {
    const down = head.getAttribute('aria-sort') === 'ascending';
    heads.forEach(other => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const key = row => row.cells[column].dataset.value === undefined
      ? row.cells[column].textContent : Number(row.cells[column].dataset.value);
    const order = (a, b) => typeof a === 'string' ? a.localeCompare(b) : a - b;
    const rows = [...table.tBodies[0].rows].sort((a, b) => order(key(a), key(b)) * (down ? -1 : 1));
    table.tBodies[0].append(...rows);
  }));
}
"""
