"""IsoFLOP curves fitted to tables (mirrors scalejax/fitting/isoflop.py)."""

import json

import numpy as np
import pandas as pd
import pytest

from scalejax import laws
from scalejax.cli.text.fit import fit_text
from scalejax.fitting import fit as fits
from scalejax.fitting.isoflop import IsoFLOPFit
from scalejax.laws.forms import Chinchilla

TRUTH = Chinchilla(A=400.0, B=2000.0, E=1.7, alpha=0.34, beta=0.30)

NAMES = ("A", "B", "E", "alpha", "beta")


def isoflop_table(budgets=(1e18, 1e19, 1e20, 1e21), centre=1.0, noise=1e-3):
    """Nine sizes per budget, around `centre` times the optimal size."""
    C = np.repeat(budgets, 9)
    sizes = [TRUTH.optimal_params(c) * centre * np.geomspace(1 / 4, 4, 9) for c in budgets]
    N = np.concatenate(sizes)
    errors = noise * np.random.default_rng(0).normal(size=N.size)
    loss = np.array(TRUTH.loss(N, C / (6 * N))) + errors
    return pd.DataFrame({"params": N, "tokens": C / (6 * N), "flops": C, "loss": loss})


def test_isoflop_agrees_with_the_parametric_fit(tmp_path):
    fit = fits.fit(
        isoflop_table(), laws.isoflop_law(), noise="0.001", bootstrap=100, holdout="flops > 5e20"
    )
    exponent = fit.views["chinchilla"]["params_exponent"]
    assert fit.verdict == "ok" and exponent == pytest.approx(0.30 / 0.64, abs=0.05)
    low, high = fit.intervals["params_exponent"]
    assert low is not None and high is not None
    assert low < fit.params["params_exponent"] < high and fit.holdout.n == 1


def test_a_saved_fit_forecasts_the_optimum_of_a_budget(tmp_path):
    fit = fits.fit(isoflop_table(), laws.isoflop_law(), noise="0.001", bootstrap=100)
    fit.save(tmp_path / "fit.json")
    forecast = fits.load(tmp_path / "fit.json").forecast(flops=1e20).summary()
    assert forecast == fit.forecast(flops=1e20).summary()
    assert forecast["value"] == forecast["params"]
    measured = fit.views["params_by_budget"]["1e+20"]
    assert forecast["params"] == pytest.approx(measured, rel=0.2)
    assert forecast["interval"][0] < forecast["value"] < forecast["interval"][1]
    assert forecast["tokens"] == pytest.approx(1e20 / 6 / forecast["params"], rel=0.1)


def test_the_loss_of_the_optimum_is_predicted_and_read_backwards(tmp_path):
    fit = fits.fit(isoflop_table(), laws.isoflop_law(), noise="0.001", bootstrap=100)
    fit.save(tmp_path / "fit.json")
    loaded = fits.load(tmp_path / "fit.json")
    assert isinstance(loaded, IsoFLOPFit)
    at = loaded.optimal_loss(1e24)
    assert at.low is not None and at.high is not None
    assert at == fit.optimal_loss(1e24) and "1e+03 times the largest" in at.method
    N = TRUTH.optimal_params(1e24)
    assert at.low < float(TRUTH.loss(N, 1e24 / (6 * N))) < at.high
    assert at.high - at.low < 0.05
    # A Chinchilla law on the same rows has the same frontier.
    parametric = laws.chinchilla().form(**{name: fit.views["chinchilla"][name] for name in NAMES})
    best = laws.compute_optimal(parametric, 1e22)
    expected = float(parametric.loss(best.params, best.tokens))
    assert fit.optimal_loss(1e22).value == pytest.approx(expected, abs=0.01)
    back = loaded.forecast(loss=at.value)
    low, high = back.estimate.low, back.estimate.high
    assert back.estimate.value == pytest.approx(1e24) and back.run["flops"] == pytest.approx(1e24)
    assert low is not None and high is not None and low < 1e24 < high
    lowest = fit.intervals["g"][0]
    assert "E  " in fit_text(fit) and lowest is not None and lowest < 0.34 * 0.30 / 0.64
    with pytest.raises(ValueError, match=r"no budget reaches a loss of 1\.5: L.* its E of 1\.7"):
        loaded.forecast(loss=1.5)


def test_two_budgets_have_optima_and_no_frontier():
    fit = fits.fit(isoflop_table(budgets=(1e19, 1e20)), laws.isoflop_law(), bootstrap=0)
    assert fit.verdict == "ok" and np.isnan(fit.params["E"])
    assert "loss" not in fit.forecast(flops=1e20).run
    with pytest.raises(ValueError, match=r"L\*\(C\) has 3 free parameters"):
        fit.optimal_loss(1e20)
    with pytest.raises(ValueError, match="the fit has no L"):
        fit.forecast(loss=2.0)


def test_without_an_interior_optimum_there_is_no_exponent():
    fit = fits.fit(isoflop_table(centre=50.0), laws.isoflop_law(), bootstrap=0)
    assert "nan" not in fit_text(fit) and "params_exponent          unknown" in fit_text(fit)
    assert fit.verdict == "unidentified"
    assert any("smallest model" in reason for reason in fit.reasons)
    printed = json.loads(json.dumps(fit.summary(), allow_nan=False))
    assert printed["params"]["params_exponent"] is None
    with pytest.raises(ValueError, match="no optimum"):
        fit.predict(flops=1e20)


def test_options_that_could_not_be_used_are_named():
    table = isoflop_table()
    holdout = f"params == {table.params[3]}"
    fit = fits.fit(table, laws.isoflop_law(), noise="0.001", holdout=holdout, bootstrap=0)
    assert fit.verdict == "ok" and fit.intervals == {}
    assert fit.holdout.n == 0 and fit.summary()["holdout"] == {}
    reasons = " ".join(fit.reasons)
    assert "the holdout is not scored: no budget has 3 model sizes" in reasons
    assert "noise serves bootstrap draws only" in reasons


def test_tokens_follow_from_params_and_flops():
    fit = fits.fit(isoflop_table().drop(columns="tokens"), laws.isoflop_law(), bootstrap=0)
    assert fit.params["tokens_exponent"] == pytest.approx(0.34 / 0.64, abs=0.05)


def test_other_units_are_named_and_flops_are_no_budget_of_theirs():
    table = isoflop_table()
    table = table.assign(params=table.params / 1e6, tokens=table.tokens / 1e9)
    fit = fits.fit(table.drop(columns="flops"), laws.isoflop_law(), bootstrap=0)
    assert fit.reasons[0].startswith("6 x params x tokens is at most 1e+06, too little for FLOPs")
    with pytest.raises(ValueError, match="cannot be FLOPs of single parameters and tokens"):
        fit.forecast(flops=1e22)
    scaled = table.assign(flops=table.flops / 1e18).drop(columns="tokens")
    fit = fits.fit(scaled, laws.isoflop_law(), bootstrap=0)
    assert fit.reasons[0].startswith("flops / (6 params) is about")
    assert fit.forecast(flops=1e4).run["params"] > 0


@pytest.mark.parametrize(
    "options", [{"loss": "lad"}, {"cluster": "flops"}, {"schedules": "x.csv"}, {"weights": "flops"}]
)
def test_options_that_isoflop_does_not_read_are_refused(options):
    with pytest.raises(ValueError, match="the isoflop law does not read"):
        fits.fit(isoflop_table(), laws.isoflop_law(), **options)


def test_an_exponent_of_isoflop_can_be_held_and_a_coefficient_cannot():
    assert laws.isoflop_law().hold(params_exponent=0.5).fixed == (("params_exponent", 0.5),)
    with pytest.raises(ValueError, match="params_coefficient of the isoflop law cannot be held"):
        laws.isoflop_law().hold(params_coefficient=0.1)
