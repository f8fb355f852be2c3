"""Whole-curve laws, isoFLOP and hyperparameter laws from tables (mirrors scalejax/study/curve_fits.py and its two siblings)."""

import json

import numpy as np
import pandas as pd
import pytest

from scalejax import laws
from scalejax.cli.text.fit import fit_text
from scalejax.fitting import fit as fits
from scalejax.fitting.curves import read_law
from scalejax.laws.curves.forms import Annealing, AnnealingSize, predict_curve
from scalejax.laws.forms import Chinchilla

PEAK, STEPS, WARMUP = 3e-4, 1500, 100
TRUTH = Annealing(3.1, 0.5, 0.45, 0.9, 0.99)
UP, X = np.linspace(0, PEAK, WARMUP), np.linspace(0, 1, STEPS - WARMUP)
RATES = {
    "cosine": np.r_[UP, PEAK * (0.55 + 0.45 * np.cos(np.pi * X))],
    "constant": np.r_[UP, np.full(STEPS - WARMUP, PEAK)],
    "drop": np.r_[UP, np.where(X < 0.5, PEAK, 0.3 * PEAK)],
    "linear": np.r_[UP, PEAK * (1 - 0.9 * X)],
}


def curve_table(noise=0.0):
    rng, rows = np.random.default_rng(0), []
    for name, rates in RATES.items():
        loss = predict_curve(TRUTH, rates)
        rows += [
            (name, s, rates[s], loss[s] + noise * rng.normal()) for s in range(WARMUP, STEPS, 50)
        ]
    return pd.DataFrame(rows, columns=["schedule", "step", "lr", "loss"])


def schedules():
    return pd.concat(
        [
            pd.DataFrame({"curve": k, "step": np.arange(STEPS), "learning_rate": r})
            for k, r in RATES.items()
        ]
    )


def fit_table(table=None, rates=None, law=None, **options):
    table = curve_table() if table is None else table
    options = {
        "columns": {"curve": "schedule", "learning_rate": "lr"},
        "schedules": schedules() if rates is None else rates,
    } | options
    return fits.fit(table, law or laws.named("annealing"), **options)


def test_held_out_curves_are_scored_each_counting_once():
    fit = fit_table(
        curve_table(noise=1e-3),
        holdout="schedule == 'linear' or (schedule == 'drop' and step >= 1000)",
    )
    assert fit.verdict == "ok" and fit.n_rows == 28 * 2 + 18
    by_curve = fit.holdout["by_curve"]
    assert {name: score["n"] for name, score in by_curve.items()} == {"linear": 28, "drop": 10}
    assert fit.holdout["mae"] == pytest.approx(
        np.mean([score["mae"] for score in by_curve.values()])
    )
    assert 1e-4 < fit.holdout["mae"] < 3e-3 and fit.cross_validation["splits"] == 3


def test_exact_rows_give_the_parameters_in_the_papers_names():
    fit = fit_table()
    assert list(fit.params) == ["L0", "A", "alpha", "C", "lambda"]
    np.testing.assert_allclose(list(fit.params.values()), TRUTH, rtol=1e-6)
    assert fit_table(law=laws.named("annealing").hold(**{"lambda": 0.9})).params["lambda"] == 0.9


def test_a_saved_fit_predicts_the_curve_it_predicted(tmp_path):
    fit = fit_table(bootstrap=5)
    fit.save(tmp_path / "fit.json")
    again = fits.load(tmp_path / "fit.json")
    np.testing.assert_array_equal(
        laws.predict_curve(again, RATES["linear"]), laws.predict_curve(fit, RATES["linear"])
    )
    assert (
        again.predict(learning_rates=RATES["linear"]).value
        == predict_curve(again, RATES["linear"])[-1]
    )
    with pytest.raises(ValueError, match="the rate of every step"):
        again.predict(params=1e9)
    assert set(fit.intervals) == set(fit.params) and any(
        "which is few" in reason for reason in fit.reasons
    )


def test_rows_of_every_step_need_no_schedules_table():
    every = pd.concat(
        [
            pd.DataFrame(
                {
                    "curve": name,
                    "step": np.arange(STEPS),
                    "learning_rate": rates,
                    "loss": predict_curve(TRUTH, rates),
                }
            )
            for name, rates in RATES.items()
        ]
    )
    fit = fits.fit(every, laws.named("annealing"))
    np.testing.assert_allclose(list(fit.params.values()), TRUTH, rtol=1e-6)
    assert any("dropped 4 rows" in reason for reason in fit.reasons), (
        "the loss at a summed rate of zero is infinite"
    )


@pytest.mark.parametrize(
    "rates, said",
    [
        (schedules().query("curve != 'drop'"), "'drop' is not in the schedules table"),
        (schedules().query("not (curve == 'drop' and step == 17)"), "'drop' has no step 17"),
        (
            pd.concat([schedules(), schedules().query("curve == 'drop' and step == 17")]),
            "'drop' has step 17 twice",
        ),
        (schedules().query("step < 1000"), "its schedule only 1000 steps"),
        (schedules().assign(learning_rate=lambda t: -t.learning_rate), "finite and not negative"),
        (schedules().rename(columns={"learning_rate": "lr"}), "no column 'learning_rate'"),
    ],
)
def test_schedules_that_do_not_fit_the_rows_are_errors(rates, said):
    with pytest.raises(ValueError, match=said):
        fit_table(rates=rates)


def test_rows_without_schedules_say_what_to_give():
    with pytest.raises(ValueError, match="--schedules TABLE"):
        fits.fit(
            curve_table(),
            laws.named("annealing"),
            columns={"curve": "schedule", "learning_rate": "lr"},
        )


def test_shifted_steps_and_two_models_in_one_table_are_noticed():
    table = curve_table()
    assert any(
        "not that of their schedule" in r
        for r in fit_table(table.assign(lr=table.lr.shift(1).bfill())).reasons
    )
    doubled = pd.concat([table, table.assign(loss=table.loss + 0.5)])
    assert any("duplicate: curve" in reason for reason in fit_table(doubled).reasons)


def test_one_curve_alone_is_unidentified():
    assert fit_table(where="schedule == 'cosine'").verdict == "unidentified"


LAW = Chinchilla(A=400.0, B=2000.0, E=1.7, alpha=0.34, beta=0.30)


def isoflop_table(budgets=(1e18, 1e19, 1e20, 1e21), centre=1.0, noise=1e-3):
    C = np.repeat(budgets, 9)
    N = np.concatenate(
        [LAW.optimal_params(c) * centre * np.geomspace(1 / 4, 4, 9) for c in budgets]
    )
    loss = np.array(LAW.loss(N, C / (6 * N))) + noise * np.random.default_rng(0).normal(size=N.size)
    return pd.DataFrame({"params": N, "tokens": C / (6 * N), "flops": C, "loss": loss})


def test_isoflop_stands_beside_the_parametric_fit(tmp_path):
    fit = fits.fit(
        isoflop_table(), laws.named("isoflop"), noise="0.001", bootstrap=100, holdout="flops > 5e20"
    )
    assert fit.verdict == "ok" and fit.views["chinchilla"]["params_exponent"] == pytest.approx(
        0.30 / 0.64, abs=0.05
    )
    low, high = fit.intervals["params_exponent"]
    assert low < fit.params["params_exponent"] < high and fit.holdout["n"] == 1
    fit.save(tmp_path / "fit.json")
    forecast = fits.load(tmp_path / "fit.json").forecast(flops=1e20).summary()
    assert (
        forecast["value"]
        == forecast["params"]
        == pytest.approx(fit.views["params_by_budget"]["1e+20"], rel=0.2)
    )
    assert forecast["interval"][0] < forecast["value"] < forecast["interval"][1]
    assert forecast["tokens"] == pytest.approx(1e20 / 6 / forecast["params"], rel=0.1)


def test_isoflop_without_an_interior_optimum_has_no_exponent(tmp_path):
    fit = fits.fit(isoflop_table(centre=50.0), laws.named("isoflop"))
    assert "nan" not in fit_text(fit) and "params_exponent          unknown" in fit_text(fit)
    assert fit.verdict == "unidentified" and any(
        "smallest model" in reason for reason in fit.reasons
    )
    assert (
        json.loads(json.dumps(fit.summary(), allow_nan=False))["params"]["params_exponent"] is None
    )
    with pytest.raises(ValueError, match="no optimum"):
        fit.predict(flops=1e20)


def test_what_isoflop_was_given_and_could_not_use_is_said():
    table = isoflop_table()
    made = fits.fit(
        table, laws.named("isoflop"), noise="0.001", holdout=f"params == {table.params[3]}"
    )
    assert made.verdict == "ok" and made.holdout == {} and made.intervals == {}
    said = " ".join(made.reasons)
    assert (
        "the holdout is not scored: no budget has 3 model sizes" in said
        and "the noise is read by draws" in said
    )


def test_isoflop_needs_no_tokens_column_and_refuses_what_it_does_not_read():
    table = isoflop_table().drop(columns="tokens")
    assert fits.fit(table, laws.named("isoflop")).params["tokens_exponent"] == pytest.approx(
        0.34 / 0.64, abs=0.05
    )
    for options in ({"loss": "lad"}, {"cluster": "flops"}, {"schedules": "x.csv"}):
        with pytest.raises(ValueError, match="does not read"):
            fits.fit(table, laws.named("isoflop"), **options)


def sweep_table():
    away = np.linspace(-2, 2, 7)
    N, D, x, y = (a.ravel() for a in np.meshgrid([1e8, 4e8, 1e9], [2e9, 8e9, 3e10], away, away))
    rates, batches = 2 * N**-0.7 * D**0.3 * np.exp(x), 0.6 * D**0.57 * np.exp(y)
    loss = 2.5 + 0.02 * (x**2 + y**2)
    return pd.DataFrame(
        {"params": N, "tokens": D, "learning_rate": rates, "batch_tokens": batches, "loss": loss}
    )


def test_three_cells_give_a_law_and_no_interval():
    few = sweep_table().query(
        "(params == 1e8 and tokens == 2e9) or (params == 1e9 and tokens in (2e9, 8e9))"
    )
    made = fits.fit(few, laws.named("hyperparameters"), bootstrap=50)
    assert made.verdict == "unidentified" and set(made.intervals.values()) == {(None, None)}
    assert "3 cells: " in " ".join(
        made.reasons
    ) and "do not identify the law, and no interval follows" in " ".join(made.reasons)
    at = made.predict(params=1e9, tokens=8e9)
    assert (
        at.value > 0
        and (at.low, at.high) == (None, None)
        and "too few of 50 draws of cells" in at.method
    )


def test_hyperparameters_are_nested_by_quantity_and_scored_by_regret(tmp_path):
    fit = fits.fit(
        sweep_table(),
        laws.named("hyperparameters"),
        bootstrap=50,
        holdout="params == 1e9 and tokens == 8e9",
    )
    record = fit.summary()
    assert record["params"]["learning_rate"]["params_exponent"] == pytest.approx(-0.7)
    assert record["params"]["batch_tokens"] == {
        "coefficient": pytest.approx(0.6),
        "tokens_exponent": pytest.approx(0.57),
    }
    assert record["intervals"]["learning_rate"]["tokens_exponent"][0] <= 0.3 + 1e-9
    assert record["holdout"]["cells"] == 1 and record["cross_validation"]["cells"] == 8
    fit.save(tmp_path / "fit.json")
    forecast = fits.load(tmp_path / "fit.json").forecast(params=1e9, tokens=8e9).summary()
    assert forecast["value"] == pytest.approx(2 * 1e9**-0.7 * 8e9**0.3) and forecast[
        "batch_tokens"
    ] == pytest.approx(0.6 * 8e9**0.57)


def test_beta2_joins_the_law_where_the_table_has_several(tmp_path):
    table = sweep_table()
    assert (
        "beta2"
        not in fits.fit(table.assign(beta2=0.95), laws.named("hyperparameters")).summary()["params"]
    )
    tables = [table.assign(off=off, loss=table.loss + 0.2 * off**2) for off in (-1.0, 0.0, 1.0)]
    swept = pd.concat(tables).assign(beta2=lambda t: 1 - 3e-4 * t.batch_tokens**0.4 * np.exp(t.off))
    fit = fits.fit(swept, laws.named("hyperparameters"), bootstrap=20)
    fit.save(tmp_path / "fit.json")
    record = fits.load(tmp_path / "fit.json").summary()
    assert record["params"]["beta2"] == {
        "coefficient": pytest.approx(3e-4),
        "batch_exponent": pytest.approx(0.4),
    }
    assert set(record["intervals"]["beta2"]) == {"coefficient", "batch_exponent"}
    forecast = fit.forecast(params=1e9, tokens=8e9).summary()
    assert forecast["beta2"] == pytest.approx(1 - 3e-4 * forecast["batch_tokens"] ** 0.4)


SIZES = (1e7, 4e7, 1e8, 4e8)
SIZED = AnnealingSize(2.0, 0.5, 0.45, 300.0, 0.3, 0.9e-2, 0.99, 0.25)


def sized_table():
    rows = []
    for N in SIZES:
        for name, rates in RATES.items():
            loss = predict_curve(SIZED, rates, params=N)
            rows += [(name, N, s, rates[s], loss[s]) for s in range(WARMUP, STEPS, 50)]
    return pd.DataFrame(rows, columns=["schedule", "params", "step", "lr", "loss"])


def test_one_schedule_of_several_sizes_is_several_curves(tmp_path):
    fit = fit_table(sized_table(), law=laws.named("annealing-size"), holdout="params == 4e8")
    assert (
        list(fit.params) == ["L0", "A", "alpha", "B", "beta", "C", "lambda", "gamma"]
        and fit.verdict == "ok"
    )
    assert (
        set(fit.holdout["by_curve"]) == {f"{name} at 4e+08" for name in RATES}
        and fit.holdout["mae"] < 1e-7
    )
    fit.save(tmp_path / "fit.json")
    law = read_law(tmp_path / "fit.json")
    np.testing.assert_allclose(
        laws.predict_curve(law, RATES["linear"], params=2e8)[WARMUP:],
        predict_curve(SIZED, RATES["linear"], params=2e8)[WARMUP:],
        atol=1e-7,
    )
    with pytest.raises(ValueError, match=r"params=\.\."):
        fit.predict(learning_rates=RATES["linear"])
    assert fit.predict(learning_rates=RATES["linear"], params=2e8).value > 0
    two = fit_table(sized_table(), law=laws.named("annealing-size"), where="params < 5e7")
    assert two.verdict == "unidentified" and "2 model sizes" in two.reasons[0]


def test_a_law_is_read_from_a_saved_fit_and_from_printed_json(tmp_path):
    fit = fit_table()
    printed = tmp_path / "printed.json"
    printed.write_text(json.dumps(fit.summary()))
    fit.save(tmp_path / "fit.json")
    law = Annealing(*fit.params.values())
    assert read_law(printed) == read_law(str(tmp_path / "fit.json")) == law
    printed.write_text(json.dumps({"law": "chinchilla", "params": {}}))
    with pytest.raises(ValueError, match="'chinchilla' does not read learning rates"):
        read_law(printed)


def test_curves_count_alike_when_the_curve_is_the_weight():
    table = curve_table(noise=2e-3)
    thinned = table[(table.schedule != "cosine") | (table.step % 200 == 0)]
    alike = fit_table(thinned, weights="schedule")
    count = thinned.groupby("schedule").loss.transform("size")
    by_hand = fit_table(thinned.assign(w=len(thinned) / 4 / count), weights="w")
    assert alike.params == by_hand.params != fit_table(thinned).params
    with pytest.raises(ValueError, match="positive numbers"):
        fit_table(thinned.assign(w=-1.0), weights="w")
