"""Experiment files: Python files that assign a Study."""

import ast
import contextlib
import importlib.util
import sys
from pathlib import Path

from scalejax.study.study import Study

# The name that is loaded unless the user gives another one, and the usual other names.
DEFAULT_NAME = "study"
USUAL_NAMES = {"smoke", "mini", "paper", DEFAULT_NAME}


def load_study(target: str) -> tuple[Study, str]:
    """The study of an experiment file, and the question that the file's docstring asks.

    target: `FILE.py` for the study that the file assigns to `study`, or `FILE.py:NAME`.

    The file's project root is the nearest folder above it that has configs/ or
    pyproject.toml. This root, and then the folder of the file, come first on sys.path,
    and stay there: an analysis may import what it needs when it is called. What the
    file prints goes to standard error. A file that does not assign the name at its top
    level is not run at all.

    Raises FileNotFoundError if there is no such file, and ValueError if it is not an
    experiment or if running it raises an error.
    """
    path, name = _split_target(target)
    if not path.is_file():
        raise FileNotFoundError(f"there is no experiment file {path}; give FILE.py or FILE.py:NAME")
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid Python: {error}") from error
    names = _assigned_names(tree)
    if name not in names:
        studies = sorted(names & USUAL_NAMES)
        hint = (
            f"it assigns {', '.join(studies)}"
            if studies
            else "an experiment file ends in `study = Study(...)`"
        )
        raise ValueError(
            f"{path} does not assign `{name}` at its top level, so it was not run; {hint}"
        )
    study = getattr(_run_file(path), name)
    if not isinstance(study, Study):
        raise ValueError(
            f"`{name}` in {path} must be a Study; it is of the type {type(study).__name__}"
        )
    return study, ast.get_docstring(tree) or ""


def _split_target(target: str) -> tuple[Path, str]:
    file, _, name = target.rpartition(":")
    # A colon that is part of a path, as in C:\study.py, is not followed by a name.
    return (Path(file), name) if name.isidentifier() and file else (Path(target), DEFAULT_NAME)


def _assigned_names(tree: ast.Module) -> set[str]:
    """The names that a module assigns at its top level."""
    targets: list[ast.expr] = []
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets += node.targets
        elif isinstance(node, ast.AnnAssign):
            targets.append(node.target)
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _run_file(path: Path) -> object:
    """Run an experiment file and return it as a module."""
    path = path.resolve()
    root = _project_root(path)
    # Forget modules of configs/ that are loaded: they may belong to another project, or
    # have been edited since.
    for name in [name for name in sys.modules if name.split(".")[0] == "configs"]:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    for folder in (str(path.parent), str(root)):
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
        sys.path.insert(0, folder)
    # As for every import: dataclasses look up their module by its name.
    sys.modules[module.__name__] = module
    try:
        # Standard output belongs to the command, which may print one JSON object there.
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    # Any exception is a mistake in the file, and so is a call of sys.exit.
    except (Exception, SystemExit) as error:
        where = _line_of(error, path)
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}{where}") from error
    return module


def _project_root(path: Path) -> Path:
    for folder in path.parents:
        if (folder / "configs").is_dir() or (folder / "pyproject.toml").exists():
            return folder
    return path.parent


def _line_of(error: BaseException, path: Path) -> str:
    """Where in the file an error was raised, as ` (line N)`.

    Empty if the error did not pass through the file.
    """
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return "" if line is None else f" (line {line})"
