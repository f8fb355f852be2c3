"""Scores against likelihoods known beforehand (mirrors scalejax/evaluation/scoring.py)."""

import numpy as np
import pytest

from scalejax.evaluation.scoring import score
from scalejax.evaluation.tasks import Items

LIKES = 1 / np.arange(1, 11)  # nats that the model below pays for each token, whatever comes before it


def items(candidates: list, gold: list[int], context: int = 3) -> Items:
    n = len(gold)
    contexts = np.full((n, context), 9, np.int32)
    return Items(contexts, np.array(candidates, np.int32), np.array(gold), np.zeros((n, len(candidates[0])), np.int64))


def unigram(rows: np.ndarray) -> np.ndarray:
    return LIKES[rows[:, 1:]].astype(np.float32)


PAIRS = items([[[0, 1], [2, 3], [4, 5], [6, 7]], [[8, 8], [2, 3], [1, 1], [0, 2]], [[0, 0], [1, 1], [2, 2], [3, 3]]], [3, 0, 1])


@pytest.mark.parametrize(("length", "sequences"), [(4, 1), (4, 5), (10, 4), (10, 100)])
def test_log_likelihoods_are_means_over_the_candidates_own_tokens(length, sequences):
    found = score(unigram, PAIRS, sequence_length=length, sequences=sequences)
    assert np.allclose(found.log_likelihoods, -LIKES[PAIRS.candidates].mean(axis=2), rtol=1e-6)
    assert found.log_likelihoods.dtype == np.float32


def test_top1_error_is_the_share_of_items_whose_likeliest_candidate_is_wrong():
    found = score(unigram, PAIRS, sequence_length=6, sequences=4)
    assert found.credit.tolist() == [1, 1, 0]
    assert found.top1_error == pytest.approx(1 / 3)
    assert found.top1_error_se == pytest.approx(np.sqrt(2 / 9 / 3))
    assert found.chance == 0.75 and found.ties == 0


def test_the_context_decides():
    def echo(rows: np.ndarray) -> np.ndarray:  # a token is likely when it repeats the first token of the row
        return (rows[:, 1:] != rows[:, :1]).astype(np.float32)

    found = score(echo, items([[[1, 1], [9, 9], [9, 1], [1, 2]]], [1]), sequence_length=6, sequences=2)
    assert found.log_likelihoods.tolist() == [[-1, 0, -0.5, -1]]


def test_ties_count_in_parts():
    tied = items([[[1, 2], [2, 1], [0, 0], [0, 0]], [[1, 1]] * 4, [[0, 0], [5, 5], [5, 5], [1, 1]]], [1, 2, 0])
    found = score(unigram, tied, sequence_length=6, sequences=4)
    assert found.credit.tolist() == [1 / 2, 1 / 4, 0]
    assert found.ties == 3 and found.top1_error == pytest.approx(1 - 0.25)


def test_all_calls_have_the_shape_of_training_rows():
    shapes = []

    def remember(rows: np.ndarray) -> np.ndarray:
        shapes.append((rows.shape, rows.dtype))
        return unigram(rows)

    score(remember, PAIRS, sequence_length=7, sequences=5)
    assert shapes == [((5, 8), np.int32)] * 3


def test_a_model_that_guesses_errs_at_chance():
    rng = np.random.default_rng(0)
    many = items(rng.integers(0, 9, (2_000, 4, 3)).tolist(), rng.integers(0, 4, 2_000).tolist())
    found = score(unigram, many, sequence_length=6, sequences=512)
    assert abs(found.top1_error - found.chance) < 4 * found.top1_error_se < 0.05


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_not_finite_is_refused_by_name(bad):
    def broken(rows: np.ndarray) -> np.ndarray:
        return np.where(rows[:, 1:] == 6, bad, unigram(rows)).astype(np.float32)

    with pytest.raises(ValueError, match="item 0, candidate 3"):
        score(broken, PAIRS, sequence_length=6, sequences=4)


def test_padding_is_never_read():
    def broken_after_five(rows: np.ndarray) -> np.ndarray:
        losses = unigram(rows)
        losses[:, 4:] = np.nan
        return losses

    assert np.isfinite(score(broken_after_five, PAIRS, sequence_length=9, sequences=4).log_likelihoods).all()


def test_items_longer_than_a_row_are_refused():
    with pytest.raises(ValueError, match="do not fit a row of 3"):
        score(unigram, PAIRS, sequence_length=3, sequences=4)
