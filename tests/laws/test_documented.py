"""docs/laws.md runs as it stands, and gives back the laws that made its tables."""

import re
from pathlib import Path

import pytest

from scalejax import cli


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("page"))
        page = (Path(__file__).parents[2] / "docs" / "laws.md").read_text()
        values: dict = {}
        for language, block in re.findall(r"```(python|bash)\n(.*?)```", page, re.DOTALL):
            if language == "python":
                exec(compile(block, "docs/laws.md", "exec"), values)
                continue
            for command in block.strip().split("\n"):
                if command.startswith("scalejax "):
                    patch.setattr("sys.argv", command.split())
                    assert cli.main() == 0
        yield values


def test_x(values):
    pass
