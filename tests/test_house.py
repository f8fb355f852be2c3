"""The rules of the house: layers, sizes, comments, and the public API."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import scalejax

ROOT = Path(__file__).parent.parent

# The rooms that each room may import. A room is a folder or a file right in scalejax/.
ALLOWED: dict[str, set[str]] = {
    "batching": set(),
    "config": {"batching"},
    "files": set(),
    "grids": {"config"},
    "model": {"config"},
    "optim": {"batching", "config", "model"},
    "data": {"config", "files"},
    "evaluation": {"config", "files", "model", "data"},
    "training": {"config", "files", "grids", "model", "optim", "data", "evaluation"},
    "launch": {"config", "files", "grids", "model", "training"},
    "laws": set(),
    "fitting": {"laws", "files"},
    "report": {"laws", "fitting", "files"},
    "study": {"config", "files", "grids", "model", "optim", "data", "evaluation"}
    | {"training", "launch", "laws", "fitting", "report"},
    "cli": {"config", "data", "evaluation", "training", "laws", "fitting", "report"}
    | {"launch", "study", "files"},
}

MAX_FILE_LINES = 420
MAX_FUNCTION_LINES = 60
MAX_CODE_COLUMNS = 100
MAX_MODULES_PER_FOLDER = 14
CODE_LINES_PER_COMMENT = 40
# Rooms whose algorithms are hard to follow without comments that say why.
COMMENTED_ROOMS = ("laws", "training", "launch")

# A string that is a dotted path into the package, such as "scalejax.laws.forms".
DOTTED_PATH = re.compile(r"scalejax(\.\w+)+")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / "scalejax").rglob("*.py"))}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_names(path: Path) -> Iterator[str]:
    """Every dotted name that a file imports, at any depth, also by string."""
    for node in ast.walk(tree_of(path)):
        match node:
            case ast.ImportFrom():
                assert node.level == 0, f"{path}: relative imports are not used here"
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.Constant(value=str(text)) if DOTTED_PATH.fullmatch(text):
                yield text


def imported_modules(module: str) -> set[str]:
    """The modules of this package that a module imports: `a.b.name` counts as `a.b`."""
    targets = set()
    for name in imported_names(MODULES[module]):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        targets.add(name)
    # The root package is a table of lazy names: importing it loads nothing else.
    return targets - {"", "scalejax", module}


IMPORTS = {module: imported_modules(module) for module in MODULES if module != "scalejax"}


def test_imports_between_rooms_flow_one_way():
    wrong = [
        f"{module} imports {target}"
        for module, targets in IMPORTS.items()
        for target in sorted(targets)
        if room_of(target) not in ALLOWED[room_of(module)] | {room_of(module)}
    ]
    assert not wrong, "\n".join(wrong)


def test_the_table_of_rooms_is_complete_and_has_no_cycle():
    assert set(ALLOWED) == {room_of(module) for module in IMPORTS}
    TopologicalSorter(ALLOWED).prepare()


def test_no_modules_import_each_other_in_a_cycle():
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" is imported by ".join(error.args[1]))


def test_no_module_name_is_built_at_run_time():
    """`import_module(f"{__name__}.x")` would hide an import from the tests above."""
    hidden = []
    for module, path in MODULES.items():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
                names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
                relative = ast.unparse(node.args[0]).startswith("'.")
                if module != "scalejax" and (relative or names & {"__name__", "__package__"}):
                    hidden.append(f"{module}:{node.lineno} {ast.unparse(node)}")
    assert not hidden, "\n".join(hidden)


def test_configs_import_only_the_public_api():
    for path in (ROOT / "configs").glob("*.py"):
        names = list(imported_names(path))
        assert names and all(name in public_paths() for name in names), path


def public_paths() -> set[str]:
    return {f"scalejax.{name}" for name in dir(scalejax)}


def test_nothing_imports_experiments():
    files = [*MODULES.values(), *(ROOT / "configs").glob("*.py")]
    files += (ROOT / "experiments").glob("*.py")
    for path in files:
        assert not any(name.split(".")[0] == "experiments" for name in imported_names(path)), path


def test_a_folder_has_at_most_14_modules():
    folders = Counter(path.parent for path in MODULES.values() if path.name != "__init__.py")
    crowded = {folder.name: n for folder, n in folders.items() if n > MAX_MODULES_PER_FOLDER}
    assert not crowded


def test_a_file_has_at_most_420_lines():
    lengths = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES}


def test_a_function_has_at_most_60_lines():
    long = {}
    for module, path in MODULES.items():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long[f"{module}.{node.name}"] = lines
    assert not long


def test_no_line_of_code_is_longer_than_100_columns():
    folders = ("scalejax", "tests", "configs", "experiments", "benchmarks")
    files = [ROOT / "setup.py", *(path for name in folders for path in (ROOT / name).rglob("*.py"))]
    long = Counter(
        str(path.relative_to(ROOT))
        for path in files
        for line in path.read_text(encoding="utf-8").splitlines()
        if len(line) > MAX_CODE_COLUMNS
    )
    assert not long


def comment_lines(path: Path) -> set[int]:
    """Numbers of the lines that hold a comment and nothing else."""
    source = path.read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]
        for token in tokens
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#")
    }


def code_lines(path: Path) -> set[int]:
    """Numbers of the lines that are not blank, not a comment and not a docstring."""
    lines = path.read_text(encoding="utf-8").splitlines()
    docstrings = {
        number
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    filled = {number for number, line in enumerate(lines, 1) if line.strip()}
    return filled - docstrings - comment_lines(path)


@pytest.mark.parametrize("room", COMMENTED_ROOMS)
def test_a_room_has_a_full_line_comment_per_40_lines_of_code(room):
    files = [path for module, path in MODULES.items() if room_of(module) == room]
    code = sum(len(code_lines(path)) for path in files)
    comments = sum(len(comment_lines(path)) for path in files)
    assert comments * CODE_LINES_PER_COMMENT >= code, f"{comments} comments in {code} lines"


def test_import_is_lazy_and_public_names_do_not_change_between_uses():
    code = (
        "import sys, types\n"
        "import scalejax\n"
        "names = 'jax', 'flax', 'pandas', 'matplotlib', 'tensorflow', 'orbax'\n"
        "loaded = [name for name in names if name in sys.modules]\n"
        "assert not loaded, loaded\n"
        "for name in dir(scalejax):\n"
        "    assert getattr(scalejax, name) is getattr(scalejax, name), name\n"
        "values = {name: getattr(scalejax, name) for name in dir(scalejax)}\n"
        "modules = [n for n, value in values.items() if isinstance(value, types.ModuleType)]\n"
        "assert modules == ['laws'], modules\n"
        "import jax\n"
        "assert not jax.config.jax_enable_x64\n"
        "print(len(values))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 20


def test_type_checkers_and_python_find_every_public_name_in_the_same_module():
    (block,) = (
        node
        for node in tree_of(MODULES["scalejax"]).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    homes = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, "only `import x as x` exports the name"
            homes[alias.name] = node.module
    assert homes == scalejax._HOMES


def test_an_unknown_public_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match=r"no public name 'trian'; its names are .*train"):
        getattr(scalejax, "trian")  # noqa: B009
