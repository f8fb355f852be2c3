"""Pooled noise and lack of fit, against one-way analysis of variance.

Mirrors scalejax/laws/inference/replicates.py.
"""

import numpy as np
import pytest
from scipy import stats

from scalejax.laws.inference import replicates
from scalejax.laws.inference.replicates import LackOfFit, NoiseFloor


def groups(seed=0, sizes=(3, 2, 4, 1, 5), shift=0.0):
    """Labels of design points, and normal values; group means differ by `shift`."""
    rng = np.random.default_rng(seed)
    points = np.repeat(np.arange(len(sizes)), sizes)
    return points, rng.normal(0, 1, len(points)) + shift * points


def noise_floor(values, points, weights=None) -> NoiseFloor:
    floor = replicates.noise_floor(values, points, weights)
    assert floor is not None
    return floor


def lack_of_fit(residuals, points, free) -> LackOfFit:
    test = replicates.lack_of_fit(residuals, points, np.ones(len(points)), free)
    assert test is not None
    return test


def test_the_noise_floor_is_pooled_over_design_points():
    points, values = groups(shift=100.0)
    floor = noise_floor(values, points)
    within = [values[points == g] for g in range(5)]
    assert floor.degrees_of_freedom == 10
    assert floor.std**2 == pytest.approx(sum(np.sum((x - x.mean()) ** 2) for x in within) / 10)


@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_lack_of_fit_of_a_constant_is_one_way_analysis_of_variance(shift):
    points, values = groups(1, shift=shift)
    test = lack_of_fit(values - values.mean(), points, free=1)
    anova = stats.f_oneway(*(values[points == g] for g in range(5)))
    assert test.f_ratio == pytest.approx(anova.statistic, rel=1e-9)
    assert test.p_value == pytest.approx(anova.pvalue, rel=1e-9)
    assert test.degrees_of_freedom == (4, 10)
    assert (test.p_value < 0.01) == (shift > 0)


def test_the_bias_of_a_law_is_measured():
    points = np.repeat(np.arange(200), 3)
    rng = np.random.default_rng(0)
    bias = 0.03 * np.where(np.arange(200) % 2, 1, -1)
    test = lack_of_fit(bias[points] + rng.normal(0, 0.02, 600), points, free=5)
    assert test.bias == pytest.approx(0.03, rel=0.1)


def test_a_true_law_is_rejected_as_often_as_p_says():
    points = np.repeat(np.arange(12), 3)
    draws = (np.random.default_rng(seed).normal(size=36) for seed in range(1000))
    p = [lack_of_fit(values - values.mean(), points, free=1).p_value for values in draws]
    assert 0.03 < np.mean(np.array(p) < 0.05) < 0.07


def test_a_weight_is_an_inverse_variance():
    rng = np.random.default_rng(0)
    points, sizes = np.repeat(np.arange(300), 2), np.tile([0.1, 1.0], 300)
    floor = noise_floor(sizes * rng.normal(size=600), points, sizes**-2)
    assert floor.std == pytest.approx(1, rel=0.1)


def test_copies_and_single_rows_are_no_replicates():
    assert replicates.noise_floor(np.array([1.0, 2.0, 3.0]), np.arange(3)) is None
    assert replicates.noise_floor(np.array([0.1, 0.1, 0.1, 3.0]), np.array([0, 0, 0, 1])) is None
    assert replicates.lack_of_fit(np.zeros(3), np.arange(3), np.ones(3), free=1) is None


def test_rows_with_equal_inputs_and_seed_make_no_replicates_of_any_rows():
    inputs = [np.array([1.0, 1.0, 2.0, 2.0]), np.ones(4)]
    assert replicates.design_points(inputs).tolist() == [0, 0, 1, 1]
    assert replicates.design_points(inputs, np.array([0, 1, 0, 1])).tolist() == [0, 0, 1, 1]
    assert replicates.design_points(inputs, np.array([0, 1, 0, 0])).tolist() == [0, 1, 2, 3]
