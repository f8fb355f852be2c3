"""MkDocs hook: pages of the notebooks, with the outputs of their last execution, and
intervals in tables that stay on one line.

`make notebooks` executes copies of them in build/notebooks. A notebook without such a
copy is shown without outputs.
"""

import base64
import json
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]

# The code of a notebook, 100 columns wide, has the room of the table of contents.
FRONT_MATTER = "---\nhide: [toc]\n---\n\n"

# Such as [-.10, .19] or (.824, .846).
INTERVAL = re.compile(r"[\[(][-+]?[\d.][\d.e+-]*, [-+]?[\d.][\d.e+-]*[\])]%?")


def on_files(files, config):
    """Add a page `notebooks/NAME.md` for every notebook."""
    for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
        executed = ROOT / "build" / "notebooks" / source.name
        path = executed if executed.exists() else source
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = FRONT_MATTER + "\n\n".join(map(cell_page, cells))
        files.append(File.generated(config, f"notebooks/{source.stem}.md", content=text))
    return files


def on_page_content(html, page, config, files):
    """Keep each interval in a table on one line."""
    return re.sub(r"<td.*?</td>", unbroken_intervals, html, flags=re.DOTALL)


def unbroken_intervals(table_cell):
    """The HTML of a table's cell, whose intervals cannot break."""
    return INTERVAL.sub(r'<span class="interval">\g<0></span>', table_cell[0])


def cell_page(cell):
    """A cell as Markdown, with its outputs."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        # Links lead from notebooks/ to docs/ in the repository, and here to a neighbor.
        return source.replace("](../docs/", "](../")
    # Settings of the notebook itself, such as the resolution of its figures.
    code = re.sub(r"^%config .*\n*", "", source, flags=re.MULTILINE).strip()
    outputs = [output_page(output) for output in cell["outputs"]]
    return "\n\n".join([fenced("python", code), *filter(None, outputs)])


def output_page(output):
    """An output: a table or figure as HTML, or text."""
    data = output.get("data", {})
    if "text/html" in data:
        # A class would keep the theme from styling a table, and a blank line would end
        # the HTML.
        page = re.sub(r"<style.*?</style>", "", "".join(data["text/html"]), flags=re.DOTALL)
        page = re.sub(r' border="1" class="dataframe"', "", page)
        return "<div>" + re.sub(r"\n\s*", "\n", page) + "</div>"
    if "image/png" in data:
        image = base64.b64encode(base64.b64decode("".join(data["image/png"]))).decode()
        width = output.get("metadata", {}).get("image/png", {}).get("width", 550)
        return f'<img src="data:image/png;base64,{image}" alt="figure" width="{width}">'
    if output.get("name") == "stderr":
        return ""
    text = output.get("text", data.get("text/plain", ""))
    return fenced("text", "".join(text).rstrip())


def fenced(language, text):
    """A block of code that may itself hold blocks of three backticks."""
    return f"````{language}\n{text}\n````"
