"""The house: imports flow one way, files stay short, importing costs nothing, public names hold."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {  # room -> rooms it may import
    "checks": set(),
    "batching": set(),
    "config": {"checks", "batching"},
    "files": set(),
    "grids": {"config"},
    "model": {"config"},
    "optim": {"batching", "config", "model"},
    "data": {"config", "files"},
    "evaluation": {"config", "files", "model", "data"},
    "training": {"config", "files", "grids", "model", "optim", "data", "evaluation"},
    "launch": {"config", "files", "grids", "training"},
    "laws": set(),
    "fitting": {"laws", "files", "checks"},
    "report": {"laws", "fitting", "files"},
    "study": {
        "config",
        "files",
        "grids",
        "model",
        "optim",
        "data",
        "evaluation",
        "training",
        "launch",
        "laws",
        "fitting",
        "report",
    },
    "cli": {
        "config",
        "data",
        "evaluation",
        "training",
        "laws",
        "fitting",
        "report",
        "study",
        "files",
    },
}
FILES = sorted((ROOT / "scalejax").rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_imports_flow_one_way():
    wrong = []
    for path in FILES:
        room = path.relative_to(ROOT / "scalejax").parts[0].removesuffix(".py")
        for name in imports(path):
            parts = name.split(".")
            if (
                room != "__init__"
                and parts[0] == "scalejax"
                and parts[1] not in ALLOWED[room] | {room, "__version__"}
            ):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_configs_know_the_public_api_alone_and_nothing_imports_experiments():
    for path in [*FILES, *(ROOT / "configs").glob("*.py"), *(ROOT / "experiments").glob("*.py")]:
        assert not any(name.split(".")[0] == "experiments" for name in imports(path)), path
    for path in (ROOT / "configs").glob("*.py"):
        assert all(name.startswith("scalejax.") for name in imports(path)), path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_a_noun_of_at_most_450_lines(path):
    assert path.read_text().count("\n") <= 450


def test_import_loads_nothing_heavy_and_public_names_are_stable():
    code = (
        "import scalejax, sys\n"
        "heavy = [m for m in ('jax', 'flax', 'pandas', 'matplotlib', 'tensorflow', 'plotly', 'orbax') if m in sys.modules]\n"
        "assert not heavy, heavy\n"
        "for name in dir(scalejax):\n"
        "    assert getattr(scalejax, name) is getattr(scalejax, name), name\n"
        "import types, jax\n"
        "modules = [n for n in dir(scalejax) if isinstance(getattr(scalejax, n), types.ModuleType)]\n"
        "assert modules == ['laws'], modules\n"
        "assert not jax.config.jax_enable_x64\n"
        "print(len(dir(scalejax)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 20


def test_an_unknown_public_name_lists_the_known_ones():
    import scalejax

    with pytest.raises(AttributeError, match="has no public name 'trian'"):
        scalejax.trian
