"""The synthetic language: its entropy rate is exact, its contexts follow a power law (mirrors scalejax/data/sources/synthetic.py)."""

import numpy as np
import pytest

from scalejax.data.sources.synthetic import Language, language


def test_entropy_rate_is_the_mean_surprise_of_a_long_draw():
    chain = Language(16)
    drawn = chain.draw(streams=256, tokens=4_096, seed=7).astype(np.int64)
    surprise = -np.log(chain.transitions()[drawn[:, :-2], drawn[:, 1:-1], drawn[:, 2:]])
    error = surprise.mean(axis=1).std() / np.sqrt(len(drawn))
    assert error < 0.002, "the estimate is too coarse: this test could not fail"
    assert abs(surprise.mean() - chain.entropy_rate()) < 4 * error


def test_entropy_rate_of_a_chain_solved_by_linear_algebra_is_the_same():
    chain, V = Language(6), 6
    step = np.zeros((V, V, V, V))
    for a, b, x in np.ndindex(V, V, V):
        step[a, b, b, x] = chain.transitions()[a, b, x]
    system = np.vstack([step.reshape(V * V, V * V).T - np.eye(V * V), np.ones(V * V)])
    pairs = np.linalg.lstsq(system, np.append(np.zeros(V * V), 1.0), rcond=None)[0].reshape(V, V)
    p = chain.transitions()
    assert np.allclose(chain.stationary(), pairs, rtol=0, atol=1e-12)
    assert chain.entropy_rate() == pytest.approx(
        -(pairs[:, :, None] * p * np.log(p)).sum(), abs=1e-12
    )


def test_pairs_are_drawn_as_often_as_the_stationary_distribution_says():
    chain = Language(8)
    drawn = chain.draw(streams=512, tokens=2_048, seed=1).astype(np.int64)
    seen = np.bincount((drawn[:, :-1] * 8 + drawn[:, 1:]).ravel(), minlength=64) / drawn[:, 1:].size
    assert np.abs(seen - chain.stationary().ravel()).sum() < 0.01


def test_context_frequencies_follow_a_power_law():
    frequencies = np.sort(Language(64).stationary().ravel())[::-1][:2_048]
    slope, _ = np.polyfit(np.log(np.arange(1, 2_049)), np.log(frequencies), 1)
    assert -2 < slope < -1
    assert np.corrcoef(np.log(np.arange(1, 2_049)), np.log(frequencies))[0, 1] < -0.95


def test_both_symbols_back_matter():
    chain = Language(32)
    pairs, p = chain.stationary(), chain.transitions()
    after_one = np.einsum("ab,abx->bx", pairs, p)
    order0 = -(after_one.sum(0) * np.log(after_one.sum(0))).sum()
    order1 = -(after_one * np.log(after_one / after_one.sum(1, keepdims=True))).sum()
    assert order0 - 0.3 > order1 > chain.entropy_rate() + 0.3


def test_a_draw_is_a_function_of_its_seed():
    chain = Language(8)
    first = chain.draw(streams=4, tokens=64, seed=0)
    assert np.array_equal(first, chain.draw(streams=4, tokens=64, seed=0))
    assert not np.array_equal(first, chain.draw(streams=4, tokens=64, seed=1))


@pytest.mark.parametrize(
    "source", ["synthetic:", "synthetic:many", "synthetic:3", "synthetic:1000", "synthetic:-8"]
)
def test_a_source_that_names_no_language_is_refused(source):
    with pytest.raises(ValueError, match="synthetic:"):
        language(source)
