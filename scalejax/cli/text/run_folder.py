"""What `eval` and `export` print."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalejax.evaluation.metrics import MeanOfTasks, TaskMetrics
    from scalejax.evaluation.tasks import SuiteResult
    from scalejax.training.export import Exported


def metrics_text(row: Mapping[str, float | None]) -> str:
    """The metrics of a run, one per line."""
    width = max(map(len, row))
    values = {name: "" if value is None else f"{value:.4f}" for name, value in row.items()}
    return "\n".join(f"{name:<{width}}  {value}" for name, value in values.items())


def suite_text(result: "SuiteResult") -> str:
    """The metrics of a suite as a table: one line per task, then the average."""
    tasks = result["tasks"]
    width = max(len("mean of tasks"), *map(len, tasks))
    head = "  ".join(f"{name:>6}" for name in ("items", "error", "se", "chance", "const"))
    lines = [
        f"{result['suite']}, run {result['run']} at step {result['step']}, "
        f"window {result['window']}",
        f"{'':<{width}}  {head}  {'bits/byte':>9}  {'cut':>4}",
    ]
    for name, task in tasks.items():
        bits = f"{task['bits_per_byte']:9.3f}" if "bits_per_byte" in task else " " * 9
        line = f"{name:<{width}}  {task['n']:6,}  {_errors(task)}  {bits}  {task['cut']:4.0%}"
        lines.append(line)
    mean = _errors(result["averages"]["mean_of_tasks"])
    lines.append(f"{'mean of tasks':<{width}}  {'':>6}  {mean}")
    if result["missing"]:
        missing = ", ".join(result["missing"])
        lines.append(f"The mean is over {len(tasks)} tasks; these have no file: {missing}")
    lines.append(
        "error: 1 - accuracy, with log-likelihoods per token and ties shared; "
        "chance: error of guessing;"
    )
    lines.append(
        "const: error of always giving the most common answer; "
        "cut: prompts that lost their beginning to fit the window"
    )
    return "\n".join(lines)


def print_task_progress(task: str, metrics: "TaskMetrics", remaining: int) -> None:
    """Print a line on stderr when a task is done, since suites can take hours."""
    error = f"error {metrics['error']:.3f} ± {metrics['error_se']:.3f}"
    left = "1 task" if remaining == 1 else f"{remaining} tasks"
    print(f"{task}: {error}; {left} to go", file=sys.stderr, flush=True)


def export_text(exported: "Exported", folder: Path) -> str:
    """An export in three lines: the run, how well the logits agree, the tokenizer."""
    by_numpy, by_transformers, tolerance = exported.parity
    if by_transformers is None:
        comparison = "not compared with transformers, because it or torch is not installed"
    else:
        comparison = f"{by_transformers:.1e} read by transformers"
    if exported.no_tokenizer:
        tokenizer = f"without a tokenizer: {exported.no_tokenizer}"
    else:
        tokenizer = "with its tokenizer"
    return (
        f"run {exported.run} at step {exported.step} in {folder}\n"
        f"largest difference of a logit (at most {tolerance:g} is allowed): "
        f"{by_numpy:.1e} read by NumPy; {comparison}\n"
        f"{tokenizer}"
    )


def _errors(metrics: "TaskMetrics | MeanOfTasks") -> str:
    values = (metrics["error"], metrics["error_se"], metrics["chance"], metrics["constant"])
    return "  ".join(f"{value:6.3f}" for value in values)
