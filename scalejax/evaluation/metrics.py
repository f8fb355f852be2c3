"""From log-likelihoods to errors: any normaliser, baseline or average, without a model."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scalejax.evaluation.prompts import Answer
from scalejax.evaluation.scoring import Likelihoods
from scalejax.files import replacing

NORMALISERS = ("per_token", "sum", "per_char", "per_byte")
"""What a log-likelihood is divided by: its tokens (LLM-foundry), nothing (lm-eval's acc), characters (acc_norm), UTF-8 bytes."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """Every choice of a task with what a model made of it, items in order: one parquet file."""

    about: dict[str, Any]
    """task, format, chance, category, duplicates, and what was scored with which prompts."""
    item: np.ndarray
    """int32: number of the item, from 0, without a gap."""
    choice: np.ndarray
    """int32: index within the item."""
    gold: np.ndarray
    """bool: the true choice; one an item."""
    log_likelihood: np.ndarray
    """float32: nats, summed over the tokens of the answer."""
    tokens: np.ndarray
    """int32: of the answer."""
    greedy: np.ndarray
    """bool: whether every token of the answer is the likeliest."""
    cut: np.ndarray
    """int32: tokens of context left out on the left, where the prompt is longer than the window."""
    answer: np.ndarray
    """str: the answer as it stands in the file; empty for answers that are made of tokens."""
    category: np.ndarray
    """str: of the item."""

    @classmethod
    def of(cls, about: dict[str, Any], answers: Iterable[Answer], found: Likelihoods) -> "Scores":
        """The scores of a task. Raises ValueError for one that is not finite, with task, item and choice named."""
        item, choice, gold, category, text = zip(*[answer[:5] for answer in answers], strict=True)
        wrong = np.flatnonzero(~np.isfinite(found.log_likelihood))
        if len(wrong):
            raise ValueError(
                f"{about['task']}, item {item[wrong[0]]}, choice {choice[wrong[0]]}: the log-likelihood is "
                f"{found.log_likelihood[wrong[0]]}; the model's weights are broken, or its run diverged"
            )
        return cls(
            about=about,
            item=np.array(item, np.int32),
            choice=np.array(choice, np.int32),
            gold=np.array(gold, bool),
            log_likelihood=found.log_likelihood,
            tokens=found.tokens,
            greedy=found.greedy,
            cut=found.cut,
            answer=np.array(text, object),
            category=np.array(category, object),
        )

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        import pyarrow
        from pyarrow import parquet

        columns = {name: value for name, value in vars(self).items() if name != "about"}
        table = pyarrow.table(columns).replace_schema_metadata({"scalejax": json.dumps(self.about)})
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            parquet.write_table(table, temporary)

    @classmethod
    def load(cls, path: Path) -> "Scores":
        """Reads what `save` wrote. Raises ValueError naming the file when it is something else."""
        import pyarrow
        from pyarrow import parquet

        try:
            table = parquet.read_table(path)
            about = json.loads((table.schema.metadata or {})[b"scalejax"])
            return cls(about=about, **{name: table[name].to_numpy() for name in table.column_names})
        except (pyarrow.ArrowException, KeyError, ValueError, TypeError) as error:
            raise ValueError(
                f"{path} holds no scores of scalejax ({str(error).splitlines()[0]}); delete it"
            ) from error

    @property
    def is_choice(self) -> bool:
        """Whether there is something to choose from; else an item counts as right when its answer is greedy."""
        return bool((self.choice > 0).any())


def credit(scores: Scores, normaliser: str = "per_token", *, ties: str = "share") -> np.ndarray:
    """float64 [items]: 1 for a right answer, 0 for a wrong one.

    Right is the choice with the largest log-likelihood after division by the normaliser; without choices, an answer of which
    every token is the likeliest. k choices tied at the top count 1/k, or, with `ties="first"`, the first one is taken, as
    LLM-foundry and lm-eval do. Raises ValueError for an unknown normaliser, and for one that needs a text where there is none.
    """
    if not scores.is_choice:
        return scores.greedy.astype(np.float64)
    at_top = _at_top(scores, normaliser)
    if ties == "share":
        return at_top[scores.gold] / np.add.reduceat(at_top.astype(np.int64), _starts(scores))
    first = np.minimum.reduceat(
        np.where(at_top, scores.choice, np.iinfo(np.int32).max), _starts(scores)
    )
    return (first == scores.choice[scores.gold]).astype(np.float64)


def divisor(scores: Scores, normaliser: str) -> np.ndarray:
    """float64 [choices]: what each log-likelihood is divided by."""
    if normaliser == "sum":
        return np.ones(len(scores.item))
    if normaliser == "per_token":
        return scores.tokens.astype(np.float64)
    if normaliser not in NORMALISERS:
        raise ValueError(
            f"there is no normaliser {normaliser!r}; there are {', '.join(NORMALISERS)}"
        )
    sizes = [
        len(text) if normaliser == "per_char" else len(text.encode()) for text in scores.answer
    ]
    if not all(sizes):
        raise ValueError(f"{scores.about['task']} is made of tokens: {normaliser} needs texts")
    return np.array(sizes, np.float64)


def bits_per_byte(scores: Scores) -> np.ndarray:
    """float64 [items]: -log-likelihood of the true answer in bits, over its UTF-8 bytes."""
    return (-scores.log_likelihood / divisor(scores, "per_byte") / math.log(2))[scores.gold]


def mean(scores: Scores, values: np.ndarray) -> tuple[float, float]:
    """(mean over items, its standard error); by category the mean of the categories' means. Items are independent."""
    category = scores.category[scores.gold]
    means, variances = [], []
    for name in dict.fromkeys(category):
        part = values[category == name]
        means.append(part.mean())
        variances.append(part.var() / len(part))
    return float(np.mean(means)), math.sqrt(sum(variances)) / len(means)


def outcome(scores: Scores) -> dict[str, Any]:
    """What a task came to: error with its standard error, baselines, and the error under every normaliser.

    `error` is that of `per_token`, ties shared. `chance` and `constant` are errors too: of guessing, and of giving the commonest
    gold index (or, without choices, the commonest answer) every time.
    """
    right = credit(scores)
    error, error_se = mean(scores, 1 - right)
    found = {
        "n": len(right),
        "format": scores.about["format"],
        "error": error,
        "error_se": error_se,
        "chance": 1 - scores.about["chance"],
        "constant": 1 - mean(scores, _constant(scores))[0],
        "ties": _ties(scores),
        "duplicates": scores.about["duplicates"],
        "cut": float((scores.cut > 0).mean()),
    }
    texts = bool(all(scores.answer))
    if texts:
        found["bits_per_byte"], found["bits_per_byte_se"] = mean(scores, bits_per_byte(scores))
    if scores.is_choice:
        usable = NORMALISERS if texts else ("per_token", "sum")
        found["errors"] = {name: mean(scores, 1 - credit(scores, name))[0] for name in usable}
        found["error_first_on_ties"] = mean(scores, 1 - credit(scores, ties="first"))[0]
    return found


def averages(outcomes: dict[str, dict[str, Any]], categories: dict[str, str]) -> dict[str, Any]:
    """Averages over the tasks of a suite: task -> its outcome, task -> its category.

    `mean_of_tasks` is that of the papers (Gadre et al. 2024: plain, neither centred nor weighted by items), with its standard
    error and its baselines; `mean_of_categories` the mean of the categories' means; `centred` the score of LLM-foundry's
    Gauntlet, (accuracy - chance) / (1 - chance), averaged in each category and then over categories (0: guessing, 1: perfect).
    """
    found = list(outcomes.values())
    whole = {
        name: float(np.mean([one[name] for one in found]))
        for name in ("error", "chance", "constant")
    }
    whole["error_se"] = math.sqrt(sum(one["error_se"] ** 2 for one in found)) / len(found)
    errors = {task: one["error"] for task, one in outcomes.items()}
    centred = {
        task: 1 - one["error"] / one["chance"]
        for task, one in outcomes.items()
        if one["chance"] > 0
    }
    return {
        "mean_of_tasks": whole,
        "mean_of_categories": {"error": _by_category(errors, categories)},
        "centred": {"score": _by_category(centred, categories)},
    }


def _by_category(values: dict[str, float], categories: dict[str, str]) -> float:
    groups: dict[str, list[float]] = {}
    for task, value in values.items():
        groups.setdefault(categories[task], []).append(value)
    return float(np.mean([np.mean(group) for group in groups.values()]))


def _starts(scores: Scores) -> np.ndarray:
    """Where each item begins."""
    return np.flatnonzero(np.diff(scores.item, prepend=-1))


def _at_top(scores: Scores, normaliser: str) -> np.ndarray:
    """bool [choices]: which choices have the largest log-likelihood of their item."""
    value = scores.log_likelihood.astype(np.float64) / divisor(scores, normaliser)
    return value == np.maximum.reduceat(value, _starts(scores))[scores.item]


def _ties(scores: Scores) -> int:
    """Items with more than one choice at the top, per token."""
    if not scores.is_choice:
        return 0
    return int(
        (np.add.reduceat(_at_top(scores, "per_token").astype(np.int64), _starts(scores)) > 1).sum()
    )


def _constant(scores: Scores) -> np.ndarray:
    """float64 [items]: the credit of giving the commonest gold index, or the commonest answer, every time."""
    given = scores.choice[scores.gold] if scores.is_choice else scores.answer[scores.gold]
    kinds, counts = np.unique(given.astype(str), return_counts=True)
    return (given.astype(str) == kinds[counts.argmax()]).astype(np.float64)
