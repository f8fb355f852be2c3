"""IsoFLOP analysis of Porian et al. 2024 (arXiv 2406.19146, section 3).

Tables: porian2024/{isoflop_points,ref_fits,configs}.csv, the authors' processed
results, from github.com/formll/resolving-scaling-law-discrepancies. The exponents of N*
and D* of all fifteen experiments are refitted from the isoFLOP points, with noise draws
of our own; the tolerances cover the spread over seeds.
"""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import scalejax
from scalejax import laws
from scalejax.laws.isoflop import Noise, fit_isoflop
from scalejax.laws.isoflop.frontier import fit_frontier
from tests.published import reference

pytestmark = pytest.mark.replication

# Dataset, hyperparameters, warmup, learning-rate decay, FLOP count.
CONFIGS = [
    "rw-base-long-kaplan-kaplan",
    "rw-base-long-kaplan-standard",
    "rw-base-short-kaplan-standard",
    "rw-base-short-chinchilla-standard",
    "rw-base-long-kaplan-attention",
    "rw-base-short-kaplan-attention",
    "rw-base-short-chinchilla-attention",
    "rw-tuned-short-const-standard",
    "rw-tuned-short-const-attention",
    "rw-tuned-long-const-kaplan",
    "owt2-base-long-kaplan-kaplan",
    "owt2-base-long-kaplan-standard",
    "owt2-base-short-kaplan-standard",
    "owt2-base-short-chinchilla-standard",
    "owt2-tuned-short-const-standard",
]

# 95% intervals of the exponent of N* under the noise that the paper documents.
INTERVALS_OF_DOCUMENTED_NOISE = {
    "rw-base-long-kaplan-kaplan": (0.818, 0.866),
    "rw-base-long-kaplan-standard": (0.683, 0.725),
    "rw-base-short-kaplan-standard": (0.588, 0.621),
    "rw-base-short-chinchilla-standard": (0.554, 0.590),
    "rw-tuned-short-const-standard": (0.483, 0.511),
    "owt2-tuned-short-const-standard": (0.479, 0.546),
}


def folder() -> Path:
    return reference("porian2024")


@functools.cache
def refit(config: str, noise: str):
    points = pd.read_csv(folder() / "isoflop_points.csv").query(f"config == '{config}'")
    N, D, C, loss = points[["N", "D", "C", "loss"]].to_numpy(float).T
    return fit_isoflop(
        N, D, C, loss, protocol="akima", noise=Noise.parse(noise), draws=1000, seed=42
    )


def published(config: str) -> tuple[pd.Series, str]:
    """The authors' fit, and the noise that their released code uses: a constant."""
    fit = pd.read_csv(folder() / "ref_fits.csv").set_index("config").loc[config]
    noise = pd.read_csv(folder() / "configs.csv").set_index("config").noise_std_used[config]
    return fit, str(noise)


def interval_of_exponent(fit):
    """95% interval of the exponent of N*."""
    return np.nanpercentile(fit.draws[:, 0], (2.5, 97.5))


@pytest.mark.parametrize("config", CONFIGS)
def test_exponents_and_intervals_are_the_published_ones(config):
    """The exponents of the paper's isoFLOP figures, as shipped in the repository."""
    expected, noise = published(config)
    fit = refit(config, noise)
    point, end = (0.003, 0.006) if config.startswith("rw") else (0.005, 0.010)
    assert fit.law.params_exponent == pytest.approx(expected.N_exp, abs=point)
    assert fit.law.tokens_exponent == pytest.approx(expected.D_exp, abs=point)
    published_interval = expected.N_exp_lo, expected.N_exp_hi
    assert tuple(interval_of_exponent(fit)) == pytest.approx(published_interval, abs=end)
    assert fit.r2[0] == pytest.approx(expected.N_r2, abs=1e-3)


def test_the_tuned_experiment_extrapolates_to_chinchillas_compute():
    """N* at 5.88e23 FLOPs, with its 95% interval."""
    expected, noise = published("rw-tuned-short-const-standard")
    fit = refit("rw-tuned-short-const-standard", noise)
    assert fit.law.params(5.88e23) == pytest.approx(expected["N_at_5.88e23"], rel=0.02)
    ends = expected["N_at_5.88e23_lo"], expected["N_at_5.88e23_hi"]
    assert fit.interval("params", 5.88e23) == pytest.approx(ends, rel=0.03)


@pytest.mark.parametrize("config", INTERVALS_OF_DOCUMENTED_NOISE)
def test_the_documented_noise_widens_the_interval_and_keeps_the_exponent(config):
    """The paper's noise grows with the loss; the released code keeps it constant.

    It compares the logarithm of the loss with thresholds that are losses, so that the
    smallest noise applies everywhere.
    """
    expected, constant = published(config)
    documented = "0.002@3,0.05@7" if config.startswith("rw") else "0.01@3,0.1@6"
    wide, narrow = refit(config, documented), refit(config, constant)
    wide_interval, narrow_interval = interval_of_exponent(wide), interval_of_exponent(narrow)
    assert wide_interval == pytest.approx(INTERVALS_OF_DOCUMENTED_NOISE[config], abs=0.006)
    assert wide.law.params_exponent == pytest.approx(expected.N_exp, abs=0.005)
    assert 1.05 < np.ptp(wide_interval) / np.ptp(narrow_interval) < 2.5


@pytest.mark.parametrize("dataset", ["rw", "owt2"])
def test_the_frontier_predicts_the_largest_budget_and_the_parametric_law_does_not(dataset):
    config = f"{dataset}-tuned-short-const-standard"
    fit = refit(config, "0.002")
    (*smaller, largest) = [budget for budget in fit.budgets if not budget.reason]
    ahead = fit_frontier(
        np.array([budget.flops for budget in smaller]),
        np.array([budget.loss for budget in smaller]),
        None,
    )
    assert largest.flops / smaller[-1].flops > 1.9
    assert ahead.law.loss(largest.flops) == pytest.approx(largest.loss, abs=0.015)
    # Chinchilla's law on all rows, which reach far from the optimum, misses it.
    points = pd.read_csv(folder() / "isoflop_points.csv").query(f"config == '{config}'")
    columns = {"params": "N", "tokens": "D"}
    chinchilla = scalejax.fit(points, laws.chinchilla(), columns=columns, bootstrap=0)
    optimum = laws.compute_optimal(chinchilla.law.form(**chinchilla.params), largest.flops)
    at = chinchilla.predict(params=float(optimum.params), tokens=float(optimum.tokens))
    assert at.value > largest.loss + 0.1
