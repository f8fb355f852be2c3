"""Errors that branches of one trunk share (mirrors .../inference/trunks.py)."""

import numpy as np
import pytest

from scalejax.laws.inference import trunks
from scalejax.laws.inference.trunks import draw_errors, trunk_errors

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


def test_drawn_errors_have_the_variance_and_the_correlation_of_the_residuals():
    errors = trunk_errors(*residuals(0.9), TRUNKS)
    of_rows, of_new_run = draw_errors(errors, TRUNKS, 4000, np.random.default_rng(0))
    variance = float(np.mean(of_rows**2))
    assert variance == pytest.approx(float(np.mean(of_new_run**2)), rel=0.1)
    one_trunk = float(np.mean(of_rows[:, 0] * of_rows[:, 1])) / variance
    assert one_trunk == pytest.approx(errors.correlation, abs=0.05)
    assert abs(np.mean(of_rows[:, 0] * of_rows[:, 5])) / variance < 0.1
