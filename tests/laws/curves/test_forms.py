"""Whole-curve laws as formulas (mirrors scalejax/laws/curves/forms.py)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalejax.laws.curves.forms import (
    Annealing,
    AnnealingSize,
    MultiPower,
    annealing_area,
    predict_curve,
)
from scalejax.laws.curves.laws import annealing
from scalejax.laws.forms import chinchilla
from scalejax.laws.law import Law
from tests.laws.curves.examples import PEAK, cosine

ANNEALING = Annealing(3.1, 0.5, 0.5, 0.4, 0.99)
MULTIPOWER = MultiPower(3.1, 0.5, 0.5, 450.0, 1.3, 0.45, 0.55)
SIZED = AnnealingSize(2.0, 0.5, 0.5, 400.0, 0.3, 1e-3, 0.99, 0.3)


def test_the_annealing_area_is_the_double_sum_of_the_paper():
    rates, momentum = cosine(), 0.97
    area, m, expected = 0.0, 0.0, []
    for i, rate in enumerate(rates):
        m = momentum * m + (rates[i - 1] - rate if i > np.argmax(rates) else 0.0)
        area += m
        expected.append(area)
    with jax.enable_x64(True):
        actual = annealing_area(jnp.asarray(rates), momentum)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    assert expected[-1] > 0


def test_without_momentum_the_annealing_area_is_the_drop_from_the_peak():
    rates = cosine()
    with jax.enable_x64(True):
        area = np.asarray(annealing_area(jnp.asarray(rates), 0.0))
    np.testing.assert_allclose(area[40:], PEAK - rates[40:], atol=1e-15)
    assert np.all(area[:40] == 0), "the rise of the warm-up counted as annealing"


def test_a_constant_rate_does_not_anneal():
    rates = np.full(100, PEAK)
    for law in (ANNEALING, MULTIPOWER):
        expected = law.L0 + law.A * np.cumsum(rates) ** -law.alpha
        np.testing.assert_allclose(predict_curve(law, rates), expected, rtol=1e-12)


def test_the_warmup_counts_at_its_true_rate():
    slow, fast = np.r_[np.full(50, 1e-5), np.full(50, PEAK)], np.full(100, PEAK)
    assert predict_curve(ANNEALING, slow)[-1] > predict_curve(ANNEALING, fast)[-1]


def test_a_law_of_several_sizes_is_the_annealing_law_at_each_size():
    small, large = (predict_curve(SIZED, cosine(), params=N) for N in (1e7, 1e9))
    plain = Annealing(2.0 + 400 * 1e7**-0.3, 0.5, 0.5, 1e-3 * 1e7**0.3, 0.99)
    np.testing.assert_allclose(small, predict_curve(plain, cosine()), rtol=1e-12)
    assert np.all(large[41:] < small[41:] - 1)
    in_thousands = SIZED.in_units(1e3)
    predicted = predict_curve(in_thousands, cosine(), params=1e4)
    np.testing.assert_allclose(predicted, small, rtol=1e-12)


def test_params_are_required_exactly_where_the_law_reads_them():
    with pytest.raises(ValueError, match="give params"):
        predict_curve(SIZED, cosine())
    with pytest.raises(ValueError, match="does not read params"):
        predict_curve(ANNEALING, cosine(), params=1e8)


class FittedToATable(NamedTuple):
    law: Law
    params: dict[str, float]


def test_a_fit_to_a_table_predicts_as_its_law():
    params = {"L0": 3.1, "A": 0.5, "alpha": 0.5, "C": 0.4, "lambda": 0.99}
    np.testing.assert_array_equal(
        predict_curve(FittedToATable(annealing(), params), cosine()),
        predict_curve(ANNEALING, cosine()),
    )
    with pytest.raises(ValueError, match="'chinchilla' does not read learning rates"):
        predict_curve(FittedToATable(chinchilla(), params), cosine())
    with pytest.raises(
        ValueError, match=r"expected a whole-curve law or a fit of one; got 'fit.json'"
    ):
        predict_curve("fit.json", cosine())  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("law", [ANNEALING, MULTIPOWER])
def test_gradients_through_a_law_are_finite_differences(law):
    # Without the first step, at which the summed rate would be zero.
    rates = cosine()[1:]
    with jax.enable_x64(True):
        final_loss = jax.jit(lambda law, rates: law.loss(rates)[-1])
        law = type(law)(*(jnp.float64(x) for x in law))
        by_law, by_rates = jax.grad(final_loss, argnums=(0, 1))(law, jnp.asarray(rates))
        for i, (name, value) in enumerate(zip(law._fields, by_law, strict=True)):
            h = 1e-6 * float(law[i])
            above, below = (
                float(final_loss(law._replace(**{name: law[i] + s * h}), jnp.asarray(rates)))
                for s in (1, -1)
            )
            assert float(value) == pytest.approx((above - below) / (2 * h), rel=1e-4, abs=1e-9)
        k, h = 300, 1e-9
        above, below = (
            float(final_loss(law, jnp.asarray(rates).at[k].add(s * h))) for s in (1, -1)
        )
        assert float(by_rates[k]) == pytest.approx((above - below) / (2 * h), rel=1e-4)


@pytest.mark.parametrize("law", [ANNEALING, MULTIPOWER])
def test_laws_run_under_jit_and_vmap_in_single_precision(law):
    curves = jnp.asarray(np.stack([cosine()[1:], cosine(final=0.5)[1:]]), jnp.float32)
    losses = jax.jit(jax.vmap(law.loss))(curves)
    assert losses.dtype == jnp.float32 and losses.shape == curves.shape
    np.testing.assert_allclose(losses[0][50:], predict_curve(law, cosine()[1:])[50:], rtol=1e-4)
