"""Errors and averages computed from stored log-likelihoods, without a model."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import numpy as np

from scalejax.evaluation.prompts import Choice
from scalejax.evaluation.scoring import Likelihoods
from scalejax.files import replacing

# What a log-likelihood is divided by before choices are compared: its tokens
# (LLM-foundry), nothing (lm-eval's acc), its characters (lm-eval's acc_norm), its UTF-8
# bytes.
NORMALIZATIONS = ("per_token", "sum", "per_char", "per_byte")


class TaskMetadata(TypedDict):
    """What was scored: the task, its prompts and the model. Stored with the scores.

    Scores are reused only when their metadata is equal.
    """

    task: str
    format: str
    chance: float
    """Accuracy of guessing."""
    category: str
    duplicates: int
    """Items with two equal choices."""
    items: NotRequired[int]
    """Requested items (continuation task)."""
    data: NotRequired[str]
    """Hash of the shards (continuation task)."""
    sha256: NotRequired[str]
    """Hash of the task file (tasks from files, as the next three)."""
    shots: NotRequired[int]
    delimiter: NotRequired[str]
    tokenizer: NotRequired[str]
    answer_prefix: NotRequired[str]
    """White space before an answer, if it is not a single space."""
    run: NotRequired[str]
    step: NotRequired[int]
    checkpoint: NotRequired[str]
    window: NotRequired[int]


class TaskMetrics(TypedDict):
    """Metrics of one task, as the JSON file of a suite holds them."""

    n: int
    """Number of items."""
    format: str
    error: float
    """Error when log-likelihoods are compared per token, with ties shared."""
    error_se: float
    chance: float
    """Error of guessing."""
    constant: float
    """Error of giving the most common answer to every item."""
    ties: int
    """Items with more than one choice at the top."""
    duplicates: int
    """Items with two equal choices."""
    cut: float
    """Fraction of requests whose context lost its beginning."""
    bits_per_byte: NotRequired[float]
    """Of the correct answers; absent for answers without text."""
    bits_per_byte_se: NotRequired[float]
    errors: NotRequired[dict[str, float]]
    """Error under every normalization; absent for items without choices."""
    error_first_on_ties: NotRequired[float]
    """Error when the first of tied choices is taken."""


class MeanOfTasks(TypedDict):
    """Plain means over the tasks of a suite."""

    error: float
    chance: float
    constant: float
    error_se: float


class SuiteAverages(TypedDict):
    """Averages over the tasks of a suite; see `suite_averages`."""

    mean_of_tasks: MeanOfTasks
    mean_of_categories: dict[str, float]
    centred: dict[str, float]


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """Scores of every choice of a task, in the order of the items: one parquet file.

    Fields other than `metadata` are the columns of the file, one entry per choice.
    """

    metadata: TaskMetadata
    """What was scored, with which prompts and which model."""
    item: np.ndarray
    """Number of the item, int32, from 0 without gaps."""
    choice: np.ndarray
    """Index of the choice within its item, int32."""
    gold: np.ndarray
    """Whether the choice is the correct one, bool; true once per item."""
    log_likelihood: np.ndarray
    """Log-likelihood in nats, summed over the tokens of the answer, float32."""
    tokens: np.ndarray
    """Tokens of the answer, int32."""
    greedy: np.ndarray
    """Whether every token of the answer is the most likely one, bool."""
    cut: np.ndarray
    """Tokens removed from the beginning of a context longer than the window, int32."""
    answer: np.ndarray
    """The answer as the task file has it, str; empty for answers made from tokens."""
    category: np.ndarray
    """Category of the item, str."""

    @classmethod
    def from_likelihoods(
        cls, metadata: TaskMetadata, choices: Sequence[Choice], likelihoods: Likelihoods
    ) -> "Scores":
        """Scores of a task whose requests for `choices` have these likelihoods.

        Raises ValueError, naming task, item and choice, if a log-likelihood is not
        finite.
        """
        item, position, gold, category, text = zip(*choices, strict=True)
        not_finite = np.flatnonzero(~np.isfinite(likelihoods.log_likelihood))
        if len(not_finite):
            first = not_finite[0]
            raise ValueError(
                f"{metadata['task']}, item {item[first]}, choice {position[first]}: the "
                f"log-likelihood is {likelihoods.log_likelihood[first]}; expected a finite "
                "number. The weights of the model are broken, or its run diverged"
            )
        return cls(
            metadata=metadata,
            item=np.array(item, np.int32),
            choice=np.array(position, np.int32),
            gold=np.array(gold, bool),
            log_likelihood=likelihoods.log_likelihood,
            tokens=likelihoods.tokens,
            greedy=likelihoods.greedy,
            cut=likelihoods.cut,
            answer=np.array(text, object),
            category=np.array(category, object),
        )

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        import pyarrow
        from pyarrow import parquet

        columns = {name: value for name, value in vars(self).items() if name != "metadata"}
        table = pyarrow.table(columns)
        table = table.replace_schema_metadata({"scalejax": json.dumps(self.metadata)})
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            parquet.write_table(table, temporary)

    @classmethod
    def load(cls, path: Path) -> "Scores":
        """Read a file written by `save`. Raises ValueError naming any other file."""
        import pyarrow
        from pyarrow import parquet

        try:
            table = parquet.read_table(path)
            metadata = json.loads((table.schema.metadata or {})[b"scalejax"])
            columns = {name: table[name].to_numpy() for name in table.column_names}
            return cls(metadata=metadata, **columns)
        except (pyarrow.ArrowException, KeyError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{path} does not contain scores written by scalejax ({reason}); delete it"
            ) from error

    @property
    def has_choices(self) -> bool:
        """Whether items have several choices."""
        return bool((self.choice > 0).any())


def task_metrics(scores: Scores) -> TaskMetrics:
    """The metrics of a task: errors, baselines, ties and bits per byte.

    `error` uses `per_token`, with ties shared. `chance` and `constant` are errors too:
    those of guessing, and of always giving the most common gold index (without choices,
    the most common answer).
    """
    accuracies = item_accuracies(scores)
    error, error_se = mean_and_error(scores, 1 - accuracies)
    metrics: TaskMetrics = {
        "n": len(accuracies),
        "format": scores.metadata["format"],
        "error": error,
        "error_se": error_se,
        "chance": 1 - scores.metadata["chance"],
        "constant": 1 - mean_and_error(scores, _constant_answer_accuracies(scores))[0],
        "ties": _count_ties(scores),
        "duplicates": scores.metadata["duplicates"],
        "cut": float((scores.cut > 0).mean()),
    }
    has_text = bool(all(scores.answer))
    if has_text:
        mean, standard_error = mean_and_error(scores, bits_per_byte(scores))
        metrics["bits_per_byte"], metrics["bits_per_byte_se"] = mean, standard_error
    if scores.has_choices:
        normalizations = NORMALIZATIONS if has_text else ("per_token", "sum")
        metrics["errors"] = {
            name: mean_and_error(scores, 1 - item_accuracies(scores, name))[0]
            for name in normalizations
        }
        first_on_ties = item_accuracies(scores, ties="first")
        metrics["error_first_on_ties"] = mean_and_error(scores, 1 - first_on_ties)[0]
    return metrics


def suite_averages(
    metrics: Mapping[str, TaskMetrics], categories: Mapping[str, str]
) -> SuiteAverages:
    """Averages over the tasks of a suite.

    `mean_of_tasks` is the papers' average (Gadre et al. 2024): the plain mean over
    tasks, neither centred nor weighted by items, with its standard error and baselines.
    `mean_of_categories` is the mean over categories of the mean error in each.
    `centred` is the score of LLM-foundry's Gauntlet: (accuracy - chance) / (1 -
    chance), averaged in each category and then over categories (0 is guessing, 1 is
    perfect).

    Args:
        metrics: metrics of each task.
        categories: category of each task.
    """
    tasks = list(metrics.values())
    mean_of_tasks: MeanOfTasks = {
        "error": float(np.mean([task["error"] for task in tasks])),
        "chance": float(np.mean([task["chance"] for task in tasks])),
        "constant": float(np.mean([task["constant"] for task in tasks])),
        "error_se": math.sqrt(sum(task["error_se"] ** 2 for task in tasks)) / len(tasks),
    }
    errors = {name: task["error"] for name, task in metrics.items()}
    # 1 - error / chance error equals (accuracy - chance) / (1 - chance).
    centred = {
        name: 1 - task["error"] / task["chance"]
        for name, task in metrics.items()
        if task["chance"] > 0
    }
    return {
        "mean_of_tasks": mean_of_tasks,
        "mean_of_categories": {"error": _mean_of_categories(errors, categories)},
        "centred": {"score": _mean_of_categories(centred, categories)},
    }


def item_accuracies(
    scores: Scores,
    normalization: str = "per_token",
    *,
    ties: Literal["share", "first"] = "share",
) -> np.ndarray:
    """Accuracy of each item: 1 if it is answered correctly, 0 if not, float64 [items].

    The answer given is the choice with the largest log-likelihood after normalization.
    An item without choices is answered correctly if every token of the answer is the
    most likely one.

    Args:
        scores: the scores of a task.
        normalization: one of NORMALIZATIONS.
        ties: with "share", k choices tied at the top count 1/k each. With "first", the
            first of them is taken, as LLM-foundry and lm-eval do.

    Raises:
        ValueError: if the normalization is unknown, or needs text and the answers have
            none.
    """
    if not scores.has_choices:
        return scores.greedy.astype(np.float64)
    at_top = _at_top(scores, normalization)
    starts = _item_starts(scores)
    if ties == "share":
        return at_top[scores.gold] / np.add.reduceat(at_top.astype(np.int64), starts)
    never = np.iinfo(np.int32).max
    first_at_top = np.minimum.reduceat(np.where(at_top, scores.choice, never), starts)
    return (first_at_top == scores.choice[scores.gold]).astype(np.float64)


def mean_and_error(scores: Scores, values: np.ndarray) -> tuple[float, float]:
    """Mean over items of one value per item, and its standard error.

    With categories, this is the mean of the categories' means.
    """
    category = scores.category[scores.gold]
    means, variances = [], []
    for name in dict.fromkeys(category):
        part = values[category == name]
        means.append(part.mean())
        variances.append(part.var() / len(part))
    return float(np.mean(means)), math.sqrt(sum(variances)) / len(means)


def bits_per_byte(scores: Scores) -> np.ndarray:
    """Bits per UTF-8 byte of the correct answer of each item, float64 [items]."""
    bits = -scores.log_likelihood / normalizers(scores, "per_byte") / math.log(2)
    return bits[scores.gold]


def normalizers(scores: Scores, normalization: str) -> np.ndarray:
    """What each log-likelihood is divided by, float64 [choices]."""
    if normalization == "sum":
        return np.ones(len(scores.item))
    if normalization == "per_token":
        return scores.tokens.astype(np.float64)
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"there is no normalization {normalization!r}; expected one of "
            f"{', '.join(NORMALIZATIONS)}"
        )
    if normalization == "per_char":
        lengths = [len(text) for text in scores.answer]
    else:
        lengths = [len(text.encode()) for text in scores.answer]
    if not all(lengths):
        raise ValueError(
            f"{normalization} needs the text of the answers, and {scores.metadata['task']} has "
            "only their tokens; use per_token or sum"
        )
    return np.array(lengths, np.float64)


def _mean_of_categories(values: Mapping[str, float], categories: Mapping[str, str]) -> float:
    groups: dict[str, list[float]] = {}
    for task, value in values.items():
        groups.setdefault(categories[task], []).append(value)
    return float(np.mean([np.mean(group) for group in groups.values()]))


def _item_starts(scores: Scores) -> np.ndarray:
    """Row of the first choice of each item."""
    return np.flatnonzero(np.diff(scores.item, prepend=-1))


def _at_top(scores: Scores, normalization: str) -> np.ndarray:
    """Whether each choice has the largest normalized log-likelihood of its item."""
    value = scores.log_likelihood.astype(np.float64) / normalizers(scores, normalization)
    return value == np.maximum.reduceat(value, _item_starts(scores))[scores.item]


def _count_ties(scores: Scores) -> int:
    """Number of items with several choices at the top, per token."""
    if not scores.has_choices:
        return 0
    at_top = _at_top(scores, "per_token").astype(np.int64)
    return int((np.add.reduceat(at_top, _item_starts(scores)) > 1).sum())


def _constant_answer_accuracies(scores: Scores) -> np.ndarray:
    """Accuracies when every item is given the most common answer, float64 [items].

    The most common answer is the most common gold index or, without choices, gold text.
    """
    answers = scores.choice if scores.has_choices else scores.answer
    gold_answers = answers[scores.gold].astype(str)
    kinds, counts = np.unique(gold_answers, return_counts=True)
    return (gold_answers == kinds[counts.argmax()]).astype(np.float64)
