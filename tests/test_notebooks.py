"""The notebooks: stored without outputs, and each with a page of the docs."""

import json
import re

import pytest

from tests.docs.pages import DOCS

NOTEBOOKS = sorted((DOCS.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert "".join(cells[0]["source"]).startswith("# "), "it begins with its title"
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] for cell in code), f"outputs in {path.name}"
    assert all(cell["execution_count"] is None for cell in code), f"counts in {path.name}"


def test_the_documentation_lists_every_notebook():
    names = {path.stem for path in NOTEBOOKS}
    navigation = (DOCS.parent / ".ci" / "mkdocs.yml").read_text(encoding="utf-8")
    assert {*re.findall(r"notebooks/(\w+)\.md", navigation)} - {"index"} == names
    table = (DOCS / "notebooks" / "index.md").read_text(encoding="utf-8")
    assert {*re.findall(r"\]\((\w+)\.md\)", table)} == names
