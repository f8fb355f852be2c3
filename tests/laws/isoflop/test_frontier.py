"""The loss of the optimum against compute (mirrors .../isoflop/frontier.py)."""

import numpy as np
import pytest

from scalejax.laws import Noise, fit_isoflop
from scalejax.laws.forms import Chinchilla
from scalejax.laws.isoflop.frontier import Frontier, fit_frontier

TRUTH = Chinchilla(A=400.0, B=2000.0, E=1.7, alpha=0.34, beta=0.30)
G = 0.34 * 0.30 / 0.64
BUDGETS = np.geomspace(1e18, 1e21, 4)
LOSS = np.asarray(Frontier(1.7, 2498.0, G).loss(BUDGETS))


def runs(noise=0.0, seed=0):
    """Nine sizes around the optimum of each budget."""
    C = np.repeat(BUDGETS, 9)
    N = np.concatenate([TRUTH.optimal_params(c) * np.geomspace(1 / 4, 4, 9) for c in BUDGETS])
    errors = noise * np.random.default_rng(seed).normal(size=N.size)
    return N, C / (6 * N), C, np.asarray(TRUTH.loss(N, C / (6 * N))) + errors


@pytest.mark.parametrize("protocol", ["parabola", "akima"])
def test_exact_curves_give_the_frontier_of_the_chinchilla_law(protocol):
    fitted = fit_isoflop(*runs(), protocol=protocol).frontier
    assert fitted is not None
    assert pytest.approx(1.7, abs=1e-4) == fitted.law.E
    assert fitted.law.g == pytest.approx(G, abs=1e-5)
    # Four decades beyond the largest budget it is still the parametric law's own value.
    N = TRUTH.optimal_params(1e25)
    assert fitted.law.loss(1e25) == pytest.approx(float(TRUTH.loss(N, 1e25 / (6 * N))), abs=2e-4)
    assert fitted.reasons == []


def test_intervals_hold_the_truth_and_a_stranger_does_not():
    fitted = fit_isoflop(*runs(noise=0.003), noise=Noise.parse("0.003"), draws=400).frontier
    assert fitted is not None
    low, high = np.percentile(fitted.draws, (2.5, 97.5), axis=0)
    assert low[0] < 1.7 < high[0] and low[2] < G < high[2]
    assert high[0] - low[0] < 0.15 and not low[2] < 0.2 < high[2]


def test_what_is_held_is_not_fitted():
    fitted = fit_frontier(BUDGETS, LOSS, None, {"E": 1.5})
    assert fitted.law.E == 1.5 and fitted.law.g < G - 0.01
    # With E held, two budgets determine the rest.
    two = fit_frontier(BUDGETS[:2], LOSS[:2], None, {"E": 1.7})
    assert two.law.g == pytest.approx(G, abs=1e-6) and "no budget is left" in two.reasons[0]


def test_too_few_budgets_and_losses_that_rise_have_no_frontier():
    few = fit_frontier(BUDGETS[:2], LOSS[:2], None)
    assert np.isnan(few.law.g) and few.reasons == [
        "2 budgets with an optimum: L*(C) has 3 free parameters"
    ]
    rising = fit_frontier(BUDGETS, LOSS[::-1], None)
    assert np.isnan(rising.law.g) and "does not fall with compute" in rising.reasons[0]
    assert "at its bound of 0" in fit_frontier(BUDGETS, LOSS - 1.72, None).reasons[0]


def test_a_misfit_widens_the_draws():
    noise = 0.001 * np.random.default_rng(0).normal(size=(200, 4))
    bent = LOSS + np.array([0.0, 0.03, -0.03, 0.0])
    good, bad = (fit_frontier(BUDGETS, loss, loss + noise) for loss in (LOSS, bent))
    assert good.reasons == [] and "on 1 degrees of freedom" in bad.reasons[0]
    assert np.std(bad.draws[:, 2]) > 5 * np.std(good.draws[:, 2])


def test_the_budget_of_a_loss_is_the_inverse():
    law = Frontier(1.7, 2498.0, G)
    assert law.loss(law.flops(2.5)) == pytest.approx(2.5)
    assert law.flops(1.7) == np.inf and law.flops(1.0) == np.inf
