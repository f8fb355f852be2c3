"""Minima of isoFLOP curves (mirrors scalejax/laws/isoflop/minima.py)."""

import jax
import numpy as np
import pytest
from scipy.interpolate import Akima1DInterpolator

from scalejax.laws.isoflop.minima import akima


@pytest.mark.parametrize("count", [3, 4, 7, 11])
def test_the_padded_spline_is_scipys_akima(count):
    rng = np.random.default_rng(count)
    x, y = np.sort(rng.uniform(0, 10, count)), rng.normal(size=count)
    at = np.linspace(x[0], x[-1], 200)
    padding = (0, 12 - count)
    padded_x = np.pad(x, padding, mode="edge")
    padded_y = np.pad(y, padding, constant_values=9.0)
    with jax.enable_x64(True):
        ours = akima(padded_x, padded_y, count, at)
    np.testing.assert_allclose(ours, Akima1DInterpolator(x, y)(at), rtol=0, atol=1e-12)
    assert np.ptp(y) > 0.1, "a flat curve would pass with any spline"


def test_the_spline_of_a_straight_line_is_the_line():
    x, at = np.array([0.0, 1.0, 3.0, 4.0, 9.0]), np.linspace(0, 9, 50)
    with jax.enable_x64(True):
        spline = akima(x, 2 * x + 1, 5, at)
        np.testing.assert_allclose(spline, 2 * at + 1, atol=1e-12)
