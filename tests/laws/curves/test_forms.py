"""Whole-curve laws as functions of the rate of every step (mirrors scalejax/laws/curves.py)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalejax.laws.curves.forms import (
    Annealing,
    AnnealingSize,
    MultiPower,
    annealed,
    best_schedule,
    decrements,
    predict_curve,
)
from scalejax.laws.curves.laws import annealing
from scalejax.laws.forms import chinchilla
from scalejax.laws.law import Law

PEAK = 3e-4
ANNEALING = Annealing(3.1, 0.5, 0.5, 0.4, 0.99)
MULTIPOWER = MultiPower(3.1, 0.5, 0.5, 450.0, 1.3, 0.45, 0.55)


def schedule(steps=400, warmup=40, final=0.1):
    """Linear warm-up from 0, then a cosine to `final` x peak."""
    x = np.linspace(0, 1, steps - warmup)
    return (
        PEAK * np.r_[np.linspace(0, 1, warmup), final + (1 - final) * 0.5 * (1 + np.cos(np.pi * x))]
    )


def direct_multipower(law, rates, t):
    """The sum of the paper, term by term."""
    total = 0.0
    for k in range(1, t + 1):
        if k > np.argmax(rates):
            S = rates[k : t + 1].sum()
            clock = max(rates[k], 1e-6 * rates.max()) ** -law.gamma
            total += (rates[k - 1] - rates[k]) * (1 - (1 + law.C * clock * S) ** -law.beta)
    return law.L0 + law.A * rates[: t + 1].sum() ** -law.alpha - law.B * total


def test_the_annealing_sum_is_the_double_loop_of_the_paper():
    rates, momentum = schedule(), 0.97
    area, m, expected = 0.0, 0.0, []
    for i, rate in enumerate(rates):
        m = momentum * m + (rates[i - 1] - rate if i > np.argmax(rates) else 0.0)
        area += m
        expected.append(area)
    with jax.enable_x64(True):
        np.testing.assert_allclose(annealed(jnp.asarray(rates), momentum), expected, rtol=1e-12)
    assert expected[-1] > 0


def test_without_momentum_the_annealing_sum_is_the_fall_from_the_peak():
    rates = schedule()
    with jax.enable_x64(True):
        area = np.asarray(annealed(jnp.asarray(rates), 0.0))
    np.testing.assert_allclose(area[40:], PEAK - rates[40:], atol=1e-15)
    assert np.all(area[:40] == 0), "the rise of the warm-up earned credit"


@pytest.mark.parametrize(
    "C, beta, gamma", [(1.3, 0.45, 0.55), (1e-3, 0.2, 1.3), (20.0, 3.0, 0.0), (0.5, 0.05, 0.8)]
)
@pytest.mark.parametrize("final", [0.1, 0.0])
def test_the_linear_time_multi_power_law_is_the_sum_of_the_paper(C, beta, gamma, final):
    law, rates = MULTIPOWER._replace(C=C, beta=beta, gamma=gamma), schedule(final=final)
    predicted = predict_curve(law, rates)
    for t in (39, 45, 150, 399):
        assert predicted[t] == pytest.approx(direct_multipower(law, rates, t), abs=1e-7)
    plain = law.L0 + law.A * rates.sum() ** -law.alpha
    assert plain - predicted[-1] > 1e-3, "the credit is nil, so that any kernel would pass"


def test_a_constant_rate_earns_no_credit():
    rates = np.full(100, PEAK)
    for law in (ANNEALING, MULTIPOWER):
        np.testing.assert_allclose(
            predict_curve(law, rates), law.L0 + law.A * np.cumsum(rates) ** -law.alpha, rtol=1e-12
        )


def test_warm_up_counts_at_its_true_rate():
    slow, fast = np.r_[np.full(50, 1e-5), np.full(50, PEAK)], np.full(100, PEAK)
    assert decrements(jnp.asarray(slow)).sum() == 0
    assert predict_curve(ANNEALING, slow)[-1] > predict_curve(ANNEALING, fast)[-1]


SIZED = AnnealingSize(2.0, 0.5, 0.5, 400.0, 0.3, 1e-3, 0.99, 0.3)


def test_a_law_of_several_sizes_is_the_annealing_law_at_each():
    small, large = (predict_curve(SIZED, schedule(), params=N) for N in (1e7, 1e9))
    plain = Annealing(2.0 + 400 * 1e7**-0.3, 0.5, 0.5, 1e-3 * 1e7**0.3, 0.99)
    np.testing.assert_allclose(small, predict_curve(plain, schedule()), rtol=1e-12)
    assert np.all(large[41:] < small[41:] - 1)
    thousands = SIZED.in_units(1e3)
    np.testing.assert_allclose(predict_curve(thousands, schedule(), params=1e4), small, rtol=1e-12)


def test_a_size_is_given_exactly_where_the_law_reads_it():
    with pytest.raises(ValueError, match="give params"):
        predict_curve(SIZED, schedule())
    with pytest.raises(ValueError, match="does not read params"):
        predict_curve(ANNEALING, schedule(), params=1e8)


class FittedToATable(NamedTuple):
    law: Law
    params: dict[str, float]


def test_a_fit_to_a_table_predicts_as_its_law():
    params = {"L0": 3.1, "A": 0.5, "alpha": 0.5, "C": 0.4, "lambda": 0.99}
    np.testing.assert_array_equal(
        predict_curve(FittedToATable(annealing(), params), schedule()),
        predict_curve(ANNEALING, schedule()),
    )
    with pytest.raises(ValueError, match="'chinchilla' does not read learning rates"):
        predict_curve(FittedToATable(chinchilla(), params), schedule())
    with pytest.raises(
        ValueError, match=r"expected a whole-curve law or a fit of one; got 'fit.json'"
    ):
        predict_curve("fit.json", schedule())


@pytest.mark.parametrize("law", [ANNEALING, MULTIPOWER])
def test_gradients_through_a_law_are_finite_differences(law):
    rates = schedule()[1:]  # S1 = 0 at a first rate of zero
    with jax.enable_x64(True):
        final = jax.jit(lambda law, rates: law.loss(rates)[-1])
        law = type(law)(*(jnp.float64(x) for x in law))
        by_law, by_rates = jax.grad(final, argnums=(0, 1))(law, jnp.asarray(rates))
        for i, (name, value) in enumerate(zip(law._fields, by_law, strict=True)):
            h = 1e-6 * float(law[i])
            ends = [
                float(final(law._replace(**{name: law[i] + s * h}), jnp.asarray(rates)))
                for s in (1, -1)
            ]
            assert float(value) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-4, abs=1e-9)
        k, h = 300, 1e-9
        ends = [float(final(law, jnp.asarray(rates).at[k].add(s * h))) for s in (1, -1)]
        assert float(by_rates[k]) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-4)


@pytest.mark.parametrize("law", [ANNEALING, MULTIPOWER])
def test_laws_run_under_jit_and_vmap_in_single_precision(law):
    curves = jnp.asarray(np.stack([schedule()[1:], schedule(final=0.5)[1:]]), jnp.float32)
    losses = jax.jit(jax.vmap(law.loss))(curves)
    assert losses.dtype == jnp.float32 and losses.shape == curves.shape
    np.testing.assert_allclose(losses[0][50:], predict_curve(law, schedule()[1:])[50:], rtol=1e-4)


@pytest.mark.parametrize(
    "rates, said",
    [
        ([1e-4, -1e-4], "step 1 is -0.0001"),
        ([1e-4, np.nan], "step 1 is nan"),
        ([0.0, 0.0], "every rate is zero"),
        ([[1e-4]], "one dimension"),
    ],
)
def test_rates_that_train_nothing_are_errors(rates, said):
    with pytest.raises(ValueError, match=said):
        predict_curve(ANNEALING, rates)


def test_the_best_schedule_never_rises_keeps_its_floor_and_beats_cosine():
    cosine = schedule()
    for law in (
        ANNEALING._replace(A=0.05, C=4.0),
        MULTIPOWER._replace(A=0.05),
    ):  # late in training: annealing pays
        with pytest.warns(UserWarning, match="extrapolates"):
            best = best_schedule(
                law, steps=400, peak=PEAK, floor=0.05 * PEAK, warmup=40, seen=[cosine]
            )
        rates = best.learning_rates
        assert np.all(np.diff(rates[40:]) <= 1e-18) and rates.min() > 0
        assert rates[40:].min() >= 0.05 * PEAK * (1 - 1e-9) and rates.max() <= PEAK * (1 + 1e-12)
        assert best.loss == pytest.approx(predict_curve(law, rates)[-1], abs=1e-9)
        assert best.loss < predict_curve(law, cosine)[-1]
        assert any("last rate" in reason for reason in best.reasons) == (rates[-1] < 0.0999 * PEAK)


def test_early_in_training_a_constant_rate_is_best():
    rates = best_schedule(
        ANNEALING, steps=400, peak=PEAK, floor=0.2 * PEAK, seen=[np.full(500, PEAK), schedule()]
    ).learning_rates
    np.testing.assert_allclose(rates, PEAK, rtol=2e-3)


def test_a_schedule_within_what_was_seen_gives_no_warning(recwarn):
    best = best_schedule(
        MULTIPOWER,
        steps=400,
        peak=PEAK,
        floor=0.2 * PEAK,
        warmup=40,
        seen=[np.full(500, PEAK), schedule()],
    )
    assert best.reasons == () and not recwarn.list


@pytest.mark.parametrize(
    "options", [{"floor": 0.0}, {"floor": 2 * PEAK}, {"floor": 1e-5, "warmup": 399}]
)
def test_a_schedule_without_room_is_an_error(options):
    with pytest.raises(ValueError, match="best_schedule needs"):
        best_schedule(ANNEALING, steps=400, peak=PEAK, **options)
