"""Runs the code blocks of a documentation page in order, in the current folder."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).parents[2] / "docs"

# Commands in `console` blocks are not run by these tests: each is run elsewhere.
RUN_ELSEWHERE = {
    "make quickstart": "takes minutes; CI runs its smoke study",
    "pip install -e .": "`make venv`, the first step of CI",
    "python benchmarks/": "benchmarks are not part of the test suite",
    "make aot": "about 1 GB; the slow tests of study/topology use it where it was run",
    "scalejax plan study.py --topology": "needs `make aot`; tests/study/topology",
    "scalejax plan study.py --next": "needs a trained study; tests/study/test_next_runs.py",
    "scalejax fit results/mine@1": "needs a trained study; tests/study/test_fits.py",
    "git clone": "CI starts from a fresh clone",
    "python -m pytest -s tests/replication": "the command is a test itself",
}


class Page(NamedTuple):
    """What running a page leaves behind."""

    values: dict[str, Any]
    """The names that its Python blocks defined."""
    outputs: list[str]
    """The standard output of each `scalejax` command."""


def blocks(page: str, after: str = "") -> list[tuple[str, str]]:
    """(language, text) of every code block of a page, from the heading `after` on."""
    text = (DOCS / page).read_text()
    assert after in text, f"docs/{page} has no heading {after!r}"
    fence = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return fence.findall(text.partition(after)[2] if after else text)


def run_page(page: str, call: Any, after: str = "", before: str | None = None) -> Page:
    """Run the Python and bash blocks of docs/<page>, in order.

    call: the fixture that runs a `scalejax` command in this process.
    after, before: headings between which the blocks are taken.
    """
    result = Page({}, [])
    chosen = blocks(page, after)
    if before is not None:
        chosen = chosen[: len(chosen) - len(blocks(page, before))]
    for language, text in chosen:
        if language == "python":
            exec(compile(text, f"docs/{page}", "exec"), result.values)
        elif language == "bash":
            for line in text.strip().split("\n"):
                _run_line(line, call, result)
    return result


def _run_line(line: str, call: Any, result: Page) -> None:
    if not line.startswith("scalejax "):
        subprocess.run(["bash", "-ec", line], check=True)
        return
    words = shlex.split(os.path.expandvars(line))
    code, out, err = call(*words[1:])
    assert code == 0, f"{line}\n{err}"
    result.outputs.append(out)
