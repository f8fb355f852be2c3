"""Errors that branches of one trunk share (mirrors .../inference/trunks.py)."""

import numpy as np
import pytest

from scalejax.laws.inference import trunks
from scalejax.laws.inference.trunks import draw_errors, repeated_trunks, trunk_errors

TRUNKS = np.repeat(np.arange(12), 5)


def residuals(rho, seed=0):
    """Errors of variance 1, minus their projection on a law of a slope and a level."""
    rng = np.random.default_rng(seed)
    noise = np.sqrt(rho) * rng.normal(size=12)[TRUNKS]
    noise += np.sqrt(1 - rho) * rng.normal(size=60)
    jacobian = np.stack([np.ones(60), np.tile(np.arange(5.0), 12)], axis=1)
    return noise - jacobian @ np.linalg.lstsq(jacobian, noise, rcond=None)[0], jacobian


def test_many_trunks_tell_correlated_branches_from_independent_ones():
    for seed in range(10):
        assert trunk_errors(*residuals(0.0, seed), TRUNKS).correlation == 0
        assert 0.8 <= trunk_errors(*residuals(0.9, seed), TRUNKS).correlation <= 0.95


def test_one_trunk_per_size_leaves_the_correlation_to_the_assumption(monkeypatch):
    # The law has a level for each trunk, so that nothing of their effects is left.
    noise, _ = residuals(0.9)
    levels = (TRUNKS[:, None] == np.arange(12)).astype(float)
    within = noise - levels @ np.linalg.lstsq(levels, noise, rcond=None)[0]
    errors = trunk_errors(within, levels, TRUNKS)
    assert errors.probabilities == pytest.approx(1 / 4) and errors.degrees == 48
    monkeypatch.setattr(trunks, "ODDS", 0.9)
    assert trunk_errors(within, levels, TRUNKS).correlation == 0


def test_repeated_trunks_measure_a_correlation_between_the_assumed_ones():
    correlations = [
        [trunk_errors(*residuals(rho, seed), TRUNKS, repeats=4).correlation for seed in range(20)]
        for rho in (0.0, 0.5, 0.9)
    ]
    low, middle, high = np.mean(correlations, axis=1)
    assert low < 0.2 and 0.35 < middle < 0.65 and high > 0.8
    few = trunk_errors(*residuals(0.5), TRUNKS, repeats=3)
    assert not few.measured and few.correlation in (0.0, pytest.approx(0.87, abs=0.08))


def test_a_trunk_repeats_another_one_at_the_same_points():
    points = np.array([0, 1, 0, 1, 2, 3, 0, 1, 2, 4])
    owners = np.repeat(np.arange(5), 2)
    assert repeated_trunks(points, owners) == 2
    assert repeated_trunks(np.arange(10), owners) == 0


def test_drawn_errors_have_the_variance_and_the_correlation_of_the_residuals():
    errors = trunk_errors(*residuals(0.9), TRUNKS)
    of_rows, of_new_run = draw_errors(errors, TRUNKS, 4000, np.random.default_rng(0))
    variance = float(np.mean(of_rows**2))
    assert variance == pytest.approx(float(np.mean(of_new_run**2)), rel=0.1)
    one_trunk = float(np.mean(of_rows[:, 0] * of_rows[:, 1])) / variance
    assert one_trunk == pytest.approx(errors.correlation, abs=0.05)
    assert abs(np.mean(of_rows[:, 0] * of_rows[:, 5])) / variance < 0.1
