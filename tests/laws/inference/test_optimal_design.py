"""Runs that narrow predictions (mirrors scalejax/laws/inference/optimal_design.py)."""

import numpy as np
import pytest

from scalejax import laws
from scalejax.laws.inference.identification import linearize
from scalejax.laws.inference.optimal_design import (
    Candidate,
    Information,
    choose_runs,
    residual_slopes,
)
from scalejax.laws.solver.losses import parse_loss
from scalejax.laws.solver.multistart import find_optimum

SLOPES = np.random.default_rng(0).normal(size=(12, 3))
AHEAD = np.array([[1.0, 4.0, 2.0]])


def information(correlation=0.0, trunks="abcdefghijkl"):
    known = Information(np.zeros((3, 3)), correlation)
    for slope, trunk in zip(SLOPES, trunks, strict=True):
        known = known.with_run(slope, trunk)
    return known


def test_the_information_is_that_of_generalized_least_squares():
    trunks = "aaabbbccddde"
    same = np.array([[one == other for other in trunks] for one in trunks])
    covariance = np.where(same, 0.6, 0.0) + 0.4 * np.eye(12)
    expected = SLOPES.T @ np.linalg.solve(covariance, SLOPES)
    known = information(0.6, trunks)
    np.testing.assert_allclose(known.matrix, expected)
    variance = AHEAD @ np.linalg.solve(expected, AHEAD.T)
    assert known.variances(AHEAD)[0] == pytest.approx(variance[0, 0])
    assert information().variances(AHEAD)[0] != pytest.approx(variance[0, 0], rel=0.05)


def candidates(costs):
    """Runs along each axis, of which the second matters most for the prediction."""

    def propose(chosen):
        for axis, cost in enumerate(costs):
            if axis not in chosen:
                yield Candidate(axis, 3 * np.eye(3)[axis], f"new {axis}", cost)

    return propose


def test_the_best_run_within_the_budget_is_chosen():
    known = information()
    best = choose_runs(known, AHEAD, candidates((1.0, 1.0, 1.0)), count=1, budget=5.0)
    assert [one.run for one in best.chosen] == [1]
    reduced = best.information.variances(AHEAD)[0]
    assert reduced < 0.8 * known.variances(AHEAD)[0]
    # Unaffordable runs are left out, and the budget limits the number of runs.
    poor = choose_runs(known, AHEAD, candidates((1.0, 9.0, 1.0)), count=3, budget=1.5)
    assert len(poor.chosen) == 1 and poor.chosen[0].run != 1
    assert not choose_runs(known, AHEAD, candidates((9.0,) * 3), count=3, budget=1.0).chosen


def test_cheap_runs_do_not_use_up_the_count():
    # Per FLOP the first run is by far the best, and it does almost nothing.
    def propose(chosen):
        yield Candidate("cheap", np.array([0.0, 0.05, 0.0]), f"c{len(chosen)}", 1e-9)
        yield Candidate("useful", np.array([0.0, 3.0, 0.0]), f"u{len(chosen)}", 1.0)

    design = choose_runs(information(), AHEAD, propose, count=2, budget=2.0)
    assert [one.run for one in design.chosen] == ["useful", "useful"]


def test_slopes_at_the_fitted_rows_are_those_of_the_fit():
    N, D = (x.ravel() for x in np.meshgrid([1e6, 4e6, 2e7], [1e8, 3e8, 1e9]))
    loss = 1.6 + 20 * N**-0.34 + 60 * D**-0.35
    law = laws.chinchilla(E=1.6)
    at = find_optimum(law, [N, D], loss, np.ones(9), parse_loss("huber:1e-3"))
    np.testing.assert_allclose(
        residual_slopes(law, at, [N, D]),
        np.where(at.problem.held, 0.0, linearize(law, at).jacobian),
        rtol=1e-6,
        atol=1e-9,
    )
