"""Rates of every step (mirrors scalejax/optim/schedules.py)."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalejax.config import Schedule
from scalejax.optim.schedules import constant, cosine, learning_rate, learning_rates, wsd


def rates(schedule: Schedule, steps: int, peak: float = 1.0) -> np.ndarray:
    return learning_rate(schedule, peak=peak, steps=steps, batch_tokens=10)(np.arange(steps))


def test_warm_up_rises_linearly_and_its_last_step_is_the_first_at_the_peak():
    np.testing.assert_array_equal(rates(constant(warmup=40), 6, peak=0.5), [0.125, 0.25, 0.375, 0.5, 0.5, 0.5])


def test_warm_up_of_part_of_a_batch_counts_as_a_whole_step_and_none_is_none():
    np.testing.assert_array_equal(rates(constant(warmup=11), 3), [0.5, 1, 1])
    np.testing.assert_array_equal(rates(constant(warmup=0), 3), [1, 1, 1])


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_is_loshchilov_and_hutters(final):
    expected = [final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (i - 10) / 90)) for i in range(10, 100)]
    np.testing.assert_allclose(rates(cosine(warmup=100, final=final), 100)[10:], expected, rtol=1e-12)


@pytest.mark.parametrize(("shape", "fall"), [("linear", lambda x: 1 - x), ("1-sqrt", lambda x: 1 - math.sqrt(x))])
def test_cooldown_is_haegeles(shape, fall):
    steps, decay = 100, int(0.2 * 100)
    found = rates(wsd(warmup=100, cooldown=0.2, shape=shape), steps)
    np.testing.assert_array_equal(found[9 : steps - decay], 1.0)
    expected = [fall((step - (steps - decay)) / decay) for step in range(steps - decay, steps)]
    np.testing.assert_allclose(found[steps - decay :], expected, rtol=1e-12)
    assert 0 < found[-1] < 0.1


def test_the_step_after_the_last_would_have_the_final_rate():
    rate = learning_rate(wsd(warmup=0, cooldown=0.5, final=0.1), peak=2.0, steps=10, batch_tokens=10)
    assert float(rate(10)) == pytest.approx(0.2)
    assert float(rate(9)) > 0.2


@given(st.integers(20, 3000), st.integers(20, 3000), st.floats(1e-5, 1), st.integers(0, 100), st.floats(0.01, 0.6))
def test_wsd_runs_and_the_constant_run_agree_to_the_last_bit_until_the_first_cooldown(short, long, peak, warmup, cooldown):
    short, long = sorted((short, long))
    schedule = wsd(warmup=min(warmup, int(10 * (1 - cooldown) * short) // 10 * 10 - 10), cooldown=cooldown)
    shared = math.floor((1 - cooldown) * short + 0.5)
    trunk = dataclasses.replace(schedule, shape="constant")
    curves = [np.float32(rates(s, n, peak)) for s, n in ((schedule, short), (schedule, long), (trunk, long))]
    assert curves[0][:shared].tobytes() == curves[1][:shared].tobytes() == curves[2][:shared].tobytes()


def test_a_warm_up_that_runs_into_the_cooldown_is_refused():
    with pytest.raises(ValueError, match="runs into the cooldown, which begins at step 80 of 100"):
        rates(wsd(warmup=900, cooldown=0.2), 100)


def test_a_runs_rates_are_one_float32_per_step(tiny_run):
    found = learning_rates(tiny_run)
    assert found.dtype == np.float32 and found.shape == (tiny_run.steps,)
    assert found.max() == np.float32(tiny_run.optimizer.learning_rate)
    assert np.all(found > 0)
