"""Robust losses (mirrors scalejax/laws/solver/losses.py)."""

import jax
import numpy as np
import pytest

from scalejax.laws.solver.losses import parse_loss


@pytest.mark.parametrize("text", ["huber:0.01", "mse", "log-mse", "asymmetric:10"])
def test_slope_and_curvature_are_the_derivatives_of_the_cost(text):
    huber = parse_loss(text).stages[-1]
    r, h = np.array([-0.3, -0.02, -0.004, 0.0007, 0.004, 0.2]), 1e-6
    with jax.enable_x64(True):
        slope = (huber.cost(r + h) - huber.cost(r - h)) / (2 * h)
        curvature = (huber.slope(r + h) - huber.slope(r - h)) / (2 * h)
        np.testing.assert_allclose(slope, huber.slope(r), rtol=1e-6)
        np.testing.assert_allclose(curvature, huber.curvature(r), atol=1e-6)
        np.testing.assert_allclose(huber.irls_weight(r) * r, huber.slope(r), rtol=1e-12)


def test_asymmetric_loss_weighs_over_predictions_by_its_factor():
    plain, asymmetric = parse_loss("huber:1e-3").stages[0], parse_loss("asymmetric:10").stages[0]
    r = np.array([-0.01, 0.01])
    with jax.enable_x64(True):
        np.testing.assert_allclose(asymmetric.cost(r) / plain.cost(r), [1, 10])


@pytest.mark.parametrize(
    "text", ["huber:-1", "huber:x", "huber:0", "huber:inf", "mse:3", "l2", "", "asymmetric:nan"]
)
def test_an_unknown_loss_or_number_is_refused(text):
    with pytest.raises(ValueError):
        parse_loss(text)
