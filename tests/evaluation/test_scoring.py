"""Scores against likelihoods known beforehand (mirrors scalejax/evaluation/scoring.py)."""

import numpy as np
import pytest

from scalejax.data.packing import split_flags
from scalejax.evaluation.scoring import lengths, score


class Unigram:
    """A model that pays 1 / (token + 1) nats for each token plus a hundredth of the token before it, and guesses odd tokens."""

    def __init__(self):
        self.calls, self.prompts = [], 0

    def __call__(self, rows, starts, counts, width):
        self.calls.append((rows.shape, width))
        assert rows.dtype == starts.dtype == counts.dtype == np.int32
        assert (
            (starts >= 1).all()
            and (counts <= width).all()
            and (starts + counts <= rows.shape[1]).all()
        )
        sums, greedy = np.zeros(starts.shape, np.float32), np.ones(starts.shape, bool)
        ids, marked, _ = split_flags(rows)
        self.prompts += int((counts > 0).sum())
        for place in np.ndindex(starts.shape):
            row, span = ids[place[0]], starts[place] + np.arange(counts[place])
            assert not marked[place[0], span].any(), "a continuation that runs into the next prompt"
            sums[place] = -(1 / (row[span] + 1) + row[span - 1] / 100).sum()
            greedy[place] = (row[span] % 2 == 1).all()
        return sums, greedy


def likelihood(context, continuation):
    tokens = [*context, *continuation]
    return -sum(1 / (tokens[i] + 1) + tokens[i - 1] / 100 for i in range(len(context), len(tokens)))


def requests(count: int, longest: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, [longest, min(longest, 40)], (count, 2))
    return [(rng.integers(0, 50, a), rng.integers(0, 50, b)) for a, b in sizes]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("multiple", [1, 8])
def test_every_request_gets_its_own_score(multiple, packed):
    asked = requests(500, 60)
    found = score(Unigram(), asked, window=128, multiple=multiple, packed=packed)
    assert np.allclose(found.log_likelihood, [likelihood(*one) for one in asked], rtol=1e-5)
    assert found.tokens.tolist() == [len(one[1]) for one in asked]
    assert found.greedy.tolist() == [bool((one[1] % 2 == 1).all()) for one in asked]
    assert 0 < found.greedy.sum() < 500 and not found.cut.any()
    assert found.log_likelihood.dtype == np.float32


def test_a_long_context_loses_its_beginning():
    rng = np.random.default_rng(1)
    context, continuation = rng.integers(0, 50, 300), rng.integers(0, 50, 20)
    found = score(Unigram(), [(context, continuation)], window=64)
    assert found.cut.tolist() == [256]
    seen = []

    def remember(rows, starts, counts, width):
        seen.append(rows[0, : starts[0, 0] + counts[0, 0]])
        return Unigram()(rows, starts, counts, width)

    score(remember, [(context, continuation)], window=64)
    assert seen[0].tolist() == [*context[-44:], *continuation]


def test_a_continuation_may_fill_the_window_but_for_one_token():
    context, continuation = np.arange(10), np.arange(31)
    found = score(Unigram(), [(context, continuation)], window=32)
    assert found.cut.tolist() == [9]
    assert found.log_likelihood[0] == pytest.approx(likelihood([9], continuation), rel=1e-5)
    with pytest.raises(
        ValueError, match=r"request 0 has a continuation of 32 tokens: .* a window of 32; shorten"
    ):
        score(Unigram(), [(context, np.arange(32))], window=32)


@pytest.mark.parametrize(
    ("context", "continuation", "said"),
    [([], [1], "empty context"), ([1], [], "empty continuation")],
)
def test_nothing_is_refused(context, continuation, said):
    with pytest.raises(ValueError, match=f"request 1 has an {said}"):
        score(
            Unigram(),
            [(np.ones(1), np.ones(1)), (np.array(context), np.array(continuation))],
            window=32,
        )


def test_a_handful_of_shapes_serves_all_lengths():
    model = Unigram()
    score(model, requests(3_000, 1_000), window=1024)
    shapes = set(model.calls)
    assert len(shapes) <= 10 and {shape[1] - 1 for shape, _ in shapes} <= set(lengths(1024))
    assert len({shape for shape, _ in shapes}) == 5, "one number of rows for every length"
    assert all(shape[0] % 8 == 0 for shape, _ in _shapes_of(multiple=8))


def _shapes_of(multiple):
    model = Unigram()
    score(model, requests(50, 1_000), window=1024, multiple=multiple)
    return model.calls


def test_equal_requests_are_scored_once_and_tie_exactly():
    model = Unigram()
    one, other = requests(2, 60)
    found = score(model, [one, other, one, one], window=128)
    assert (
        len(set(found.log_likelihood[[0, 2, 3]].tolist())) == 1
        and found.log_likelihood[0] != found.log_likelihood[1]
    )
    again = score(Unigram(), [(one[0][:3], one[0][3:5]), (one[0][:4], one[0][4:5])], window=128)
    assert again.log_likelihood[0] != again.log_likelihood[1], (
        "the same row with another start is another request"
    )


def test_packed_prompts_share_rows_of_one_length_in_two_programs():
    asked, model = requests(2_000, 60), Unigram()
    score(model, asked, window=256, packed=True)
    assert {shape for shape, _ in model.calls} == {(64, 257)} and {
        width for _, width in model.calls
    } == {32, 256}
    assert model.prompts == 2_000
    rows = sum(shape[0] for (shape, width) in model.calls if width == 32)
    short = [
        a + b
        for a, b in ((len(context), len(continuation)) for context, continuation in asked)
        if b <= 32
    ]
    assert sum(short) / 257 <= rows < 1.5 * sum(short) / 257, (
        "rows hold hardly more than one prompt"
    )


def test_requests_may_be_a_stream():
    asked = requests(20, 60)
    assert np.array_equal(
        score(Unigram(), iter(asked), window=128)[0], score(Unigram(), asked, window=128)[0]
    )
