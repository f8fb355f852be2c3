"""The synthetic language (mirrors scalejax/data/sources/synthetic.py)."""

import numpy as np
import pytest

from scalejax.config import Data
from scalejax.data.preparation import prepare
from scalejax.data.sources import synthetic
from scalejax.data.sources.synthetic import Language


def test_the_entropy_rate_is_the_mean_surprisal_of_a_long_draw():
    chain = Language(16)
    sample = chain.draw(streams=256, tokens=4_096, seed=7).astype(np.int64)
    surprisal = -np.log(chain.transitions()[sample[:, :-2], sample[:, 1:-1], sample[:, 2:]])
    error = surprisal.mean(axis=1).std() / np.sqrt(len(sample))
    assert error < 0.002, "the estimate is too coarse for this test to fail"
    assert abs(surprisal.mean() - chain.entropy_rate()) < 4 * error


def test_the_entropy_rate_agrees_with_a_chain_solved_by_linear_algebra():
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


def test_pairs_are_drawn_with_their_stationary_frequencies():
    chain = Language(8)
    sample = chain.draw(streams=512, tokens=2_048, seed=1).astype(np.int64)
    pairs = (sample[:, :-1] * 8 + sample[:, 1:]).ravel()
    frequencies = np.bincount(pairs, minlength=64) / pairs.size
    assert np.abs(frequencies - chain.stationary().ravel()).sum() < 0.01


def test_context_frequencies_follow_a_power_law():
    frequencies = np.sort(Language(64).stationary().ravel())[::-1][:2_048]
    slope, _ = np.polyfit(np.log(np.arange(1, 2_049)), np.log(frequencies), 1)
    assert -2 < slope < -1
    assert np.corrcoef(np.log(np.arange(1, 2_049)), np.log(frequencies))[0, 1] < -0.95


def test_both_preceding_symbols_inform_about_the_next():
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


@pytest.fixture
def short_language(monkeypatch):
    monkeypatch.setattr(synthetic, "STREAM_TOKENS", 512)


def test_shards_hold_the_language_and_its_entropy_rate(tmp_path, short_language):
    shards = prepare(Data(source="synthetic:8", tokenizer="own"), tmp_path)
    assert shards.entropy_rate == Language(8).entropy_rate()
    assert shards.vocabulary == 8 and shards.train.max() == 7
    assert (len(shards.train), len(shards.validation)) == (512 * 512, 16 * 512)
    assert np.array_equal(np.diff(shards.validation_starts), [1_024] * 7)
    assert not shards.validation_bytes.any()


def test_a_synthetic_source_has_no_tokenizer(tmp_path, short_language):
    with pytest.raises(ValueError, match="set tokenizer='own'"):
        prepare(Data(source="synthetic:8", tokenizer="byte"), tmp_path)
    with pytest.raises(ValueError, match="no tokenizer"):
        prepare(Data(source="synthetic:8", tokenizer="own"), tmp_path).tokenizer()
