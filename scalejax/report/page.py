"""The HTML page around a report. It needs no network."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from string import Template

from scalejax.fitting.charts.chart import ALARM, FONT, INK, QUIET, RULE


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    value: float | None = None
    """Number to sort by; None to sort by the text."""
    is_alarm: bool = False
    """Whether the cell needs attention."""


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    title: str
    body: str
    """HTML."""


def page(*, title: str, lead: str, sections: Sequence[Section], footer: str) -> str:
    """A complete HTML page, with plotly's script in it.

    `title` is plain text. `lead` and `footer` are HTML whose text is already escaped.
    """
    from plotly.offline import get_plotlyjs

    body = "\n".join(
        f"<section><h2>{escape(section.title)}</h2>\n{section.body}\n</section>"
        for section in sections
    )
    style = Template(STYLE).substitute(font=FONT, ink=INK, quiet=QUIET, alarm=ALARM, rule=RULE)
    return Template(PAGE).substitute(
        title=escape(title),
        style=style,
        lead=lead,
        body=body,
        footer=footer,
        script=get_plotlyjs(),
        sort=SORT,
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

    The headings of a sortable table are buttons."""
    headings = []
    for name, cell in zip(head, rows[0], strict=True):
        label = f'<button type="button">{escape(name)}</button>' if sortable else escape(name)
        css_class = "" if cell.value is None else "number"
        headings.append(f'<th scope="col" class="{css_class}">{label}</th>')
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    attribute = ' class="sortable"' if sortable else ""
    return (
        f'<div class="wide"><table{attribute}><thead><tr>{"".join(headings)}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def picture(plotly_html: str, png_base64: str, title: str, caption: str) -> str:
    """A chart: interactive on screens, a PNG in print and without scripts."""
    alternative = f"{escape(title)}. {escape(caption)}"
    image = f'<img alt="{alternative}" src="data:image/png;base64,{png_base64}">'
    return (
        f'<figure><div class="screen">{plotly_html}</div><div class="paper">{image}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _cell(cell: Cell) -> str:
    classes = (["number"] if cell.value is not None else []) + (["alarm"] if cell.is_alarm else [])
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
dl {
  display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .5rem 1.4rem;
  margin: .8rem 0; max-width: 54rem;
}
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
th, td {
  padding: .28rem .9rem .28rem 0; text-align: left; white-space: nowrap;
  border-bottom: 1px solid $rule;
}
td.number, th.number { text-align: right; }
th { vertical-align: bottom; border-bottom: 2px solid $ink; }
th button {
  font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0;
  cursor: pointer;
}
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

# Sorts a table by the column whose heading is clicked; a second click reverses the
# order.
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
