"""Experiment files: a Python file that assigns a Study, imported once, in the launcher."""

import ast
import importlib.util
import sys
from pathlib import Path

from scalejax.study.plan import Study


def load_study(target: str) -> tuple[Study, str]:
    """The study of `FILE` (its `study`) or `FILE:NAME`, and the file's docstring: the question.

    FILE's project root (the nearest ancestor with configs/ or pyproject.toml) goes first on sys.path. A file that does not
    assign the name at its top level is refused unread.
    Raises FileNotFoundError without the file, ValueError when it is no experiment or does not run.
    """
    path, name = _split(target)
    if not path.is_file():
        raise FileNotFoundError(f"there is no experiment file {path}; give FILE.py or FILE.py:NAME")
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not Python that can be read: {error}") from error
    if name not in _assigned(tree):
        studies = sorted(_assigned(tree) & {"smoke", "mini", "paper", "study"})
        hint = (
            f"; it has {', '.join(studies)}"
            if studies
            else ": an experiment file ends in `study = Study(..)`"
        )
        raise ValueError(f"{path} assigns no `{name}` at its top level, so it was not run{hint}")
    study = getattr(_import(path), name)
    if not isinstance(study, Study):
        raise ValueError(f"`{name}` in {path} is a {type(study).__name__}, not a Study")
    return study, ast.get_docstring(tree) or ""


def _split(target: str) -> tuple[Path, str]:
    file, colon, name = target.rpartition(":")
    return (Path(file), name) if colon and name.isidentifier() else (Path(target), "study")


def _assigned(tree: ast.Module) -> set[str]:
    targets = [
        target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
    ]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _import(path: Path):
    path = path.resolve()
    root = next(
        (p for p in path.parents if (p / "configs").is_dir() or (p / "pyproject.toml").exists()),
        path.parent,
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "configs"]:
        del sys.modules[name]  # of another project, or of this one before it was edited
    sys.path.insert(0, str(root))
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ValueError, TypeError, NameError, ImportError, AttributeError) as error:
        raise ValueError(
            f"{path} does not run: {type(error).__name__}: {error}{_line(error, path)}"
        ) from error
    finally:
        sys.path.remove(str(root))
    return module


def _line(error: BaseException, path: Path) -> str:
    """Where in the experiment file the error arose."""
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return "" if line is None else f" (line {line})"
