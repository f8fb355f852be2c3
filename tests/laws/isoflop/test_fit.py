"""Approach 2 (mirrors scalejax/laws/isoflop/fit.py)."""

import numpy as np
import pytest

from scalejax.laws.forms import Chinchilla
from scalejax.laws.isoflop.fit import fit_isoflop
from scalejax.laws.isoflop.noise import Noise

# With equal exponents the isoFLOP curves are symmetric in log N about their minimum.
SYMMETRIC = Chinchilla(A=400.0, B=400.0, E=1.7, alpha=0.34, beta=0.34)


def isoflop_runs(law, budgets, sizes=9, width=3.0, centre=1.0):
    """Runs whose sizes are evenly spaced in log N around `centre` x the optimum."""
    factors = np.geomspace(1 / width, width, sizes)
    N = np.concatenate([law.optimal_params(C) * centre * factors for C in budgets])
    C = np.repeat(budgets, sizes)
    D = C / (6 * N)
    return {"params": N, "tokens": D, "flops": C, "loss": np.array(law.loss(N, D))}


@pytest.mark.parametrize("protocol", ["parabola", "akima"])
def test_symmetric_curves_give_the_exponents_of_the_law(protocol):
    fit = fit_isoflop(**isoflop_runs(SYMMETRIC, np.geomspace(1e18, 1e21, 6)), protocol=protocol)
    assert fit.verdict == "ok"
    assert fit.law.params_exponent == pytest.approx(0.5, abs=2e-3)
    assert fit.law.tokens_exponent == pytest.approx(0.5, abs=2e-3)
    assert fit.law.params(1e20) == pytest.approx(SYMMETRIC.optimal_params(1e20), rel=0.02)


def test_sizes_off_centre_bias_the_parabola_by_less_than_five_percent():
    fit = fit_isoflop(**isoflop_runs(SYMMETRIC, np.geomspace(1e18, 1e21, 6), centre=1.5))
    error = fit.law.params(1e20) / SYMMETRIC.optimal_params(1e20) - 1
    assert 1e-4 < abs(error) < 0.05, (
        "the known bias of approach 2; a parabola that shows none is not a parabola"
    )


@pytest.mark.parametrize("protocol", ["parabola", "akima"])
def test_a_budget_whose_optimum_is_at_the_edge_is_left_out_with_a_reason(protocol):
    runs = isoflop_runs(SYMMETRIC, [1e18, 1e19, 1e20, 1e21], width=2.0)
    too_large = isoflop_runs(SYMMETRIC, [1e22], width=2.0, centre=8.0)
    both = {name: np.r_[runs[name], too_large[name]] for name in runs}
    fit = fit_isoflop(**both, protocol=protocol)
    assert [np.isfinite(budget.params) for budget in fit.budgets] == [True] * 4 + [False]
    assert any("1e+22" in reason and "smallest model" in reason for reason in fit.reasons)
    assert fit.law.params_exponent == pytest.approx(0.5, abs=2e-3)


def test_without_any_interior_optimum_there_is_no_exponent():
    fit = fit_isoflop(**isoflop_runs(SYMMETRIC, [1e18, 1e19, 1e20], width=1.5, centre=20.0))
    assert fit.verdict == "unidentified" and np.isnan(fit.law.params_exponent)
    assert any("power law needs two" in reason for reason in fit.reasons)


def test_a_parabola_that_opens_downwards_gives_no_optimum():
    runs = isoflop_runs(SYMMETRIC, [1e18, 1e19, 1e20])
    last = runs["flops"] == 1e20
    runs["loss"][last] = 6 - runs["loss"][last]
    fit = fit_isoflop(**runs)
    assert np.isnan(fit.budgets[-1].params) and fit.verdict == "ok"


def test_budgets_that_round_to_the_same_figure_stay_apart():
    fit = fit_isoflop(**isoflop_runs(SYMMETRIC, [1.5e19, 2.4e19, 1e20]))
    assert [f"{budget.flops:.2g}" for budget in fit.budgets] == ["1.5e+19", "2.4e+19", "1e+20"]


def test_a_budget_of_two_sizes_is_left_out_and_a_table_of_them_is_an_error():
    runs = isoflop_runs(SYMMETRIC, [1e18, 1e19, 1e20])
    two_sizes_in_the_last = np.r_[np.ones(18, bool), np.arange(9) < 2]
    fit = fit_isoflop(**{name: x[two_sizes_in_the_last] for name, x in runs.items()})
    assert len(fit.budgets) == 2 and any("2 model sizes" in reason for reason in fit.reasons)
    two_sizes_everywhere = {name: x[::5] for name, x in runs.items()}
    with pytest.raises(ValueError, match="no budget has 3 model sizes"):
        fit_isoflop(**two_sizes_everywhere)


def test_more_noise_gives_wider_intervals():
    runs = isoflop_runs(SYMMETRIC, np.geomspace(1e18, 1e21, 6))
    little, much = (
        np.std(fit_isoflop(**runs, noise=Noise.parse(std), draws=200).draws[:, 0])
        for std in ("0.0005", "0.003")
    )
    assert 0 < little < much


def test_a_seed_gives_the_same_draws_to_the_bit():
    runs = isoflop_runs(SYMMETRIC, np.geomspace(1e18, 1e21, 6))

    def fit(seed):
        noise = Noise.parse("0.002")
        return fit_isoflop(**runs, protocol="akima", noise=noise, draws=50, seed=seed)

    a, b, other = fit(3, bootstrap=0), fit(3, bootstrap=0), fit(4, bootstrap=0)
    assert a.draws.tobytes() == b.draws.tobytes() and a.law == b.law
    assert not np.array_equal(a.draws, other.draws)


def test_draws_without_noise_and_an_unknown_protocol_are_errors():
    runs = isoflop_runs(SYMMETRIC, [1e18, 1e19])
    with pytest.raises(ValueError, match="noise"):
        fit_isoflop(**runs, draws=10)
    with pytest.raises(ValueError, match="akima, parabola"):
        fit_isoflop(**runs, protocol="makima")
