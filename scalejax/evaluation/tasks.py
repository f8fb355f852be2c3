"""Downstream tasks from files or from held-out text to scores: checked, asked, scored once, kept."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from scalejax.data.shards import Shards
from scalejax.data.tokenizers import Tokenizer, restore_tokenizer
from scalejax.evaluation import continuation, metrics, prompts
from scalejax.evaluation.metrics import Scores
from scalejax.evaluation.prompts import Answer
from scalejax.evaluation.scoring import SpanScores, packs, score
from scalejax.evaluation.suites import CONTINUATION, Suite, Task, suite
from scalejax.evaluation.task_files import Item
from scalejax.files import sha256, write_json


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model whose answers are scored."""

    span_scores: Callable[[], SpanScores]
    """The model; asked for only when something is not scored yet."""
    shards: Shards
    """The run's data: its tokenizer, and held-out text for the continuation task."""
    window: int
    """Tokens of context and answer together, at most."""
    multiple: int = 1
    """Rows of a call are a multiple of this: devices along the batch."""
    source: dict[str, Any]
    """What stands for the weights in stored scores: run, step, checkpoint. Scores of other weights are not taken for these."""


class Questions(NamedTuple):
    """A task, checked and ready to be scored."""

    about: dict[str, Any]
    """task, format, chance (accuracy), category, duplicates, and all that the prompts depend on."""
    answers: Callable[[], Iterator[Answer]]
    """Every choice of every item."""


def score_suite(
    name: str,
    subject: Subject,
    *,
    items: int,
    folder: Path | None = None,
    report: Callable[[str, dict[str, Any], int], None] = lambda task, outcome, remaining: None,
) -> dict[str, Any]:
    """Scores the tasks of a suite: {suite, run, step, .., missing, averages, tasks: {name: outcome}}.

    In `folder`, when given, stand <suite>/<task>.parquet, each written when its task is done, and <suite>.json at the end. A task
    that is there already (same weights, same file, same prompts) is read, not scored again. `items` is the size of the
    continuation task; `report(task, outcome, remaining)` is called when a task is done. Raises ValueError, before anything is
    scored, for a suite or a file that cannot be used.
    """
    asked = suite(name)
    all_questions = questions(asked, subject.shards, items=items, window=subject.window)
    found, categories = {}, {}
    for task in all_questions:
        title = task.about["task"]
        path = folder / asked.folder / f"{title}.parquet" if folder else None
        found[title] = metrics.outcome(_scores(task, subject, path))
        categories[title] = task.about["category"]
        report(title, found[title], len(all_questions) - len(found))
    summary = {
        "suite": asked.name,
        **subject.source,
        "window": subject.window,
        "missing": list(asked.missing),
    }
    summary |= {"averages": metrics.averages(found, categories), "tasks": found}
    if folder:
        write_json(folder / asked.folder / f"{asked.name}.json", summary)
    return summary


def check(asked: Suite, shards: Shards, *, items: int, window: int) -> None:
    """Raises ValueError for a suite that cannot be scored in `window` tokens. Files that passed are not read again."""
    if asked.name == CONTINUATION:
        _continuation(shards, items, window)
    else:
        shards.tokenizer()  # refuses a source without one, in its own words
        _check_files(asked, asked.files, shards.model, window)


@functools.lru_cache(maxsize=16)
def _check_files(
    asked: Suite, files: tuple[tuple[Path, int, int], ...], model: bytes, window: int
) -> None:
    """Once for each content of `files`: a worker asks before every run of a study."""
    _read(asked, restore_tokenizer(model), window)


def questions(asked: Suite, shards: Shards, *, items: int, window: int) -> list[Questions]:
    """The tasks of a suite, read and checked. Raises ValueError for what cannot be scored in `window` tokens."""
    if asked.name == CONTINUATION:
        return [_continuation(shards, items, window)]
    tokenizer = shards.tokenizer()
    return [_from_file(task, found, tokenizer) for task, found in _read(asked, tokenizer, window)]


def _read(asked: Suite, tokenizer: Tokenizer, window: int) -> list[tuple[Task, list[Item]]]:
    found = [(task, task.read()) for task in asked.tasks]
    prompts.check([item for _, items in found for item in items], tokenizer, window)
    return found


def _continuation(shards: Shards, items: int, window: int) -> Questions:
    chosen = continuation.for_window(shards, items, window)
    about = {
        "task": "continuation",
        "format": "multiple_choice",
        "chance": 1 / continuation.CHOICES,
        "category": "",
    }
    about |= {"duplicates": 0, "items": items, "data": shards.hash}
    return Questions(about, lambda: continuation.answers(chosen))


def _from_file(task: Task, items: list[Item], tokenizer: Tokenizer) -> Questions:
    chance = task.chance
    if chance is None:
        chance = sum(1 / len(item.pairs) if len(item.pairs) > 1 else 0.0 for item in items) / len(
            items
        )
    about = {
        "task": task.name,
        "format": items[0].format,
        "chance": chance,
        "category": task.category,
    }
    about |= {"duplicates": sum(item.has_duplicates for item in items), "sha256": sha256(task.path)}
    about |= {"shots": task.shots, "delimiter": task.delimiter, "tokenizer": tokenizer.hash}
    return Questions(
        about, lambda: prompts.answers(items, tokenizer, shots=task.shots, delimiter=task.delimiter)
    )


def _scores(task: Questions, subject: Subject, path: Path | None) -> Scores:
    """The scores of a task: those that are stored, or the model's."""
    about = {**task.about, **subject.source, "window": subject.window}
    if path and path.is_file() and (stored := Scores.load(path)).about == about:
        return stored
    asked: list[Answer] = []

    def requests():
        for answer in task.answers():
            asked.append(
                answer._replace(context=(), continuation=())
            )  # the tokens are not needed again, and they are many
            yield answer.context, answer.continuation

    found = score(
        subject.span_scores(),
        requests(),
        window=subject.window,
        multiple=subject.multiple,
        packed=packs(),
    )
    scores = Scores.of(about, asked, found)
    if path:
        scores.save(path)
    return scores
