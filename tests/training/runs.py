"""Helpers of tests that train a run in pieces and compare the folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from scalejax.files import read_lines
from scalejax.training.result import Result

# Columns that depend on the clock, the study or the process, not on the run.
TIMES = {"allocator", "wall_seconds", "tokens_per_second", "mfu", "started", "finished", "study"}


def reproducible_row(result: Result) -> dict[str, Any]:
    """The columns of a result that must be equal whenever the run is trained."""
    return {name: value for name, value in result.row.items() if name not in TIMES}


def curve(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without their times."""
    rows = read_lines(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def stop_after(steps: int) -> Callable[[], bool]:
    """A `stopping` function that returns True from its `steps`-th call on."""
    calls = iter(range(1, 10_000))
    return lambda: next(calls) >= steps


def programs_compiled(jitted: Any) -> int:
    """The number of programs that a jitted function has compiled so far."""
    return jitted._cache_size()
