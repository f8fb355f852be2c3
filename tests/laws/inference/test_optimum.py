"""Optima of hyperparameters with intervals (mirrors laws/inference/optimum.py)."""

import numpy as np
import pytest

from scalejax.laws.inference import optimum

SEEDS, VALUES = 3, np.linspace(1, 3.5, 6)


def _losses(rng, *, at, noise):
    """Losses of a parabola with its minimum at `at`, with an offset for every seed."""
    x, seed = np.tile(VALUES, SEEDS), np.repeat(np.arange(SEEDS), len(VALUES))
    loss = 3 + 0.05 * (x - at) ** 2 + rng.normal(0, 1, SEEDS)[seed]
    return x, loss + rng.normal(0, noise, len(x)), seed


def test_the_lowest_point_does_not_depend_on_the_offsets_of_the_seeds():
    at = optimum.lowest(*_losses(np.random.default_rng(0), at=2.4, noise=1e-9))
    assert at.value == pytest.approx(2.4, abs=1e-6)
    assert at.low is not None and at.high is not None
    assert at.high - at.low < 1e-6


def test_nineteen_of_twenty_intervals_hold_the_lowest_point():
    rng, inside = np.random.default_rng(1), 0
    for _ in range(400):
        at = optimum.lowest(*_losses(rng, at=2.4, noise=0.01))
        assert at.low is not None and at.high is not None
        inside += at.low <= 2.4 <= at.high
    # Three standard errors of a share of 95% of 400.
    assert 367 <= inside <= 393


def test_the_lowest_point_moves_with_z_by_the_slope_of_the_simulation():
    rng, inside = np.random.default_rng(2), 0
    z = np.repeat([2.0, 3.0, 4.0], SEEDS * len(VALUES))
    for _ in range(100):
        parts = [_losses(rng, at=3.5 - 0.4 * each, noise=0.01) for each in (2, 3, 4)]
        x, loss, seed = (np.concatenate(part) for part in zip(*parts, strict=True))
        slope = optimum.lowest_by(x, z, loss, seed + 10 * z)
        assert slope.low is not None and slope.high is not None
        inside += slope.low <= -0.4 <= slope.high
    assert inside >= 88


def test_an_interval_is_open_where_the_noise_hides_the_curvature():
    at = optimum.lowest(*_losses(np.random.default_rng(0), at=2.4, noise=0.08))
    assert (at.low, at.high) == (None, None)


def test_a_loss_without_a_minimum_is_refused():
    x, loss, seed = _losses(np.random.default_rng(0), at=2.4, noise=0.0)
    with pytest.raises(ValueError, match="no minimum"):
        optimum.lowest(x, -loss, seed)


def test_too_few_runs_are_refused():
    with pytest.raises(ValueError, match="do not determine the curve"):
        optimum.lowest(np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.0, 1.0]), np.zeros(3))


def _swept(rng, *, noise, beyond=0.0):
    """Six blocks at three rates: the best rate and the lowest loss differ by block."""
    rate, block = np.tile([0.0, 1.0, 2.0], 6), np.repeat(np.arange(6), 3)
    best = np.array([0.6, 0.8, 1.0, 1.2, 1.4, 1.6 + beyond])
    truth = np.array([3.3, 3.1, 3.0, 3.1, 3.2, 3.4])
    loss = truth[block] + 0.05 * (rate - best[block]) ** 2
    return rate, loss + rng.normal(0, noise, len(rate)), block, truth


def test_the_lowest_losses_are_those_at_the_best_rate_of_each_block():
    *runs, truth = _swept(np.random.default_rng(0), noise=0.0)
    assert optimum.lowest_losses(*runs) == pytest.approx(truth, abs=1e-9)


def test_a_parabola_is_not_followed_beyond_the_values_that_were_trained():
    *runs, truth = _swept(np.random.default_rng(0), noise=0.0, beyond=1.4)
    # The best rate of the last block is 3, and the highest is 2.
    assert optimum.lowest_losses(*runs) == pytest.approx([*truth[:5], 3.4 + 0.05], abs=1e-9)


def test_noise_does_not_favour_blocks_whose_best_rate_was_trained():
    rng, errors, measured = np.random.default_rng(4), [], []
    for _ in range(400):
        rate, loss, block, truth = _swept(rng, noise=0.01)
        errors.append(optimum.lowest_losses(rate, loss, block) - truth)
        measured.append(loss.reshape(6, 3).min(axis=1) - truth)
    # The lowest measured loss does: between two rates, both are too high.
    assert np.ptp(np.mean(errors, axis=0)) < 0.002 < np.ptp(np.mean(measured, axis=0))


def test_blocks_of_two_values_and_a_maximum_are_refused():
    with pytest.raises(ValueError, match="do not determine the curves"):
        optimum.lowest_losses(np.tile([0.0, 1.0], 3), np.ones(6), np.repeat([0, 1, 2], 2))
    rate, loss, block, _ = _swept(np.random.default_rng(0), noise=0.0)
    with pytest.raises(ValueError, match="no minimum"):
        optimum.lowest_losses(rate, -loss, block)
