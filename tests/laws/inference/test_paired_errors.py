"""Errors that pairs share (mirrors scalejax/laws/inference/paired_errors.py)."""

import numpy as np
import pytest

from scalejax.laws.inference.identification import Linearization
from scalejax.laws.inference.paired_errors import draw_pair_errors, pair_errors

PAIRS = 200
TRUNKS = np.arange(PAIRS)


def linearized(errors, jacobian):
    """Residuals of a linear law that was fitted to its own errors."""
    fitted = jacobian @ np.linalg.lstsq(jacobian, errors, rcond=None)[0]
    return Linearization(errors - fitted, jacobian)


@pytest.fixture
def errors():
    """Errors of two recipes, correlated by .8, the second twice as large."""
    rng = np.random.default_rng(0)
    common, one, two = rng.normal(size=(3, PAIRS))
    return np.sqrt(0.8) * common + np.sqrt(0.2) * one, 2 * (
        np.sqrt(0.8) * common + np.sqrt(0.2) * two
    )


def test_draws_have_the_covariance_of_the_residuals(errors):
    jacobian = np.random.default_rng(1).normal(size=(PAIRS, 3))
    one, two = (linearized(error, jacobian) for error in errors)
    known = pair_errors(one, two, TRUNKS)
    assert known is not None and known.degrees == PAIRS - 3
    assert known.correlation == pytest.approx(0.8, abs=0.05)
    drawn = draw_pair_errors(known, TRUNKS, 400, np.random.default_rng(2))
    assert drawn.shape == (400, PAIRS, 2)
    covariance = np.cov(drawn.reshape(-1, 2).T)
    np.testing.assert_allclose(covariance, np.cov(np.stack(errors)), rtol=0.05)
    # Rows of different pairs share nothing.
    assert abs(np.corrcoef(drawn[:, 0, 0], drawn[:, 1, 0])[0, 1]) < 0.15


def test_a_difference_has_the_width_of_students_t():
    rng = np.random.default_rng(0)
    jacobian, pairs = np.ones((6, 1)), np.arange(6)
    one, two = rng.normal(size=(2, 6))
    known = pair_errors(linearized(one, jacobian), linearized(two, jacobian), pairs)
    assert known is not None
    drawn = draw_pair_errors(known, pairs, 40_000, rng)
    means = (drawn[..., 0] - drawn[..., 1]).mean(axis=1)
    # 2.571 is the 97.5% quantile of t with 5 degrees of freedom, 1.96 the normal one.
    half = np.percentile(means, 97.5) / (np.std(one - two, ddof=1) / np.sqrt(6))
    assert half == pytest.approx(2.571, abs=0.08)


def test_pairs_of_one_trunk_share_an_error():
    rng, trunks = np.random.default_rng(0), np.repeat(np.arange(8), 6)
    effects = rng.normal(size=(8, 2))[trunks] + 0.2 * rng.normal(size=(48, 2))
    jacobian = np.ones((48, 1))
    one, two = (linearized(error, jacobian) for error in effects.T)
    known = pair_errors(one, two, trunks)
    assert known is not None and known.correlations.min() >= 0.8
    drawn = draw_pair_errors(known, trunks, 2_000, rng)[..., 0]
    assert np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1] > 0.7
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 6])[0, 1]) < 0.2


def test_too_few_pairs_say_nothing():
    jacobian, errors = np.random.default_rng(0).normal(size=(5, 3)), np.ones(5)
    one = linearized(errors, jacobian)
    assert pair_errors(one, one, np.arange(5)) is None
