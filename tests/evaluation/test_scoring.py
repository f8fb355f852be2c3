"""Scores equal known likelihoods (mirrors scalejax/evaluation/scoring.py)."""

import numpy as np
import pytest

from scalejax.data.packing import split_flags
from scalejax.evaluation.scoring import bucket_lengths, score


class BigramModel:
    """A model whose log-likelihoods are known, and which records how it is called.

    A token costs 1 / (token + 1) nats plus a hundredth of the token before it. Odd
    tokens are the most likely ones.
    """

    def __init__(self):
        self.calls = []
        self.requests = 0

    def __call__(self, rows, starts, counts, width, /):
        self.calls.append((rows.shape, width))
        assert rows.dtype == starts.dtype == counts.dtype == np.int32
        assert (starts >= 1).all()
        assert (counts <= width).all()
        assert (starts + counts <= rows.shape[1]).all()
        ids, is_start, _ = split_flags(rows)
        log_likelihood = np.zeros(starts.shape, np.float32)
        greedy = np.ones(starts.shape, bool)
        self.requests += int((counts > 0).sum())
        for place in np.ndindex(starts.shape):
            row = ids[place[0]]
            span = starts[place] + np.arange(counts[place])
            assert not is_start[place[0], span].any(), "a continuation runs into the next request"
            log_likelihood[place] = -(1 / (row[span] + 1) + row[span - 1] / 100).sum()
            greedy[place] = (row[span] % 2 == 1).all()
        return log_likelihood, greedy


def expected_log_likelihood(context, continuation):
    tokens = [*context, *continuation]
    positions = range(len(context), len(tokens))
    return -sum(1 / (tokens[i] + 1) + tokens[i - 1] / 100 for i in positions)


def random_requests(count: int, longest_context: int):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, [longest_context, min(longest_context, 40)], (count, 2))
    return [(rng.integers(0, 50, a), rng.integers(0, 50, b)) for a, b in lengths]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("batch_multiple", [1, 8])
def test_every_request_gets_its_own_score(batch_multiple, packed):
    requests = random_requests(500, 60)
    scores = score(
        BigramModel(), requests, window=128, batch_multiple=batch_multiple, packed=packed
    )
    expected = [expected_log_likelihood(*request) for request in requests]
    assert np.allclose(scores.log_likelihood, expected, rtol=1e-5)
    assert scores.tokens.tolist() == [len(continuation) for _, continuation in requests]
    expected_greedy = [bool((continuation % 2 == 1).all()) for _, continuation in requests]
    assert scores.greedy.tolist() == expected_greedy
    assert 0 < scores.greedy.sum() < 500
    assert not scores.cut.any()
    assert scores.log_likelihood.dtype == np.float32


def test_a_context_that_does_not_fit_loses_its_beginning():
    rng = np.random.default_rng(1)
    context, continuation = rng.integers(0, 50, 300), rng.integers(0, 50, 20)
    scored = []

    def recording_model(rows, starts, counts, width, /):
        scored.append(rows[0, : starts[0, 0] + counts[0, 0]])
        return BigramModel()(rows, starts, counts, width)

    scores = score(recording_model, [(context, continuation)], window=64)
    assert scores.cut.tolist() == [256]
    assert scored[0].tolist() == [*context[-44:], *continuation]


def test_a_continuation_may_fill_the_window_except_for_one_token():
    context, continuation = np.arange(10), np.arange(31)
    scores = score(BigramModel(), [(context, continuation)], window=32)
    assert scores.cut.tolist() == [9]
    expected = expected_log_likelihood([9], continuation)
    assert scores.log_likelihood[0] == pytest.approx(expected, rel=1e-5)
    message = r"request 0 has a continuation of 32 tokens, which does not fit a window of 32 tokens"
    with pytest.raises(ValueError, match=message):
        score(BigramModel(), [(context, np.arange(32))], window=32)


@pytest.mark.parametrize(
    ("context", "continuation", "message"),
    [([], [1], "empty context"), ([1], [], "empty continuation")],
)
def test_an_empty_part_of_a_request_is_refused(context, continuation, message):
    requests = [(np.ones(1), np.ones(1)), (np.array(context), np.array(continuation))]
    with pytest.raises(ValueError, match=f"request 1 has an {message}"):
        score(BigramModel(), requests, window=32)


def test_ten_shapes_serve_requests_of_all_lengths():
    model = BigramModel()
    score(model, random_requests(3_000, 1_000), window=1024)
    calls = set(model.calls)
    assert len(calls) <= 10
    assert {shape[1] - 1 for shape, _ in calls} <= set(bucket_lengths(1024))
    assert len({shape for shape, _ in calls}) == 5, "every length has one number of rows"


def test_the_number_of_rows_is_a_multiple_of_the_devices():
    model = BigramModel()
    score(model, random_requests(50, 1_000), window=1024, batch_multiple=8)
    assert all(shape[0] % 8 == 0 for shape, _ in model.calls)


def test_equal_requests_are_scored_once_and_tie_exactly():
    first, second = random_requests(2, 60)
    values = score(BigramModel(), [first, second, first, first], window=128).log_likelihood
    assert values[0] == values[2] == values[3]
    assert values[0] != values[1]


def test_the_same_tokens_split_elsewhere_are_another_request():
    tokens = np.arange(5)
    requests = [(tokens[:3], tokens[3:]), (tokens[:4], tokens[4:])]
    values = score(BigramModel(), requests, window=128).log_likelihood
    assert values[0] != values[1]


def test_packed_requests_share_rows_of_one_length_in_two_programs():
    requests, model = random_requests(2_000, 60), BigramModel()
    score(model, requests, window=256, packed=True)
    assert {shape for shape, _ in model.calls} == {(64, 257)}
    assert {width for _, width in model.calls} == {32, 256}
    assert model.requests == 2_000
    rows = sum(shape[0] for (shape, width) in model.calls if width == 32)
    short = sum(len(a) + len(b) for a, b in requests if len(b) <= 32)
    assert short / 257 <= rows < 1.5 * short / 257, "rows hold hardly more than one request"


def test_requests_may_come_from_an_iterator():
    requests = random_requests(20, 60)
    from_iterator = score(BigramModel(), iter(requests), window=128)
    from_list = score(BigramModel(), requests, window=128)
    assert np.array_equal(from_iterator.log_likelihood, from_list.log_likelihood)
