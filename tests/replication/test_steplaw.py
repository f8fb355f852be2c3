"""StepLaw, Li et al. 2025 (arXiv 2503.04715), github.com/step-law/steplaw: learning-rate x batch sweeps in 17 cells.

Tables steplaw/{dense,published_bootstrap_params}.csv. The released runs do not give the published law, so both are checked.
"""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from published import reference

from scalejax.laws.hyperparameters import Hyperparameters, Sweep, fit_hyperparameters, regret

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
    return Hyperparameters(np.exp(mean.lr_intercept), mean.lr_coefN, mean.lr_coefD, np.exp(mean.bs_intercept), mean.bs_coefD)


def test_the_published_bootstrap_is_the_published_law():
    np.testing.assert_allclose(published(), (1.797, -0.7129, 0.3075, 0.581, 0.5709), rtol=2e-3)


def test_the_published_law_costs_little_on_the_released_runs():
    lost = [regret(published(), cell) for cell in runs().cells()]
    assert len(lost) == 17 and np.mean(lost) < 0.0015 and max(lost) < 0.003


def test_the_law_of_the_released_runs():
    fit = refit()
    assert fit.kept == 129 and fit.verdict == "ok"
    np.testing.assert_allclose(fit.law[1:3], (-0.766, 0.197), atol=1e-3)
    assert fit.law.lr_coefficient == pytest.approx(77.7, rel=1e-2)
    assert fit.law.batch_coefficient == pytest.approx(0.209, rel=1e-2)
    assert fit.law.batch_tokens_exponent == pytest.approx(0.613, abs=1e-3)


def test_left_out_cells_lose_at_most_a_sixth_of_a_percent_on_average():
    lost = refit().left_out
    assert len(lost) == 17 and lost.mean() <= 0.0015
    assert refit().regret.mean() <= lost.mean() + 1e-4


def test_intervals_by_cell_hold_the_published_batch_law_and_params_exponent():
    low, high = np.percentile(refit().draws, (2.5, 97.5), axis=0)
    law = published()
    assert low[4] < law.batch_tokens_exponent < high[4] and low[1] < law.lr_params_exponent < high[1]
    assert np.std(refit().draws[:, 2]) == pytest.approx(0.044, abs=0.006)
