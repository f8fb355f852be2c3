"""The learning rate of every step (mirrors scalejax/optim/schedules.py)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalejax.batching import BatchSchedule
from scalejax.config import Schedule
from scalejax.config.schedule import COOLDOWN_SHAPES, SCHEDULE_FIELDS
from scalejax.optim.schedules import (
    constant,
    cosine,
    cyclic,
    inverse_sqrt,
    learning_rate,
    learning_rates,
    linear,
    multistep,
    wsd,
)

# The cooldown shapes in the code of Hägele et al. 2024: from the completed fraction of
# the cooldown to a fraction of the peak.
COOLDOWNS = {
    "linear": lambda x: 1 - x,
    "1-sqrt": lambda x: 1 - math.sqrt(x),
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "mirror-cosine": lambda x: 2 * (1 - x) - (1 + math.cos(math.pi * x)) / 2,
    "square": lambda x: 1 - x**2,
}
# The integral of each shape over the cooldown.
AREAS = {"linear": 1 / 2, "1-sqrt": 1 / 3, "cosine": 1 / 2, "mirror-cosine": 1 / 2, "square": 2 / 3}


def rates(
    schedule: Schedule, steps: int, peak: float = 1.0, batch_doublings: Sequence[int] = ()
) -> np.ndarray:
    """The rate of every step, with batches of 16 tokens."""
    rate = learning_rate(
        schedule, peak=peak, steps=steps, batch_tokens=16, batch_doublings=batch_doublings
    )
    return np.asarray(rate(np.arange(steps)))


def test_linear_warmup_rises_evenly_and_its_last_step_is_the_first_at_the_peak():
    np.testing.assert_array_equal(
        rates(constant(warmup=64), 6, peak=0.5), [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    )


def test_cosine_warmup_is_half_a_cosine_up_to_the_peak():
    curve = rates(constant(warmup=160, warmup_shape="cosine"), 12)
    expected = [(1 - math.cos(math.pi * i / 10)) / 2 for i in range(1, 11)]
    np.testing.assert_allclose(curve[:10], expected, rtol=1e-12)
    np.testing.assert_array_equal(curve[9:], 1.0)


def test_a_warmup_of_part_of_a_batch_takes_a_whole_step_and_of_0_tokens_no_step():
    np.testing.assert_array_equal(rates(constant(warmup=17), 3), [0.5, 1, 1])
    np.testing.assert_array_equal(rates(constant(warmup=0), 3), [1, 1, 1])


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_is_that_of_loshchilov_and_hutter(final):
    falling = [0.5 * (1 + math.cos(math.pi * (i - 10) / 90)) for i in range(10, 100)]
    expected = final + (1 - final) * np.array(falling)
    curve = rates(cosine(warmup=160, final=final), 100)
    np.testing.assert_allclose(curve[10:], expected, rtol=1e-12)


def test_linear_falls_evenly_from_the_end_of_the_warmup():
    expected = [0.1 + 0.9 * (1 - (i - 10) / 90) for i in range(10, 100)]
    np.testing.assert_allclose(rates(linear(warmup=160, final=0.1), 100)[10:], expected, rtol=1e-12)


def test_inverse_sqrt_is_that_of_vaswani():
    """peak sqrt(W) min(1 / sqrt(n), n / W^1.5) for n = 1, 2, ... (section 5.3).

    They write d^-0.5 for peak sqrt(W).
    """
    n, warmup = np.arange(1, 401), 25
    expected = 0.3 * math.sqrt(warmup) * np.minimum(n**-0.5, n * warmup**-1.5)
    curve = rates(inverse_sqrt(warmup=16 * warmup), 400, peak=0.3)
    np.testing.assert_allclose(curve, expected, rtol=1e-12)


def test_multistep_falls_to_a_third_and_then_a_tenth_as_in_deepseek_llm():
    curve = rates(multistep(warmup=160), 100)
    np.testing.assert_array_equal(curve[9:80], 1.0)
    np.testing.assert_allclose(curve[80:90], 0.316, atol=5e-4)
    np.testing.assert_allclose(curve[90:], 0.1, rtol=1e-12)
    one_drop = rates(multistep(warmup=0, milestones=(0.5,), factor=0.25), 4)
    np.testing.assert_array_equal(one_drop, [1, 1, 0.25, 0.25])


def test_cyclic_is_the_triangle_of_smith_started_at_its_peak():
    """base + (peak - base) max(0, 1 - |i / half - 2 floor(1 + i / (2 half)) + 1|).

    This is the formula of Smith 2017, section 3.1, with a period of 2 x half steps.
    """
    half, base = 10, 0.2
    i = np.arange(90) + half
    triangle = 1 - np.abs(i / half - 2 * np.floor(1 + i / (2 * half)) + 1)
    expected = base + (1 - base) * np.maximum(0, triangle)
    curve = rates(cyclic(warmup=160, period=16 * 2 * half, final=base), 100)
    np.testing.assert_allclose(curve[10:], expected, rtol=1e-12)
    assert curve.min() < 0.2 + 1e-9
    assert (curve == 1).sum() == 6


@pytest.mark.parametrize("shape", COOLDOWNS)
def test_cooldowns_are_those_of_haegele(shape):
    steps, cooldown = 100, 20
    start = steps - cooldown
    curve = rates(wsd(warmup=160, cooldown=0.2, shape=shape), steps)
    np.testing.assert_array_equal(curve[9:start], 1.0)
    expected = [COOLDOWNS[shape]((step - start) / cooldown) for step in range(start, steps)]
    np.testing.assert_allclose(curve[start:], expected, rtol=1e-12)
    assert 0 < curve[-1] < 0.15


def test_an_exponential_cooldown_is_final_to_the_power_of_the_completed_fraction():
    curve = rates(wsd(warmup=0, cooldown=0.5, shape="exponential", final=0.01), 40)
    np.testing.assert_allclose(curve[20:], 0.01 ** (np.arange(20) / 20), rtol=1e-12)
    with pytest.raises(ValueError, match="final must be above 0 for an exponential cooldown"):
        wsd(warmup=0, shape="exponential")


def test_every_cooldown_shape_has_its_formula_in_this_file():
    assert {*COOLDOWNS, "exponential"} == set(COOLDOWN_SHAPES)


@pytest.mark.parametrize("shape", COOLDOWN_SHAPES)
@given(st.integers(50, 2000), st.floats(0.05, 0.9), st.floats(0.001, 0.5))
def test_a_cooldown_falls_to_final_without_a_jump_and_has_the_area_of_its_formula(
    shape, steps, fraction, final
):
    curve = rates(wsd(warmup=0, cooldown=fraction, shape=shape, final=final), steps)
    cooling = curve[curve < 1.0]
    assert np.all(np.diff(curve) <= 0) and np.all(curve > 0)
    n = steps - math.floor((1 - fraction) * steps + 0.5)
    assert abs(len(cooling) - n) <= 1 and cooling[-1] > final
    # 1-sqrt falls like a square root at first: its largest drop is sqrt(1 / n).
    largest_drops = {"1-sqrt": math.sqrt(1 / n), "exponential": -math.log(final) / n}
    drops = np.abs(np.diff([*curve[-n:], final]))
    assert drops.max() <= largest_drops.get(shape, 2 / n) + 1e-12
    if shape == "exponential":
        area = (final - 1) / math.log(final)
    else:
        area = final + (1 - final) * AREAS[shape]
    # The mean over steps is a left Riemann sum of a falling curve, so it is too large.
    assert 0 <= curve[-n:].mean() - area <= 1 / n + 1e-9


SCHEDULES = st.one_of(
    st.builds(linear, warmup=st.integers(0, 800), final=st.floats(0, 1)),
    st.builds(
        cosine,
        warmup=st.integers(0, 800),
        final=st.floats(0, 1),
        warmup_shape=st.sampled_from(["linear", "cosine"]),
    ),
    st.builds(inverse_sqrt, warmup=st.integers(1, 800)),
    st.builds(
        cyclic, warmup=st.integers(0, 800), period=st.integers(16, 5000), final=st.floats(0, 1)
    ),
    st.builds(
        wsd,
        warmup=st.integers(0, 800),
        cooldown=st.floats(0, 0.5),
        shape=st.sampled_from(sorted(COOLDOWNS)),
    ),
    st.builds(multistep, warmup=st.integers(0, 800), factor=st.floats(0.01, 1)),
)


@given(
    SCHEDULES,
    st.integers(110, 1000),
    st.floats(1e-6, 10),
    st.sets(st.integers(1, 600), max_size=2).map(sorted),
)
def test_rates_are_finite_not_negative_and_at_most_the_peak(schedule, steps, peak, doublings):
    curve = rates(schedule, steps + 200, peak, tuple(doublings))
    assert np.isfinite(curve).all()
    assert (curve >= 0).all() and curve.max() <= peak * (1 + 1e-15)
    assert curve.dtype == np.float64


@given(SCHEDULES, st.integers(1100, 3000))
def test_smooth_schedules_have_no_jump(schedule, steps):
    curve = rates(schedule, steps)
    warmup = math.ceil(schedule.warmup / 16)
    changes = np.abs(np.diff(curve[max(warmup - 1, 0) :]))
    # Only multistep may jump, and 1-sqrt starts like a square root.
    limits = {
        "cyclic": 32 / max(schedule.period, 16),
        "multistep": 1.0,
        "inverse_sqrt": 1 / max(warmup, 1),
    }
    root = math.sqrt(1 / max(schedule.cooldown * steps - 1, 1)) if schedule.cooldown else 0.0
    limit = limits.get(schedule.shape, max(root, 4 / (steps - warmup)))
    assert changes.max() <= limit + 1e-12
    rises = np.diff(curve[:warmup], prepend=0.0)
    assert warmup == 0 or (rises.max() <= math.pi / 2 / warmup + 1e-12 and (rises >= 0).all())


def test_the_step_after_the_last_one_would_have_the_final_rate():
    rate = learning_rate(
        wsd(warmup=0, cooldown=0.5, final=0.1), peak=2.0, steps=10, batch_tokens=10
    )
    assert float(rate(10)) == pytest.approx(0.2)
    assert float(rate(9)) > 0.2


@given(
    st.integers(20, 3000),
    st.integers(20, 3000),
    st.floats(1e-5, 1),
    st.integers(0, 100),
    st.floats(0.01, 0.6),
)
def test_wsd_runs_and_the_constant_run_have_the_same_bits_until_the_first_cooldown(
    length, other_length, peak, warmup, cooldown
):
    short, long = sorted((length, other_length))
    shared = math.floor((1 - cooldown) * short + 0.5)
    warmup = min(warmup, 16 * (shared - 1))
    schedule, trunk = wsd(warmup=warmup, cooldown=cooldown), constant(warmup=warmup)
    runs = ((schedule, short), (schedule, long), (trunk, long))
    curves = [rates(schedule, steps, peak).astype(np.float32) for schedule, steps in runs]
    assert len({curve[:shared].tobytes() for curve in curves}) == 1


@pytest.mark.parametrize(
    "schedule", [wsd(warmup=64, cooldown=0.52), cosine(warmup=64), cyclic(warmup=64, period=320)]
)
def test_when_the_batch_doubles_the_rate_is_the_same_function_of_the_tokens(schedule):
    plain = learning_rate(schedule, peak=1.0, steps=100, batch_tokens=4)
    batches = BatchSchedule(batch_tokens=16, doublings=(80, 160))
    steps = batches.steps_for(400)
    assert batches.tokens_after(steps) == 400
    curve = rates(schedule, steps, batch_doublings=(80, 160))
    before = np.array([batches.tokens_after(step) for step in range(steps)])
    after_warmup = before >= 64
    expected = plain(before[after_warmup] // 4)
    np.testing.assert_allclose(curve[after_warmup], expected, rtol=1e-12)
    rising = [4 / 64 * (i + 1) for i in range(16)]
    np.testing.assert_allclose(curve[~after_warmup], rising, rtol=1e-12)


def test_a_warmup_that_runs_into_what_follows_is_refused():
    message = "1440 tokens runs into the cooldown, which begins after 1280 tokens"
    with pytest.raises(ValueError, match=message):
        rates(wsd(warmup=1440, cooldown=0.2), 100)
    message = "runs into the first milestone, which begins after 1280 tokens"
    with pytest.raises(ValueError, match=message):
        rates(multistep(warmup=1440), 100)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": "cosin"}, "shape must be one of constant, linear, cosine"),
        (
            {"shape": "constant", "final": 0.1},
            r"Schedule.final is not used by the constant schedule; remove it \(got 0.1\)",
        ),
        ({"shape": "cosine", "cooldown": 0.2}, "cooldown is not used by the cosine schedule"),
        ({"shape": "inverse_sqrt", "warmup": 0}, "warmup must be a whole number of at least 1"),
        ({"shape": "cyclic"}, "period must be a whole number of at least 1"),
        ({"shape": "multistep", "milestones": (0.9, 0.8)}, "increasing fractions"),
        ({"shape": "multistep", "milestones": (0.9,), "factor": 0.0}, "factor must be in"),
        (
            {"shape": "constant", "warmup_shape": "sqrt"},
            "warmup_shape must be one of linear, cosine",
        ),
    ],
)
def test_an_invalid_schedule_is_refused(fields, message):
    defaults: dict[str, Any] = {"warmup": 16}
    with pytest.raises(ValueError, match=message):
        Schedule(**(defaults | fields))


def test_the_fields_that_shapes_use_exist():
    for shape, fields in SCHEDULE_FIELDS.items():
        assert fields <= {field.name for field in dataclasses.fields(Schedule)}, shape


def test_the_rates_of_a_run_are_one_float32_per_step(tiny_run):
    curve = learning_rates(tiny_run)
    assert curve.dtype == np.float32 and curve.shape == (tiny_run.steps,)
    assert curve.max() == np.float32(tiny_run.optimizer.learning_rate)
    assert np.all(curve > 0)
