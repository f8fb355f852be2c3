"""Robust losses (mirrors scalejax/laws/losses.py)."""

import jax
import numpy as np
import pytest

from scalejax.laws.solver.losses import parse_loss


@pytest.mark.parametrize("text", ["huber:0.01", "mse", "log-mse", "asymmetric:10"])
def test_slope_and_curvature_are_the_derivatives_of_the_cost(text):
    with jax.enable_x64(True):
        huber = parse_loss(text).stages[-1]
        r = np.array([-0.3, -0.02, -0.004, 0.0007, 0.004, 0.2])
        h = 1e-6
        cost, slope = (lambda x: np.asarray(huber.cost(x))), (lambda x: np.asarray(huber.slope(x)))
        np.testing.assert_allclose((cost(r + h) - cost(r - h)) / (2 * h), slope(r), rtol=1e-6)
        np.testing.assert_allclose(
            (slope(r + h) - slope(r - h)) / (2 * h), np.asarray(huber.curvature(r)), atol=1e-6
        )
        np.testing.assert_allclose(np.asarray(huber.irls_weight(r)) * r, slope(r), rtol=1e-12)


def test_asymmetric_weighs_over_predictions():
    with jax.enable_x64(True):
        plain, lopsided = parse_loss("huber:1e-3").stages[0], parse_loss("asymmetric:10").stages[0]
        r = np.array([-0.01, 0.01])
        np.testing.assert_allclose(
            np.asarray(lopsided.cost(r)) / np.asarray(plain.cost(r)), [1, 10]
        )


@pytest.mark.parametrize(
    "text", ["huber:-1", "huber:x", "huber:0", "huber:inf", "mse:3", "l2", "", "asymmetric:nan"]
)
def test_another_loss_is_refused(text):
    with pytest.raises(ValueError):
        parse_loss(text)
