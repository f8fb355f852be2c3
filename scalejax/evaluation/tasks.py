"""Score a model on the tasks of a suite, and store the scores."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypedDict

import jax
import numpy as np

from scalejax.data.shards import Shards
from scalejax.data.tokenizers import Tokenizer, restore_tokenizer
from scalejax.evaluation import continuation, prompts
from scalejax.evaluation.metrics import (
    Scores,
    SuiteAverages,
    TaskMetadata,
    TaskMetrics,
    suite_averages,
    task_metrics,
)
from scalejax.evaluation.prompts import Choice, Request
from scalejax.evaluation.scoring import SpanScorer, prefers_packing, score
from scalejax.evaluation.suites import CONTINUATION, Suite, Task, find_suite
from scalejax.evaluation.task_files import Item
from scalejax.files import sha256, write_json


class Provenance(TypedDict):
    """Which weights were scored. Stored scores of other weights are not reused."""

    run: str
    """Id of the run."""
    step: int
    checkpoint: str
    """Hash of the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class ScoredModel:
    """A model to score, with the data that it was trained on."""

    load: Callable[[], SpanScorer]
    """Loads the model. Called only if some task has no stored scores."""
    shards: Shards
    """The run's data: its tokenizer, and held-out text for the continuation task."""
    window: int
    """Maximum number of tokens of context and answer together."""
    batch_multiple: int = 1
    """The rows of a call are a multiple of this: the devices along the batch."""
    provenance: Provenance


class SuiteResult(TypedDict):
    """Metrics of a suite, as <suite>.json holds them."""

    suite: str
    run: str
    step: int
    checkpoint: str
    window: int
    missing: list[str]
    averages: SuiteAverages
    tasks: dict[str, TaskMetrics]


def ignore_progress(task: str, metrics: TaskMetrics, remaining: int) -> None:
    """The default progress callback of `score_suite`: does nothing."""


def score_suite(
    name: str,
    model: ScoredModel,
    *,
    items: int,
    folder: Path | None = None,
    progress: Callable[[str, TaskMetrics, int], None] = ignore_progress,
) -> SuiteResult:
    """Score a model on the tasks of a suite.

    Args:
        name: name of the suite; see `find_suite`.
        model: the model to score.
        items: number of items of the continuation task.
        folder: where scores are stored: <suite>/<task>.parquet when a task is done, and
            <suite>/<suite>.json at the end. Stored scores of the same weights, task
            file and prompts are read instead of computed again. None stores nothing.
        progress: called with task name, metrics and number of remaining tasks when a
            task is done.

    Raises:
        ValueError: before anything is scored, if the suite or a task file cannot be
            used.
    """
    suite = find_suite(name)
    tasks = prepare_tasks(suite, model.shards, items=items, window=model.window)
    metrics: dict[str, TaskMetrics] = {}
    for task in tasks:
        task_name = task.metadata["task"]
        path = folder / suite.folder / f"{task_name}.parquet" if folder else None
        metrics[task_name] = task_metrics(_stored_or_scored(task, model, path))
        progress(task_name, metrics[task_name], len(tasks) - len(metrics))
    categories = {task.metadata["task"]: task.metadata["category"] for task in tasks}
    result: SuiteResult = {
        "suite": suite.name,
        **model.provenance,
        "window": model.window,
        "missing": list(suite.missing),
        "averages": suite_averages(metrics, categories),
        "tasks": metrics,
    }
    # Of the processes of a run on many hosts, one writes.
    if folder and jax.process_index() == 0:
        write_json(folder / suite.folder / f"{suite.name}.json", dict(result))
    return result


def check_suite(suite: Suite, shards: Shards, *, items: int, window: int) -> None:
    """Raise ValueError if a suite cannot be scored in `window` tokens.

    Files that passed the check are not read again until they change.
    """
    if suite.name == CONTINUATION:
        _continuation_task(shards, items, window)
    else:
        shards.tokenizer()  # Raises ValueError for a source without a tokenizer.
        _check_files(suite, suite.file_versions, shards.model, window)


# Cached because a worker checks the same suite before every run of a study. The file
# versions are part of the key, so a changed file is checked again.
@functools.lru_cache(maxsize=16)
def _check_files(
    suite: Suite, versions: tuple[tuple[Path, int, int], ...], tokenizer_model: bytes, window: int
) -> None:
    _read_tasks(suite, restore_tokenizer(tokenizer_model), window)


class PreparedTask(NamedTuple):
    """A task that has been read and checked and is ready to be scored."""

    metadata: TaskMetadata
    """The task, and everything that its prompts depend on."""
    requests: Callable[[], Iterator[Request]]
    """Builds a request for every choice of every item."""


def prepare_tasks(suite: Suite, shards: Shards, *, items: int, window: int) -> list[PreparedTask]:
    """Read and check the tasks of a suite.

    Raises ValueError if one of them cannot be scored in `window` tokens.
    """
    if suite.name == CONTINUATION:
        return [_continuation_task(shards, items, window)]
    tokenizer = shards.tokenizer()
    return [
        _task_from_file(task, task_items, tokenizer)
        for task, task_items in _read_tasks(suite, tokenizer, window)
    ]


def _read_tasks(suite: Suite, tokenizer: Tokenizer, window: int) -> list[tuple[Task, list[Item]]]:
    tasks = [(task, task.read()) for task in suite.tasks]
    for task, items in tasks:
        prompts.check_lengths(items, tokenizer, window, delimiter=task.delimiter)
    return tasks


def _continuation_task(shards: Shards, count: int, window: int) -> PreparedTask:
    items = continuation.items_for_window(shards, count, window)
    metadata: TaskMetadata = {
        "task": "continuation",
        "format": "multiple_choice",
        "chance": 1 / continuation.CHOICES,
        "category": "",
        "duplicates": 0,
        "items": count,
        "data": shards.hash,
    }
    return PreparedTask(metadata, lambda: continuation.build_requests(items))


def _task_from_file(task: Task, items: list[Item], tokenizer: Tokenizer) -> PreparedTask:
    metadata: TaskMetadata = {
        "task": task.name,
        "format": items[0].format,
        "chance": _chance_accuracy(task, items),
        "category": task.category,
        "duplicates": sum(item.has_duplicates for item in items),
        "sha256": sha256(task.path),
        "shots": task.shots,
        "delimiter": task.delimiter,
        "tokenizer": tokenizer.hash,
    }
    if (prefix := prompts.answer_prefix(tokenizer, task.delimiter)) != " ":
        metadata["answer_prefix"] = prefix

    def requests() -> Iterator[Request]:
        return prompts.build_requests(items, tokenizer, shots=task.shots, delimiter=task.delimiter)

    return PreparedTask(metadata, requests)


def _chance_accuracy(task: Task, items: list[Item]) -> float:
    """The published accuracy of guessing, or else one over the number of choices."""
    if task.chance_accuracy is not None:
        return task.chance_accuracy
    # Guessing does not produce the continuation of an item without choices.
    per_item = (1 / len(item.choices) if len(item.choices) > 1 else 0.0 for item in items)
    return sum(per_item) / len(items)


def _stored_or_scored(task: PreparedTask, model: ScoredModel, path: Path | None) -> Scores:
    """The scores of a task: those stored at `path` if they apply, or new ones."""
    metadata: TaskMetadata = {**task.metadata, **model.provenance, "window": model.window}
    if path and path.is_file():
        stored = Scores.load(path)
        if stored.metadata == metadata:
            return stored
    choices: list[Choice] = []

    def token_pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        # Requests are built while they are scored, and only their choices are kept: the
        # tokens of a few-shot task would fill gigabytes.
        for request in task.requests():
            choices.append(request.choice)
            yield request.context, request.continuation

    likelihoods = score(
        model.load(),
        token_pairs(),
        window=model.window,
        batch_multiple=model.batch_multiple,
        packed=prefers_packing(),
    )
    scores = Scores.from_likelihoods(metadata, choices, likelihoods)
    if path and jax.process_index() == 0:
        scores.save(path)
    return scores
