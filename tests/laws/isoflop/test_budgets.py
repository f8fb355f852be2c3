"""Runs that share a budget or stand out (mirrors .../isoflop/{budgets,outliers}.py)."""

import numpy as np
import pytest

from scalejax.laws import Noise, fit_isoflop
from scalejax.laws.isoflop import budgets

A, B, E, ALPHA, BETA = 406.4, 410.7, 1.69, 0.34, 0.28
EXPONENT = BETA / (ALPHA + BETA)


def best_size(C):
    G = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    return G * (C / 6) ** EXPONENT


def table(scatter=0.0, noise=0.0, seed=0):
    """Seven sizes around the optimum of five budgets, a decade apart."""
    rng = np.random.default_rng(seed)
    nominal = np.repeat(np.geomspace(1e17, 1e21, 5), 7)
    N = best_size(nominal) * np.tile(np.geomspace(1 / 4, 4, 7), 5)
    C = nominal * np.exp(scatter * rng.standard_normal(35))
    D = C / (6 * N)
    loss = E + A * N**-ALPHA + B * D**-BETA + noise * rng.standard_normal(35)
    return N, D, C, loss


def test_budgets_that_scatter_are_told_apart_by_the_gaps_between_them():
    exact, scattered = fit_isoflop(*table()), fit_isoflop(*table(scatter=0.03))
    assert len(scattered.budgets) == 5 and all(b.models == 7 for b in scattered.budgets)
    # Losses are moved to the mean of their budget: the optimum hardly changes.
    assert scattered.law.params_exponent == pytest.approx(EXPONENT, abs=0.004)
    assert exact.law.params_exponent == pytest.approx(EXPONENT, abs=0.001)
    (reason,) = scattered.reasons
    assert "5 budgets scatter by more than 1%" in reason and "1e+20" in reason
    assert exact.reasons == ()


def test_a_scatter_of_a_fifth_is_still_told_apart():
    fit = fit_isoflop(*table(scatter=0.1))
    assert len(fit.budgets) == 5
    assert fit.law.params_exponent == pytest.approx(EXPONENT, abs=0.02)


def test_near_budgets_are_not_merged():
    log_C = np.log(np.repeat([1.5e19, 2.4e19, 1e20], 3))
    assert budgets._breaks(log_C).tolist() == [3, 6]


def test_flops_without_budgets_are_refused_and_small_budgets_take_one_line():
    N, D, C, loss = table()
    rng = np.random.default_rng(1)
    with pytest.raises(ValueError, match="no budget has 3 model sizes"):
        fit_isoflop(N, D, C * np.exp(3 * rng.standard_normal(35)), loss)
    extra = np.geomspace(3e17, 3e20, 4)
    more = (
        np.r_[N, best_size(extra)],
        np.r_[D, extra],
        np.r_[C, extra],
        np.r_[loss, 3.0 * extra**0],
    )
    (reason,) = fit_isoflop(*more).reasons
    assert reason.startswith("4 budgets with fewer than 3 model sizes left out (4 runs)")


def test_a_failed_run_is_named_and_the_intervals_are_widened():
    N, D, C, loss = table(noise=0.003)
    good = fit_isoflop(N, D, C, loss, noise=Noise.parse("0.003"), draws=200)
    loss[33] += 0.12
    fit = fit_isoflop(N, D, C, loss, noise=Noise.parse("0.003"), draws=200)
    assert any(
        "stands out" in r and f"{N[33]:.3g} params" in r and "1e+21" in r for r in fit.reasons
    )
    (misfit,) = [r for r in fit.reasons if "the optima scatter" in r]
    assert "on 3 degrees of freedom" in misfit and "from budget 1e+21" in misfit
    low, high = fit.interval("params", 1e23)
    assert low < best_size(1e23) < high
    assert not any("stands out" in reason or "scatter" in reason for reason in good.reasons)
    low, high = good.interval("params", 1e23)
    assert low < best_size(1e23) < high and high / low < 1.15


def test_an_exponent_is_held():
    fit = fit_isoflop(*table(noise=0.003), fixed={"params_exponent": 0.5})
    assert fit.law.params_exponent == 0.5
    assert fit.law.params(1e19) == pytest.approx(best_size(1e19), rel=0.05)
    assert fit.law.tokens_exponent == pytest.approx(1 - EXPONENT, abs=0.01)
