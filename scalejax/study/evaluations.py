"""Runs measured after their training, as rows and tables for the command line."""

import sys
from pathlib import Path
from typing import Any

from scalejax.config import Measure
from scalejax.training import evaluate


def measured(run: Path) -> dict[str, float]:
    """What the run's Measure names, of its last checkpoint. Nothing is written."""
    return evaluate.evaluate(run)


def suite(run: Path, name: str, *, out: Path | None, window: int | None) -> dict[str, Any]:
    """The run's last checkpoint on a suite: {suite, run, step, .., averages, tasks}.

    Raises ValueError for a window that holds no context, for an unknown suite, and for files that cannot be scored.
    """
    if window is not None and window < 2:
        raise ValueError(f"--window {window}: one token of context and one of answer are the least")
    Measure(suites=(name,))  # checks the name
    return evaluate.evaluate_suite(run, name, folder=out, window=window, report=_progress)


def _progress(task: str, outcome: dict[str, Any], remaining: int) -> None:
    """A line on standard error, where the suite goes on for long."""
    print(
        f"{task}: error {outcome['error']:.3f} ± {outcome['error_se']:.3f}; {remaining} to go",
        file=sys.stderr,
        flush=True,
    )


def row_text(row: dict[str, float]) -> str:
    """A line for each number."""
    width = max(map(len, row))
    return "\n".join(
        f"{name:<{width}}  {'' if value is None else f'{value:.4f}'}" for name, value in row.items()
    )


def text(summary: dict[str, Any]) -> str:
    """A suite as a table: a line a task, then the averages."""
    tasks = summary["tasks"]
    width = max(len("mean of tasks"), *map(len, tasks))
    lines = [
        f"{summary['suite']}, run {summary['run']} at step {summary['step']}, window {summary['window']}"
    ]
    lines.append(
        f"{'':<{width}}  {'items':>6}  {'error':>6}  {'se':>6}  {'chance':>6}  {'const':>6}  {'bits/byte':>9}  {'cut':>4}"
    )
    for name, one in tasks.items():
        bits = f"{one['bits_per_byte']:9.3f}" if "bits_per_byte" in one else " " * 9
        lines.append(f"{name:<{width}}  {one['n']:6,}  {_numbers(one)}  {bits}  {one['cut']:4.0%}")
    lines.append(
        f"{'mean of tasks':<{width}}  {'':>6}  {_numbers(summary['averages']['mean_of_tasks'])}"
    )
    if summary["missing"]:
        lines.append(
            f"an average over {len(tasks)} tasks; missing: {', '.join(summary['missing'])}"
        )
    lines.append(
        "error: 1 - accuracy, per token, ties shared; chance, const: of guessing, of the commonest answer every time;"
    )
    lines.append("cut: share of prompts that lost their beginning, being longer than the window")
    return "\n".join(lines)


def _numbers(one: dict[str, Any]) -> str:
    return "  ".join(f"{one[name]:6.3f}" for name in ("error", "error_se", "chance", "constant"))
