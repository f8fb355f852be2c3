"""Which run reaches a loss (mirrors scalejax/fitting/parametric/inverse.py)."""

import numpy as np
import pytest

from scalejax import laws
from scalejax.fitting import fit as fits
from scalejax.fitting.parametric.result import ParametricFit
from tests.fitting.test_fit import TRUTH, ladder, true_loss


@pytest.fixture(scope="module")
def fitted() -> ParametricFit:
    return fits.fit(ladder(noise=1e-4), laws.chinchilla(), bootstrap=100)


def test_the_params_that_reach_a_loss_reach_it(fitted):
    target = float(true_loss(3e6, 8e6))
    forecast = fitted.forecast(loss=target, tokens=8e6)
    estimate = forecast.estimate
    assert estimate.value == pytest.approx(3e6, rel=0.02)
    assert estimate.low is not None and estimate.high is not None
    assert estimate.low < 3e6 < estimate.high
    assert forecast.run == {"tokens": 8e6, "params": estimate.value, "loss": target}
    again = fitted.predict(params=estimate.value, tokens=8e6)
    assert again.value == pytest.approx(target, rel=1e-9)
    tokens = fitted.forecast(loss=target, params=3e6).run["tokens"]
    assert tokens == pytest.approx(8e6, rel=0.02)


def test_the_cheapest_run_of_a_loss_is_compute_optimal(fitted):
    forecast = fitted.forecast(loss=2.5)
    run = forecast.run
    assert fitted.predict(flops=run["flops"]).value == pytest.approx(2.5, rel=1e-9)
    assert run["flops"] == pytest.approx(6 * run["params"] * run["tokens"])
    best = laws.inference_optimal(fitted.law.form(**fitted.params), 2.5, 0)
    assert run["params"] == pytest.approx(float(best.params), rel=1e-6)


def test_a_loss_that_no_run_reaches_is_refused(fitted):
    with pytest.raises(ValueError, match="no run reaches a loss of 1: at params of"):
        fitted.forecast(loss=1.0, tokens=8e6)
    with pytest.raises(ValueError, match="needs all of params, tokens but one"):
        fitted.forecast(loss=2.0, params=1e6, tokens=1e7)


def test_a_run_that_changes_what_never_varied_has_no_interval():
    # The rows leave beta free, and the tokens follow from it.
    params = np.geomspace(2e5, 2e7, 12)
    loss = true_loss(params, 1e7) * np.exp(1e-3 * np.random.default_rng(0).normal(size=12))
    rows = {"params": params, "tokens": np.full(12, 1e7), "loss": loss}
    fit = fits.fit(rows, laws.chinchilla(E=TRUTH["E"]), bootstrap=100)
    assert fit.draws and "tokens" in fit.unvaried
    estimate = fit.forecast(loss=0.98 * loss.min(), params=2e7).estimate
    assert (estimate.low, estimate.high) == (None, None)
    assert estimate.method.startswith("no interval: tokens was")


def test_a_power_law_is_read_backwards_too():
    x = np.geomspace(1e15, 1e19, 9)
    table = {"flops": x, "loss": 30 * x**-0.1 + 1.0}
    fit = fits.fit(table, laws.power("flops"), bootstrap=0)
    wanted = fit.forecast(loss=1.5)
    assert wanted.estimate.value == pytest.approx(60**10, rel=1e-6)
    assert wanted.estimate.low is None and "no bootstrap draws" in wanted.estimate.method


def test_draws_that_all_failed_are_not_called_missing():
    """Of five rows, nearly every resample has fewer distinct rows than parameters."""
    table = ladder().sample(5, random_state=0)
    fit = fits.fit(table, laws.chinchilla(E=1.0), bootstrap=40)
    assert not fit.draws and fit.intervals
    for estimate in (
        fit.forecast(loss=float(table.loss.median()), tokens=1e7).estimate,
        fit.predict(params=1e6, tokens=1e7),
    ):
        assert estimate.method.startswith("no interval: its bootstraps gave none (see its reasons)")
