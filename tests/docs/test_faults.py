"""The table of faults names every fault, and tests that exist."""

import ast
import re

from tests.docs.pages import DOCS

ROOT = DOCS.parent


def named_tests(page):
    """(file, test) of every test that a page names, in the order of the page."""
    file = ""
    for name in re.findall(r"`([^`]+)`", page):
        if name.startswith("tests/"):
            file = name
        elif name.startswith("test_"):
            yield file, name


def test_every_fault_has_a_promise_and_a_test_that_exists():
    page = (DOCS / "reference" / "faults.md").read_text()
    rows = re.findall(r"^\| (F\d\d) [^|]+\| ([^|]+)\| ([^|]+)\|$", page, re.MULTILINE)
    assert sorted(name for name, _, _ in rows) == [f"F{number:02d}" for number in range(1, 46)]
    assert all(re.search(r"`test_\w+`", tests) for _, _, tests in rows)
    pairs = list(named_tests(page))
    missing = []
    for file, test in pairs:
        tree = ast.parse((ROOT / file).read_text())
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        if test not in names:
            missing.append(f"{file}: {test}")
    assert not missing and len(pairs) > 40
