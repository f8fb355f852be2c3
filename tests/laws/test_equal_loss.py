"""Losses of budgets and budgets of losses (mirrors scalejax/laws/equal_loss.py)."""

import numpy as np
import pytest

from scalejax import laws
from scalejax.laws import equal_loss
from scalejax.laws.forms import Chinchilla

HOFFMANN = Chinchilla(A=406.4, B=410.7, E=1.69, alpha=0.34, beta=0.28)
# Two equal draws.
DRAWS = {name: np.array([x, x]) for name, x in HOFFMANN._asdict().items()}
BUDGETS = np.array([[1e19, 1e21]])


def test_the_frontier_is_that_of_the_closed_form():
    frontier = equal_loss.loss_of_budget(laws.chinchilla(), DRAWS, BUDGETS)
    best = laws.compute_optimal(HOFFMANN, BUDGETS[0])
    expected = np.asarray(HOFFMANN.loss(best.params, best.tokens), np.float64)
    np.testing.assert_allclose(frontier, [expected] * 2, rtol=1e-6)
    run = equal_loss.optimal_run(laws.chinchilla(), HOFFMANN._asdict(), 1e21)
    assert run["params"] == pytest.approx(best.params[1], rel=1e-4)
    # Another allocation of the same compute is worse.
    assert np.all(equal_loss.loss_of_budget(laws.chinchilla(), DRAWS, BUDGETS, 200.0) > frontier)


def test_the_budget_of_a_loss_undoes_the_loss_of_a_budget():
    law, bracket = laws.chinchilla(), (1e10, 1e30)
    for ratio in (None, 20.0):
        losses = equal_loss.loss_of_budget(law, DRAWS, BUDGETS, ratio)
        budgets = equal_loss.budget_of_loss(law, DRAWS, losses, bracket, ratio)
        np.testing.assert_allclose(budgets, np.repeat(BUDGETS, 2, axis=0), rtol=1e-6)


def test_a_loss_out_of_reach_has_an_infinite_budget_and_a_high_one_none():
    losses = np.array([[HOFFMANN.E, 1e6]] * 2)
    budgets = equal_loss.budget_of_loss(laws.chinchilla(), DRAWS, losses, (1e10, 1e30))
    assert np.all(budgets[:, 0] == np.inf) and np.all(budgets[:, 1] == 0)


def test_a_law_of_flops_is_read_as_it_is():
    power = {"a": np.array([30.0]), "b": np.array([-0.1]), "c": np.array([1.0])}
    losses = equal_loss.loss_of_budget(laws.power("flops"), power, np.array([[1e20]]))
    assert losses[0, 0] == pytest.approx(1.3)
    budget = equal_loss.budget_of_loss(laws.power("flops"), power, losses, (1e10, 1e30))
    assert budget[0, 0] == pytest.approx(1e20, rel=1e-6)
