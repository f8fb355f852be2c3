"""The metrics of a run: held-out loss, bits per byte, and downstream top-1 error."""

from collections.abc import Callable
from pathlib import Path

from scalejax.config import Measure, Run
from scalejax.data.shards import Shards
from scalejax.evaluation import tasks
from scalejax.evaluation.loss import TokenLosses, evaluate_loss, held_out_tokens
from scalejax.evaluation.suites import CONTINUATION, find_suite
from scalejax.files import content_hash, sha256


def held_out_metrics(
    token_losses: TokenLosses, shards: Shards, run: Run, measure: Measure, *, accumulate: int = 1
) -> dict[str, float | None]:
    """Loss and bits per byte on held-out text, as columns of the results table.

    `accumulate` is `Placement.accumulate`: no more sequences are evaluated at a time
    than a micro-batch has, because a larger batch may not fit the memory.

    The columns are `loss` and `loss_se` (nats per token), and `bits_per_byte` and
    `bits_per_byte_se` unless the source has no bytes. A corpus of several domains also
    has `loss_<domain>`, `loss_<domain>_se` and so on, for each domain that was read. A
    standard error is None when a single document was read.
    """
    result = evaluate_loss(
        token_losses,
        shards,
        sequence_length=run.data.sequence_length,
        tokens=measure.tokens,
        sequences=run.batch_sequences // accumulate,
        packing=run.data.packing,
    )
    row: dict[str, float | None] = {}
    by_suffix = {f"_{name}": loss for name, loss in result.domains.items()} | {"": result}
    for suffix, loss in by_suffix.items():
        row[f"loss{suffix}"] = loss.loss
        row[f"loss{suffix}_se"] = loss.loss_se
        if loss.bits_per_byte is not None:
            row[f"bits_per_byte{suffix}"] = loss.bits_per_byte
            row[f"bits_per_byte{suffix}_se"] = loss.bits_per_byte_se
    return row


def check_measure(shards: Shards, run: Run, measure: Measure) -> None:
    """Raise ValueError if the held-out loss or a suite of `measure` cannot be taken.

    Called before training, because it would be a waste to find out after it. Reasons
    are too little held-out text, held-out tokens outside the loss mask, missing or
    malformed files, answers longer than a sequence, and two suites or two tasks with
    the same name.
    """
    _, counted = held_out_tokens(shards, measure.tokens, run.data.packing)
    if not counted.any():
        raise ValueError(
            f"Measure.tokens is {measure.tokens}, but none of the first {len(counted)} held-out "
            f"tokens of {run.data.source} counts in the loss, because they are inputs; raise "
            "Measure.tokens"
        )
    names = _suite_names(measure)
    # The task that is made from held-out text has no file.
    paths = {CONTINUATION: Path("the held-out text")} if CONTINUATION in names else {}
    suites: dict[str, str] = {}
    for given in names:
        suite = find_suite(given)
        for task in suite.tasks:
            if paths.setdefault(task.name, task.path) != task.path:
                raise ValueError(
                    f"Measure.suites has two tasks named {task.name}, in {paths[task.name]} "
                    f"and {task.path}; task names must be distinct, because each is a column "
                    f"error_{task.name}. Rename one of the files"
                )
        if suites.setdefault(suite.name, given) != given:
            raise ValueError(
                f"Measure.suites has two suites named {suite.name}, {suites[suite.name]} and "
                f"{given}; names must be distinct, because each is a column error_{suite.name}. "
                "Rename one of the files or folders"
            )
        tasks.check_suite(suite, shards, items=measure.items, window=run.data.sequence_length)


def downstream_metrics(
    model: tasks.ScoredModel,
    measure: Measure,
    folder: Path | None,
    *,
    progress: Callable[[str, tasks.TaskMetrics, int], None] = tasks.ignore_progress,
) -> dict[str, float]:
    """Errors on the suites of `measure`, as columns of the results table.

    `top1_error`, `top1_error_se` and `top1_chance` (the error of guessing) are the
    averages of the first suite. Every task has a column `error_<task>`. Each further
    suite of several tasks has a column `error_<suite>`. Without suites there are no
    columns.

    Scores are stored below `folder`, unless it is None. `progress` is that of
    `score_suite`.
    """
    row: dict[str, float] = {}
    for name in _suite_names(measure):
        result = tasks.score_suite(
            name, model, items=measure.items, folder=folder, progress=progress
        )
        mean = result["averages"]["mean_of_tasks"]
        if not row:
            row["top1_error"] = mean["error"]
            row["top1_error_se"] = mean["error_se"]
            row["top1_chance"] = mean["chance"]
        elif len(result["tasks"]) > 1:
            row[f"error_{result['suite']}"] = mean["error"]
        row |= {f"error_{task}": metrics["error"] for task, metrics in result["tasks"].items()}
    return row


def tasks_hash(measure: Measure) -> str:
    """16 hex digits over the task files that `measure` scores; empty without any.

    They cover what the scores depend on: the items, the few-shot examples and the
    delimiter.
    """
    tasks_of = {
        task.name: [sha256(task.path), task.shots, task.delimiter]
        for name in _suite_names(measure)
        for task in find_suite(name).tasks
    }
    return content_hash(tasks_of)[:16] if tasks_of else ""


def _suite_names(measure: Measure) -> list[str]:
    # Measure.items = 0 leaves out the continuation task.
    return [name for name in measure.suites if name != CONTINUATION or measure.items]
