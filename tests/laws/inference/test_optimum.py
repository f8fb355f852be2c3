"""Optima of hyperparameters with intervals (mirrors laws/inference/optimum.py)."""

import numpy as np
import pytest

from scalejax.laws.inference import optimum

SEEDS, VALUES, Z = 3, np.linspace(1, 3.5, 6), (2.0, 3.0, 4.0)


def _losses(rng, *, noise):
    """Runs whose best x is 3.5 - 0.4 z, with an offset for every pair of seed and z."""
    x, seed, z = (each.ravel() for each in np.meshgrid(VALUES, np.arange(SEEDS), Z))
    block = seed + 10 * z.astype(int)
    loss = 3 + 0.05 * (x - 3.5 + 0.4 * z) ** 2 + rng.normal(0, 1, 50)[block]
    return x, z, loss + rng.normal(0, noise, len(x)), block


def test_how_the_lowest_point_moves_does_not_depend_on_the_offsets_of_the_blocks():
    slope = optimum.lowest_by(*_losses(np.random.default_rng(0), noise=1e-9))
    assert slope.value == pytest.approx(-0.4, abs=1e-6)
    assert slope.low is not None and slope.high is not None
    assert slope.high - slope.low < 1e-6


def test_nineteen_of_twenty_intervals_hold_the_true_slope():
    rng, inside = np.random.default_rng(1), 0
    for _ in range(400):
        slope = optimum.lowest_by(*_losses(rng, noise=0.01))
        assert slope.low is not None and slope.high is not None
        inside += slope.low <= -0.4 <= slope.high
    # Three standard errors of a share of 95% of 400.
    assert 367 <= inside <= 393


def test_an_interval_is_open_where_the_noise_hides_the_curvature():
    slope = optimum.lowest_by(*_losses(np.random.default_rng(0), noise=0.3))
    assert (slope.low, slope.high) == (None, None)


def test_a_loss_without_a_minimum_is_refused():
    x, z, loss, block = _losses(np.random.default_rng(0), noise=0.0)
    with pytest.raises(ValueError, match="no minimum"):
        optimum.lowest_by(x, z, -loss, block)


def test_too_few_runs_are_refused():
    x = np.array([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="do not determine the curve"):
        optimum.lowest_by(x, x, np.array([1.0, 0.0, 1.0]), np.zeros(3))


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
