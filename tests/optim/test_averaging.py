"""Averages of the weights, compared with means over all stored weights.

Mirrors scalejax/optim/averaging.py.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import pytest

from scalejax.config import Average, Measure
from scalejax.optim.averaging import add, ema, start, value, window

WEIGHTS = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)

# Tokens of each step, in a run whose batch doubles twice.
BATCHES = [16] * 10 + [32] * 10 + [64] * 20


def averaged(average: Average, batches: Sequence[int]) -> np.ndarray:
    """float32[steps, 3]: the average after every step of training through WEIGHTS."""
    first = min(batches)
    # Initial values this large would be visible if they counted.
    state = start(average, {"w": jnp.full(3, 1e30)})
    averages = []
    for w, tokens in zip(WEIGHTS, batches, strict=True):
        state = add(average, state, {"w": jnp.asarray(w)}, batch_tokens=tokens, first_batch=first)
        averages.append(value(average, state, first_batch=first)["w"])
    return np.array(averages)


def test_an_exponential_average_halves_the_weight_of_a_step_every_half_life():
    ends = np.cumsum(BATCHES)
    for step, average in enumerate(averaged(ema(half_life_tokens=300), BATCHES)):
        age = ends[step] - ends[: step + 1]
        shares = 2.0 ** (-age / 300) * (1 - 2.0 ** (-np.array(BATCHES[: step + 1]) / 300))
        # Dividing by the sum of the shares leaves no weight for the initial values.
        expected = shares @ WEIGHTS[: step + 1] / shares.sum()
        np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-6)


def test_a_window_is_the_mean_of_all_steps_until_it_is_full_and_exact_at_its_multiples():
    averages = averaged(window(tokens=8 * 16), [16] * 40)
    for step in range(8):
        expected = WEIGHTS[: step + 1].mean(0)
        np.testing.assert_allclose(averages[step], expected, rtol=1e-5, atol=1e-6)
    for end in range(8, 41, 8):
        expected = WEIGHTS[end - 8 : end].mean(0)
        np.testing.assert_allclose(averages[end - 1], expected, rtol=1e-5, atol=1e-6)


def test_between_multiples_of_a_window_the_mean_of_the_last_block_fills_the_gap():
    averages = averaged(window(tokens=8 * 16), [16] * 40)
    expected = 3 / 8 * WEIGHTS[16:19].mean(0) + 5 / 8 * WEIGHTS[8:16].mean(0)
    np.testing.assert_allclose(averages[18], expected, rtol=1e-5, atol=1e-6)


def test_every_step_of_a_window_counts_by_its_tokens():
    averages = averaged(window(tokens=480), BATCHES)
    assert sum(BATCHES[:20]) == 480
    expected = np.average(WEIGHTS[:20], axis=0, weights=BATCHES[:20])
    np.testing.assert_allclose(averages[19], expected, rtol=1e-5, atol=1e-6)


def test_averages_are_float32_for_weights_of_any_dtype():
    steps = [jnp.full(3, 1.0 + 2**-7, jnp.bfloat16), jnp.ones(3, jnp.bfloat16)]
    for average in (ema(half_life_tokens=64), window(tokens=64)):
        state = start(average, {"w": steps[0]})
        for w in steps:
            state = add(average, state, {"w": w}, batch_tokens=16, first_batch=16)
        mean = value(average, state, first_batch=16)["w"]
        assert mean.dtype == jnp.float32
        # bfloat16 has no number between 1 and 1 + 2^-7.
        assert np.all((mean > 1) & (mean < 1 + 2**-7))


def test_averages_must_have_whole_numbers_of_tokens_and_be_distinct():
    both = (ema(half_life_tokens=100), window(tokens=100))
    assert Measure(averages=both).averages[0].name == "ema-100"
    with pytest.raises(ValueError, match=r"Average.tokens must be a whole number of at least 1"):
        window(tokens=0)
    with pytest.raises(ValueError, match="distinct; listed more than once: ema-100"):
        Measure(averages=(both[0], both[0]))
