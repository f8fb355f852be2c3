"""StepLaw, Li et al. 2025 (arXiv 2503.04715), github.com/step-law/steplaw: learning-rate x batch sweeps in 17 cells.

Tables steplaw/{dense,published_bootstrap_params}.csv. The released runs do not give the published law, so both are checked.
"""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scalejax.laws.hyperparameters import (
    Hyperparameters,
    Sweep,
    fit_hyperparameters,
    near_optimum,
    regret,
)
from tests.published import reference

pytestmark = pytest.mark.replication


def folder() -> Path:
    return reference("steplaw")


@functools.cache
def runs() -> Sweep:
    table = pd.read_csv(folder() / "dense.csv").assign(batch_tokens=lambda t: 2048 * t.batch_seqs)
    columns = ["params_nonembed", "tokens", "lr", "batch_tokens", "loss_smooth"]
    return Sweep(*table[columns].to_numpy(float).T, beta2=np.full(len(table), 0.95))  # not swept


@functools.cache
def refit():
    return fit_hyperparameters(runs(), draws=1000)


def published() -> Hyperparameters:
    mean = pd.read_csv(folder() / "published_bootstrap_params.csv").mean()
    return Hyperparameters(
        np.exp(mean.lr_intercept),
        mean.lr_coefN,
        mean.lr_coefD,
        np.exp(mean.bs_intercept),
        mean.bs_coefD,
    )


def test_the_published_bootstrap_is_the_published_law():
    np.testing.assert_allclose(published(), (1.797, -0.7129, 0.3075, 0.581, 0.5709), rtol=2e-3)


def test_the_published_law_costs_little_on_the_released_runs():
    lost = [regret(published(), cell) for cell in runs().cells()]
    assert len(lost) == 17 and np.mean(lost) < 0.0015 and max(lost) < 0.003


def on_a_surface(law: Hyperparameters, cell: Sweep) -> float:
    """Regret on a quadratic in (log LR, log batch) through the log losses within 3% of the best, above its own lowest point."""
    near = cell.loss <= cell.loss.min() * 1.03
    swept = np.log([cell.learning_rate[near], cell.batch_tokens[near]])
    centre = swept.mean(1)
    columns = lambda x, y: np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)
    bowl, *_ = np.linalg.lstsq(
        columns(*(swept - centre[:, None])), np.log(cell.loss[near]), rcond=None
    )
    bend = np.array([[2 * bowl[3], bowl[4]], [bowl[4], 2 * bowl[5]]])
    lowest = -np.linalg.solve(bend, bowl[1:3])
    at = (
        np.log(
            [law.learning_rate(cell.params[0], cell.tokens[0]), law.batch_tokens(cell.tokens[0])]
        )
        - centre
    )
    return float(np.expm1((at - lowest) @ bend @ (at - lowest) / 2))


def left_out(**options) -> list[tuple[Hyperparameters, Sweep]]:
    """Every cell with the law of the others."""
    cells = runs().cells()
    rest = [
        Sweep(*map(np.concatenate, zip(*(c for c in cells if c is not out), strict=True)))
        for out in cells
    ]
    return [
        (fit_hyperparameters(others, **options).law, out)
        for others, out in zip(rest, cells, strict=True)
    ]


def test_the_published_rule_gives_the_law_of_the_released_runs():
    fit = fit_hyperparameters(runs(), optimum=near_optimum, draws=1000)
    assert fit.kept == 129 and fit.verdict == "ok"
    np.testing.assert_allclose(fit.law[1:3], (-0.766, 0.197), atol=1e-3)
    assert fit.law.lr_coefficient == pytest.approx(77.7, rel=1e-2)
    assert fit.law.batch_coefficient == pytest.approx(0.209, rel=1e-2)
    assert fit.law.batch_tokens_exponent == pytest.approx(0.613, abs=1e-3)
    assert np.std(fit.draws[:, 2]) == pytest.approx(0.044, abs=0.006)


def test_left_out_cells_lose_less_than_by_the_published_rule_and_by_the_published_law():
    lost, rule = (
        [on_a_surface(law, cell) for law, cell in left_out(**o)]
        for o in ({}, {"optimum": near_optimum})
    )
    law = [on_a_surface(published(), cell) for cell in runs().cells()]
    assert np.mean(lost) <= 0.00074, "the goal"
    assert np.mean(rule) == pytest.approx(0.00147, abs=5e-5) and np.mean(law) == pytest.approx(
        0.00080, abs=5e-5
    )


def test_left_out_cells_lose_at_most_a_sixth_of_a_percent_between_their_own_runs():
    lost = refit().left_out
    np.testing.assert_allclose(lost, [regret(law, cell) for law, cell in left_out()], rtol=1e-6)
    assert len(lost) == 17 and lost.mean() <= 0.0015
    assert refit().regret.mean() <= lost.mean() + 1e-4


def test_interpolation_does_not_tell_the_law_from_the_published_rule_and_a_surface_does():
    pairs = left_out(), left_out(optimum=near_optimum)
    cells = np.random.default_rng(0).integers(17, size=(4000, 17))
    for measure, high_end in ((regret, (0, 0.0006)), (on_a_surface, (-0.0008, -0.0006))):
        own, rule = (np.array([measure(law, cell) for law, cell in found]) for found in pairs)
        low, high = np.percentile((own - rule)[cells].mean(1), (2.5, 97.5))
        assert low < 0 and high_end[0] < high < high_end[1]


def test_interpolation_is_too_high_at_runs_that_it_did_not_see():
    errors = []
    for cell in runs().cells():
        for i in np.flatnonzero(cell.loss <= cell.loss.min() * 1.01):
            rest = Sweep(*(np.delete(x, i) for x in cell))
            there = Hyperparameters(cell.learning_rate[i], 0.0, 0.0, cell.batch_tokens[i], 0.0)
            errors.append((1 + regret(there, rest)) * rest.loss.min() / cell.loss[i] - 1)
    assert len(errors) > 500
    assert 100 * np.mean(errors) == pytest.approx(0.10, abs=0.03) and 100 * np.std(
        errors
    ) == pytest.approx(0.13, abs=0.03)


def test_intervals_by_cell_hold_the_published_law():
    low, high = np.percentile(refit().draws, (2.5, 97.5), axis=0)
    law = published()
    assert np.all(low[[1, 4]] < np.array(law)[[1, 4]]) and np.all(
        np.array(law)[[1, 4]] < high[[1, 4]]
    )
