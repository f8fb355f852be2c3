"""Everything that is measured of a model: held-out loss, bits per byte, and top-1 error downstream."""

from pathlib import Path

from scalejax.config import Measure, Run
from scalejax.data.shards import Shards
from scalejax.evaluation import tasks
from scalejax.evaluation.loss import TokenLosses, evaluate_loss
from scalejax.evaluation.suites import suite


def held_out_loss(
    token_losses: TokenLosses, shards: Shards, run: Run, measure: Measure
) -> dict[str, float]:
    """`loss` and `loss_se` (nats per token), `bits_per_byte` and its `bits_per_byte_se` (absent where the source has no bytes).

    Of a corpus of several domains also `loss_<domain>`, `loss_<domain>_se` and so on, for the domains that were met.
    """
    length, sequences = run.data.sequence_length, run.batch_sequences
    found = evaluate_loss(
        token_losses,
        shards,
        sequence_length=length,
        tokens=measure.tokens,
        sequences=sequences,
        packing=run.data.packing,
    )
    row = {}
    for suffix, part in [
        *((f"_{name}", part) for name, part in found.domains.items()),
        ("", found),
    ]:
        row |= {f"loss{suffix}": part.loss, f"loss{suffix}_se": part.loss_se}
        if part.bits_per_byte is not None:
            row |= {
                f"bits_per_byte{suffix}": part.bits_per_byte,
                f"bits_per_byte{suffix}_se": part.bits_per_byte_se,
            }
    return row


def check(shards: Shards, run: Run, measure: Measure) -> None:
    """Raises ValueError when a suite cannot be measured: too little held-out text, files that are missing or malformed, answers
    longer than a sequence, two tasks of one name; before training, not after it.
    """
    paths: dict[str, Path] = {}
    for asked in map(suite, _asked(measure)):
        for task in asked.tasks:
            if paths.setdefault(task.name, task.path) != task.path:
                raise ValueError(
                    f"Measure.suites has two tasks {task.name}, in {paths[task.name]} and {task.path}: one column "
                    f"error_{task.name} cannot hold both; rename a file"
                )
        tasks.check(asked, shards, items=measure.items, window=run.data.sequence_length)


def downstream(subject: tasks.Subject, measure: Measure, folder: Path | None) -> dict[str, float]:
    """The columns of the results table: `top1_error`, its standard error and its chance line, of the first suite, and
    `error_<task>` for every task; for a further suite of several tasks, `error_<suite>`. {} without a suite.

    Scores are kept below `folder`, unless it is None.
    """
    row: dict[str, float] = {}
    for name in _asked(measure):
        found = tasks.score_suite(name, subject, items=measure.items, folder=folder)
        whole = found["averages"]["mean_of_tasks"]
        if not row:
            row |= {
                "top1_error": whole["error"],
                "top1_error_se": whole["error_se"],
                "top1_chance": whole["chance"],
            }
        elif len(found["tasks"]) > 1:
            row[f"error_{found['suite']}"] = whole["error"]
        row |= {f"error_{task}": one["error"] for task, one in found["tasks"].items()}
    return row


def _asked(measure: Measure) -> list[str]:
    return [name for name in measure.suites if name != "continuation" or measure.items]
