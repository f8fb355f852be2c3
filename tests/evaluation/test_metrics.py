"""Errors from stored log-likelihoods (mirrors scalejax/evaluation/metrics.py)."""

import math

import numpy as np
import pytest

from scalejax.evaluation.metrics import (
    NORMALIZATIONS,
    Scores,
    TaskMetadata,
    TaskMetrics,
    bits_per_byte,
    item_accuracies,
    mean_and_error,
    suite_averages,
    task_metrics,
)
from scalejax.evaluation.prompts import Choice
from scalejax.evaluation.scoring import Likelihoods

METADATA: TaskMetadata = {
    "task": "quiz",
    "format": "multiple_choice",
    "chance": 0.5,
    "category": "",
    "duplicates": 0,
}


def scores(
    items: list[tuple[int, list[tuple[str, int, float]]]],
    *,
    categories: str = "",
    greedy: bool = False,
    chance: float = 0.5,
) -> Scores:
    """Scores of items given as (gold, [(text, tokens, log-likelihood), ...])."""
    choices, log_likelihoods, tokens = [], [], []
    for i, (gold, item_choices) in enumerate(items):
        for j, (text, count, log_likelihood) in enumerate(item_choices):
            choices.append(Choice(i, j, j == gold, categories[i : i + 1], text))
            log_likelihoods.append(log_likelihood)
            tokens.append(count)
    n = len(choices)
    likelihoods = Likelihoods(
        log_likelihood=np.array(log_likelihoods, np.float32),
        tokens=np.array(tokens),
        greedy=np.full(n, greedy),
        cut=np.zeros(n, np.int32),
    )
    return Scores.from_likelihoods({**METADATA, "chance": chance}, choices, likelihoods)


# Two choices of equal length in bytes, but not in tokens or characters.
LENGTHS = scores([(0, [("é" * 4, 4, -4.0), ("abcdefgh", 2, -3.0)])])


def test_each_normalization_divides_by_its_own_length():
    # Per token -1 and -1.5; sums -4 and -3; per character -1 and -0.375; per byte -0.5
    # and -0.375.
    accuracies = [item_accuracies(LENGTHS, name)[0] for name in NORMALIZATIONS]
    assert accuracies == [1, 0, 0, 0]
    assert bits_per_byte(LENGTHS)[0] == pytest.approx(4 / (8 * math.log(2)))
    with pytest.raises(ValueError, match="no normalization 'tokens'; expected one of per_token"):
        item_accuracies(LENGTHS, "tokens")


def test_normalizations_by_text_are_refused_for_answers_made_of_tokens():
    without_text = scores([(0, [("", 1, -1.0), ("", 1, -2.0)])])
    with pytest.raises(ValueError, match="per_char needs the text of the answers, and quiz has"):
        item_accuracies(without_text, "per_char")


def test_tied_choices_share_the_credit_or_the_first_one_takes_it():
    tied = scores(
        [
            (1, [("a", 1, -1.0), ("b", 1, -1.0), ("c", 1, -2.0)]),
            (0, [("a", 1, -1.0)] * 2),
            (2, [("a", 1, -1.0)] * 3),
        ]
    )
    assert item_accuracies(tied).tolist() == [1 / 2, 1 / 2, 1 / 3]
    assert item_accuracies(tied, ties="first").tolist() == [0, 1, 0]
    metrics = task_metrics(tied)
    assert metrics["ties"] == 3
    assert metrics["error"] == pytest.approx(1 - (1 + 1 / 3) / 3)
    assert metrics.get("error_first_on_ties") == pytest.approx(2 / 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_log_likelihood_that_is_not_finite_is_refused_by_name(bad):
    with pytest.raises(ValueError, match=f"quiz, item 1, choice 0: the log-likelihood is {bad}"):
        scores([(0, [("a", 1, -1.0), ("b", 1, -2.0)]), (0, [("a", 1, bad), ("b", 1, -2.0)])])


def test_language_modeling_items_are_right_when_their_answer_is_greedy():
    items = [(0, [(text, 1, -1.0)]) for text in ("yes", "no", "yes")]
    assert task_metrics(scores(items, greedy=True, chance=0.0))["error"] == 0
    metrics = task_metrics(scores(items, chance=0.0))
    assert metrics["error"] == 1 and metrics["chance"] == 1
    assert metrics["constant"] == pytest.approx(1 / 3)
    assert "errors" not in metrics


def test_the_best_constant_answer_is_the_most_common_gold_index():
    items = [(gold, [("a", 1, -1.0), ("b", 1, -2.0)]) for gold in (1, 1, 0, 1)]
    assert task_metrics(scores(items))["constant"] == pytest.approx(1 / 4)


def test_standard_errors_are_over_items_and_over_categories():
    items = [(0, [("a", 1, -1.0), ("b", 1, value)]) for value in (-2.0, -0.5, -2.0, -0.5, -0.5)]
    plain = scores(items)
    mean, standard_error = mean_and_error(plain, item_accuracies(plain))
    assert mean == pytest.approx(0.4)
    assert standard_error == pytest.approx(math.sqrt(0.4 * 0.6 / 5))
    grouped = scores(items, categories="aabbb")
    mean, standard_error = mean_and_error(grouped, item_accuracies(grouped))
    assert mean == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert standard_error == pytest.approx(math.sqrt(1 / 4 / 2 + 2 / 9 / 3) / 2)


def metrics_of(error: float, chance: float) -> TaskMetrics:
    return {
        "n": 1,
        "format": "multiple_choice",
        "error": error,
        "error_se": 0.1,
        "chance": chance,
        "constant": 0.5,
        "ties": 0,
        "duplicates": 0,
        "cut": 0.0,
    }


def test_averages_are_as_the_papers_define_them():
    averages = suite_averages(
        {"a": metrics_of(0.5, 0.75), "b": metrics_of(0.9, 1.0), "c": metrics_of(0.4, 0.5)},
        {"a": "x", "b": "x", "c": "y"},
    )
    assert dict(averages["mean_of_tasks"]) == pytest.approx(
        {"error": 0.6, "chance": 0.75, "constant": 0.5, "error_se": math.sqrt(0.03) / 3}
    )
    assert averages["mean_of_categories"]["error"] == pytest.approx((0.7 + 0.4) / 2)
    assert averages["centred"]["score"] == pytest.approx(((1 / 3 + 0.1) / 2 + 0.2) / 2)


def test_scores_loaded_from_a_file_equal_those_saved(tmp_path):
    LENGTHS.save(tmp_path / "quiz.parquet")
    loaded = Scores.load(tmp_path / "quiz.parquet")
    assert task_metrics(loaded) == task_metrics(LENGTHS)
    assert loaded.metadata == METADATA
    columns = {name: value for name, value in vars(LENGTHS).items() if name != "metadata"}
    for name, column in columns.items():
        assert np.array_equal(getattr(loaded, name), column), name
        assert getattr(loaded, name).dtype == column.dtype, name
    assert [path.name for path in tmp_path.iterdir()] == ["quiz.parquet"]


def test_a_file_that_does_not_contain_scores_is_refused(tmp_path):
    (tmp_path / "quiz.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=r"quiz\.parquet does not contain scores"):
        Scores.load(tmp_path / "quiz.parquet")
