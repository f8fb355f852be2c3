"""Checks and decrements of learning rates (mirrors scalejax/laws/curves/rates.py)."""

import jax.numpy as jnp
import numpy as np
import pytest

from scalejax.laws.curves.rates import checked_rates, decrements
from tests.laws.curves.examples import PEAK


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ([1e-4, -1e-4], "step 1 is -0.0001"),
        ([1e-4, np.nan], "step 1 is nan"),
        ([0.0, 0.0], "every learning rate is zero"),
        ([[1e-4]], "one-dimensional"),
    ],
)
def test_learning_rates_that_cannot_train_are_errors(rates, message):
    with pytest.raises(ValueError, match=message):
        checked_rates(rates)


def test_the_rise_of_the_warmup_is_no_decrement():
    rates = np.r_[np.full(50, 1e-5), np.full(50, PEAK)]
    assert decrements(jnp.asarray(rates)).sum() == 0
    assert decrements(rates[::-1], np).sum() == pytest.approx(PEAK - 1e-5)


def test_a_rise_after_the_peak_is_a_negative_decrement():
    np.testing.assert_allclose(decrements(np.array([3.0, 1.0, 2.0]), np), [0, 2, -1])
