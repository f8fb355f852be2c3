"""Checks of measured losses (mirrors scalejax/laws/curves/data.py)."""

import numpy as np
import pytest

from scalejax.laws.curves.data import curve_data
from tests.laws.curves.examples import SCHEDULES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": [5000]}, "beyond the 3000 steps"),
        ({"step": [2.5]}, "whole numbers"),
        ({"step": [0]}, "sums to zero"),
        ({"loss": [-1.0]}, "positive and finite"),
        ({"loss": [np.inf]}, "positive and finite"),
        ({"params": [0.0]}, "params must be positive"),
        (
            {"curve": [0, 0], "step": [500, 600], "loss": [3.0, 3.0], "params": [1e7, 2e7]},
            "one curve must come from one model",
        ),
        ({"rates": [-SCHEDULES[0]]}, "finite and not negative"),
        ({"curve": [], "step": [], "loss": []}, "no measured loss"),
    ],
)
def test_impossible_measurements_are_errors(change, message):
    valid = {"rates": SCHEDULES[:1], "curve": [0], "step": [500], "loss": [3.0]}
    with pytest.raises(ValueError, match=message):
        curve_data(**(valid | change))


def test_curves_without_a_measurement_are_dropped():
    data = curve_data(SCHEDULES[:3], [2, 0], [500, 600], [3.0, 3.1])
    assert len(data.rates) == 2 and data.curve.tolist() == [1, 0]
    np.testing.assert_array_equal(data.rates[1], SCHEDULES[2])
