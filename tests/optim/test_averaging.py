"""Averages of weights against the same taken over kept weights (mirrors scalejax/optim/averaging.py)."""

import jax.numpy as jnp
import numpy as np
import pytest

from scalejax.config import Measure
from scalejax.optim.averaging import add, ema, start, value, window

WEIGHTS = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
BATCHES = [16] * 10 + [32] * 10 + [64] * 20
"""Tokens of each step: a batch that doubled twice."""


def averaged(average, batches, weights=WEIGHTS):
    """float32[steps, 3]: the average after every step."""
    so_far, found = start(average, {"w": jnp.full(3, 1e30)}), []
    for w, tokens in zip(weights, batches, strict=True):
        so_far = add(
            average, so_far, {"w": jnp.asarray(w)}, batch_tokens=tokens, first_batch=min(batches)
        )
        found.append(value(average, so_far, first_batch=min(batches))["w"])
    return np.array(found)


def test_an_exponential_average_halves_a_steps_weight_every_half_life_and_forgets_the_initial_values():
    ends = np.cumsum(BATCHES)
    for step, found in enumerate(averaged(ema(half_life_tokens=300), BATCHES)):
        age = ends[step] - ends[: step + 1]
        shares = 2.0 ** (-age / 300) * (1 - 2.0 ** (-np.array(BATCHES[: step + 1]) / 300))
        np.testing.assert_allclose(
            found, shares @ WEIGHTS[: step + 1] / shares.sum(), rtol=1e-5, atol=1e-6
        )


def test_a_window_is_the_mean_of_the_last_tokens_at_its_multiples_and_of_all_before_the_first():
    found = averaged(window(tokens=8 * 16), [16] * 40)
    for step in range(8):
        np.testing.assert_allclose(found[step], WEIGHTS[: step + 1].mean(0), rtol=1e-5, atol=1e-6)
    for end in range(8, 41, 8):
        np.testing.assert_allclose(
            found[end - 1], WEIGHTS[end - 8 : end].mean(0), rtol=1e-5, atol=1e-6
        )


def test_between_multiples_the_block_before_shares_what_is_missing():
    found = averaged(window(tokens=8 * 16), [16] * 40)
    expected = 3 / 8 * WEIGHTS[16:19].mean(0) + 5 / 8 * WEIGHTS[8:16].mean(0)
    np.testing.assert_allclose(found[18], expected, rtol=1e-5, atol=1e-6)


def test_in_a_window_every_step_counts_by_its_tokens():
    found = averaged(window(tokens=480), BATCHES)
    assert sum(BATCHES[:20]) == 480
    np.testing.assert_allclose(
        found[19], np.average(WEIGHTS[:20], axis=0, weights=BATCHES[:20]), rtol=1e-5, atol=1e-6
    )


def test_averages_are_float32_whatever_the_weights_are():
    weights = {"w": jnp.full(3, 1.0 + 2**-7, jnp.bfloat16)}
    for average in (ema(half_life_tokens=64), window(tokens=64)):
        so_far = add(average, start(average, weights), weights, batch_tokens=16, first_batch=16)
        so_far = add(
            average, so_far, {"w": jnp.ones(3, jnp.bfloat16)}, batch_tokens=16, first_batch=16
        )
        found = value(average, so_far, first_batch=16)["w"]
        assert found.dtype == jnp.float32 and np.all((found > 1) & (found < 1 + 2**-7)), (
            "bfloat16 has no number in between"
        )


def test_averages_are_whole_numbers_of_tokens_and_different_ones():
    assert (
        Measure(averages=[ema(half_life_tokens=100), window(tokens=100)]).averages[0].name
        == "ema-100"
    )
    with pytest.raises(
        ValueError, match=r"Average.tokens must be a whole number of at least 1; got 0"
    ):
        window(tokens=0)
    with pytest.raises(ValueError, match="distinct; listed more than once: ema-100"):
        Measure(averages=[ema(half_life_tokens=100)] * 2)
