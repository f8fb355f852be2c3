"""From (params, tokens) to loss to top-1 error (mirrors scalejax/fitting/chain.py)."""

from dataclasses import replace

import numpy as np
import pytest

from scalejax import laws
from scalejax.fitting import chain
from scalejax.fitting import fit as fits
from scalejax.fitting.parametric.result import ParametricFit
from scalejax.fitting.result import Estimate
from tests.fitting.test_fit import ladder, true_loss

RUN = {"params": 2e7, "tokens": 6e7}


def true_error(loss):
    return 0.9 - 1.6 * np.exp(-0.5 * loss)


def table_with_errors(seed=0, noise=0.01, error_noise=0.001):
    """A table in which the error follows the true loss, and not the measured one."""
    frame, exact_loss = ladder(seed, noise), ladder(seed, 0.0).loss
    deviations = np.random.default_rng(seed + 1).normal(0, error_noise, len(frame))
    return frame.assign(top1_error=true_error(exact_loss) + deviations)


def fit_error(frame, **options) -> ParametricFit:
    return fits.fit(frame, laws.downstream(), loss="log-mse", **options)


def fit_both(frame, seed=0, bootstrap=200) -> tuple[ParametricFit, ParametricFit]:
    """Fit of both laws; with another `seed`, the error law draws other rows."""
    loss = fits.fit(frame, laws.chinchilla(), loss="log-mse", bootstrap=bootstrap)
    return loss, fit_error(frame, bootstrap=bootstrap, seed=seed)


@pytest.fixture(scope="module")
def fitted():
    return fit_both(table_with_errors())


def ends(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None and estimate.high is not None
    return estimate.low, estimate.high


def width(estimate: Estimate) -> float:
    low, high = ends(estimate)
    return high - low


def test_no_end_of_an_interval_lies_outside_of_0_to_1():
    frame = table_with_errors(error_noise=0.02)
    # At the lowest loss the law is near 0, and its noise goes below.
    frame["top1_error"] -= frame["top1_error"].min() - 0.01
    law = fits.fit(frame, laws.downstream(), loss="mse", bootstrap=100)
    estimate = law.predict(loss=float(frame["loss"].to_numpy().min()))
    low, high = ends(estimate)
    assert low == 0 and 0 < estimate.value < high <= 1


def test_the_value_is_one_law_after_the_other_and_the_interval_holds_the_truth(fitted):
    estimate = chain.predict(*fitted, **RUN)
    loss = fitted[0].predict(**RUN).value
    assert estimate.value == fitted[1].predict(loss=loss).value
    low, high = ends(estimate)
    assert low < true_error(true_loss(**RUN)) < high


def test_the_interval_includes_the_error_of_the_loss():
    frame = ladder(noise=0.01)
    loss, error = fit_both(frame.assign(top1_error=true_error(frame.loss)))
    predicted_loss = loss.predict(**RUN)
    low, high = (error.predict(loss=end).value for end in ends(predicted_loss))
    at_one_loss = error.predict(loss=predicted_loss.value)
    other = table_with_errors(noise=0.02, error_noise=1e-4)
    chained = chain.predict(loss, fit_error(other, bootstrap=200, seed=1), **RUN)
    assert width(chained) > 1.2 * width(at_one_loss)
    assert width(chained) > 0.9 * (high - low)


def test_draws_of_the_same_rows_keep_the_errors_that_both_laws_share(fitted):
    """A run above the law of the loss has no higher error in this table.

    In draws of the same rows the two residuals cancel; combined at random they add up.
    """
    paired = chain.predict(*fitted, **RUN)
    at_random = chain.predict(*fit_both(table_with_errors(), seed=1), **RUN)
    assert "of the same rows in both laws" in paired.method
    assert "independent" in at_random.method
    assert paired.value == at_random.value and width(paired) < 0.75 * width(at_random)


def test_a_chain_of_saved_fits_predicts_the_same(fitted, tmp_path):
    for name, fit in zip(("loss", "error"), fitted, strict=True):
        fit.save(tmp_path / f"{name}.json")
    saved = [fits.load(tmp_path / f"{name}.json") for name in ("loss", "error")]
    assert chain.predict(*saved, **RUN) == chain.predict(*fitted, **RUN)


def test_draws_without_a_fit_leave_the_other_draws_paired(fitted):
    with_gaps = []
    for gap, fit in zip((3, 7), fitted, strict=True):
        has_gap = np.arange(200) == gap
        draws = {name: np.where(has_gap, np.nan, values) for name, values in fit.draws.items()}
        with_gaps.append(replace(fit, draws=draws))
    estimate, without_gaps = chain.predict(*with_gaps, **RUN), chain.predict(*fitted, **RUN)
    assert width(estimate) == pytest.approx(width(without_gaps), rel=0.1), (
        "draws that are not paired give a wider interval"
    )
    assert len(with_gaps[0].converged_draws()["alpha"]) == 199


def test_fits_to_other_rows_are_combined_at_random(fitted):
    loss, _ = fitted
    some_rows = fit_error(table_with_errors(), bootstrap=200, where="tokens > 1.5e6")
    assert "independent" in chain.predict(loss, some_rows, **RUN).method


def test_laws_of_different_losses_or_in_the_wrong_order_are_refused(fitted):
    loss, error = fitted
    frame = table_with_errors().assign(c4=lambda table: table.loss)
    other = fits.fit(frame, laws.downstream(), columns={"loss": "c4"}, bootstrap=0)
    with pytest.raises(ValueError, match="first predicts 'loss', the second reads 'c4'"):
        chain.predict(loss, other, **RUN)
    with pytest.raises(ValueError, match="a law that reads the loss"):
        chain.predict(error, loss, loss=3.0)


def test_without_bootstraps_there_is_no_interval():
    estimate = chain.predict(*fit_both(table_with_errors(), bootstrap=0), **RUN)
    assert estimate.low is None and "both laws need bootstraps" in estimate.method
