"""Bootstraps and profiles over curves (mirrors scalejax/laws/curves/uncertainty.py)."""

import numpy as np

from scalejax.laws.curves.solver import fit_curves
from scalejax.laws.curves.uncertainty import bootstrap_curves, intervals, profile_curves
from tests.laws.curves.examples import ANNEALING, SCHEDULES, noisy_curves


def test_intervals_resample_curves_and_repeat_with_their_seed():
    data = noisy_curves(ANNEALING, SCHEDULES, noise=2e-3)
    fit = fit_curves("annealing", data)
    a, b = (bootstrap_curves("annealing", data, fit, draws=20, seed=1) for _ in range(2))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    low, high = intervals("annealing", a)["L0"]
    assert low is not None and high is not None and low < fit.params["L0"] < high


def test_the_profile_is_lowest_at_the_fit_and_flat_on_one_curve():
    data = noisy_curves(ANNEALING, SCHEDULES[:3], noise=1e-3)
    values = [0.98, fit_curves("annealing", data).params["lambda"], 0.999]
    of_three = profile_curves("annealing", data, "lambda", values)
    assert of_three[1] < of_three[0] and of_three[1] < of_three[2]
    one_curve = noisy_curves(ANNEALING, SCHEDULES[:1], noise=1e-3)
    of_one = profile_curves("annealing", one_curve, "lambda", values)
    assert np.ptp(of_one) / of_one.min() < np.ptp(of_three) / of_three.min() / 3
