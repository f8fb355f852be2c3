"""Errors from stored log-likelihoods, by hand (mirrors scalejax/evaluation/outcomes.py)."""

import math

import numpy as np
import pytest

from scalejax.evaluation.metrics import Scores, averages, bits_per_byte, credit, mean, outcome
from scalejax.evaluation.prompts import Answer
from scalejax.evaluation.scoring import Likelihoods

ABOUT = {
    "task": "quiz",
    "format": "multiple_choice",
    "chance": 0.5,
    "category": "",
    "duplicates": 0,
}


def scores(
    items: list, *, categories: str = "", greedy: bool = False, about: dict = ABOUT
) -> Scores:
    """Items of (gold, [(text, tokens, log-likelihood), ..])."""
    answers, sums, tokens = [], [], []
    for i, (gold, choices) in enumerate(items):
        for j, (text, count, value) in enumerate(choices):
            answers.append(
                Answer(i, j, j == gold, categories[i : i + 1], text, np.ones(1), np.ones(1))
            )
            sums.append(value)
            tokens.append(count)
    n = len(sums)
    found = Likelihoods(
        np.array(sums, np.float32), np.array(tokens), np.full(n, greedy), np.zeros(n, np.int32)
    )
    return Scores.of(about, answers, found)


LENGTHS = scores([(0, [("é" * 4, 4, -4.0), ("abcdefgh", 2, -3.0)])])


def test_each_normaliser_divides_by_its_own_size():
    # per token -1 and -1.5; sums -4 and -3; per character -1 and -0.375; per byte -0.5 and -0.375
    assert [credit(LENGTHS, name)[0] for name in ("per_token", "sum", "per_char", "per_byte")] == [
        1,
        0,
        0,
        0,
    ]
    assert bits_per_byte(LENGTHS)[0] == pytest.approx(4 / (8 * math.log(2)))
    with pytest.raises(ValueError, match="no normaliser 'tokens'; there are per_token, sum"):
        credit(LENGTHS, "tokens")


def test_ties_count_in_parts_or_the_first_is_taken():
    tied = scores(
        [
            (1, [("a", 1, -1.0), ("b", 1, -1.0), ("c", 1, -2.0)]),
            (0, [("a", 1, -1.0)] * 2),
            (2, [("a", 1, -1.0)] * 3),
        ]
    )
    assert credit(tied).tolist() == [1 / 2, 1 / 2, 1 / 3]
    assert credit(tied, ties="first").tolist() == [0, 1, 0]
    found = outcome(tied)
    assert found["ties"] == 3 and found["error"] == pytest.approx(1 - (1 + 1 / 3) / 3)
    assert found["error_first_on_ties"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused_by_name(bad):
    with pytest.raises(ValueError, match=f"quiz, item 1, choice 0: the log-likelihood is {bad}"):
        scores([(0, [("a", 1, -1.0), ("b", 1, -2.0)]), (0, [("a", 1, bad), ("b", 1, -2.0)])])


def test_language_modelling_counts_greedy_answers():
    items = [(0, [(text, 1, -1.0)]) for text in ("yes", "no", "yes")]
    assert outcome(scores(items, greedy=True, about={**ABOUT, "chance": 0.0}))["error"] == 0
    found = outcome(scores(items, about={**ABOUT, "chance": 0.0}))
    assert (
        found["error"] == 1 and found["chance"] == 1 and found["constant"] == pytest.approx(1 / 3)
    )
    assert "errors" not in found


def test_the_best_constant_answer_is_the_commonest_gold_index():
    items = [(gold, [("a", 1, -1.0), ("b", 1, -2.0)]) for gold in (1, 1, 0, 1)]
    assert outcome(scores(items))["constant"] == pytest.approx(1 / 4)


def test_standard_errors_are_over_items_and_over_categories():
    items = [(0, [("a", 1, -1.0), ("b", 1, value)]) for value in (-2.0, -0.5, -2.0, -0.5, -0.5)]
    value, se = mean(plain := scores(items), credit(plain))
    assert value == pytest.approx(0.4) and se == pytest.approx(math.sqrt(0.4 * 0.6 / 5))
    value, se = mean(grouped := scores(items, categories="aabbb"), credit(grouped))
    assert value == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert se == pytest.approx(math.sqrt(1 / 4 / 2 + 2 / 9 / 3) / 2)


def test_averages_are_as_the_papers_define_them():
    one = {"error_se": 0.1, "constant": 0.5}
    found = averages(
        {
            "a": {**one, "error": 0.5, "chance": 0.75},
            "b": {**one, "error": 0.9, "chance": 1.0},
            "c": {**one, "error": 0.4, "chance": 0.5},
        },
        {"a": "x", "b": "x", "c": "y"},
    )
    assert found["mean_of_tasks"] == pytest.approx(
        {"error": 0.6, "chance": 0.75, "constant": 0.5, "error_se": math.sqrt(0.03) / 3}
    )
    assert found["mean_of_categories"]["error"] == pytest.approx((0.7 + 0.4) / 2)
    assert found["centred"]["score"] == pytest.approx(((1 / 3 + 0.1) / 2 + 0.2) / 2)


def test_scores_are_kept_whole_and_score_again_without_a_model(tmp_path):
    LENGTHS.save(tmp_path / "quiz.parquet")
    again = Scores.load(tmp_path / "quiz.parquet")
    assert outcome(again) == outcome(LENGTHS) and again.about == ABOUT
    for name, value in vars(LENGTHS).items():
        assert np.array_equal(getattr(again, name), value) if name != "about" else True
        assert name == "about" or getattr(again, name).dtype == value.dtype
    assert [path.name for path in tmp_path.iterdir()] == ["quiz.parquet"]


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "quiz.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=r"quiz\.parquet holds no scores"):
        Scores.load(tmp_path / "quiz.parquet")
