"""Whole-curve laws fitted to tables (mirrors scalejax/fitting/curves/)."""

import json

import numpy as np
import pandas as pd
import pytest

from scalejax import laws
from scalejax.fitting import fit as fits
from scalejax.fitting.curves.result import CurveFit, read_law
from scalejax.fitting.curves.table import read_curves
from scalejax.fitting.options import FitOptions
from scalejax.laws.curves.forms import Annealing, AnnealingSize, predict_curve

PEAK, STEPS, WARMUP = 3e-4, 1500, 100
TRUTH = Annealing(3.1, 0.5, 0.45, 0.9, 0.99)
RISE, PROGRESS = np.linspace(0, PEAK, WARMUP), np.linspace(0, 1, STEPS - WARMUP)
RATES = {
    "cosine": np.r_[RISE, PEAK * (0.55 + 0.45 * np.cos(np.pi * PROGRESS))],
    "constant": np.r_[RISE, np.full(STEPS - WARMUP, PEAK)],
    "drop": np.r_[RISE, np.where(PROGRESS < 0.5, PEAK, 0.3 * PEAK)],
    "linear": np.r_[RISE, PEAK * (1 - 0.9 * PROGRESS)],
}
COLUMNS = {"curve": "schedule", "learning_rate": "lr"}

SIZES = (1e7, 4e7, 1e8, 4e8)
SIZED = AnnealingSize(2.0, 0.5, 0.45, 300.0, 0.3, 0.9e-2, 0.99, 0.25)


def curve_table(noise=0.0):
    """Losses of all schedules at every 50th step after the warm-up."""
    rng, rows = np.random.default_rng(0), []
    for name, rates in RATES.items():
        loss = predict_curve(TRUTH, rates)
        rows += [
            (name, s, rates[s], loss[s] + noise * rng.normal()) for s in range(WARMUP, STEPS, 50)
        ]
    return pd.DataFrame(rows, columns=["schedule", "step", "lr", "loss"])


def sized_table():
    """The same for models of several sizes."""
    rows = []
    for N in SIZES:
        for name, rates in RATES.items():
            loss = predict_curve(SIZED, rates, params=N)
            rows += [(name, N, s, rates[s], loss[s]) for s in range(WARMUP, STEPS, 50)]
    return pd.DataFrame(rows, columns=["schedule", "params", "step", "lr", "loss"])


def test_curves_that_are_numbered_are_found_whatever_type_the_numbers_have():
    table = curve_table()
    table["curve"] = table.schedule.map({name: i for i, name in enumerate(RATES)})
    schedules = pd.concat(
        pd.DataFrame({"curve": float(i), "step": np.arange(STEPS), "learning_rate": rates})
        for i, rates in enumerate(RATES.values())
    )
    read = read_curves(table, laws.annealing(), FitOptions(schedules=schedules))
    assert read.labels == ["0", "1", "2", "3"]


def schedules():
    """The learning rate of every step of all schedules."""
    steps = np.arange(STEPS)
    return pd.concat(
        [
            pd.DataFrame({"curve": name, "step": steps, "learning_rate": rates})
            for name, rates in RATES.items()
        ]
    )


def fit_table(table=None, rates=None, law=None, **options) -> CurveFit:
    table = curve_table() if table is None else table
    rates = schedules() if rates is None else rates
    options = {"columns": COLUMNS, "schedules": rates, "bootstrap": 0} | options
    return fits.fit(table, law or laws.annealing(), **options)


def test_held_out_curves_are_scored_and_each_counts_once():
    fit = fit_table(
        curve_table(noise=1e-3),
        holdout="schedule == 'linear' or (schedule == 'drop' and step >= 1000)",
    )
    assert fit.verdict == "ok" and fit.n_rows == 28 * 2 + 18
    by_curve = fit.holdout.by_curve
    assert {name: scores.n for name, scores in by_curve.items()} == {"linear": 28, "drop": 10}
    assert fit.holdout.mae == pytest.approx(np.mean([scores.mae for scores in by_curve.values()]))
    assert 1e-4 < fit.holdout.mae < 3e-3 and fit.cross_validation.splits == 3


def test_exact_rows_give_the_parameters_by_the_papers_names():
    fit = fit_table()
    assert list(fit.params) == ["L0", "A", "alpha", "C", "lambda"]
    np.testing.assert_allclose(list(fit.params.values()), np.array(TRUTH), rtol=1e-6)
    assert fit_table(law=laws.annealing(**{"lambda": 0.9})).params["lambda"] == 0.9


def test_a_saved_fit_predicts_the_same_curve(tmp_path):
    fit = fit_table(bootstrap=5)
    fit.save(tmp_path / "fit.json")
    loaded = fits.load(tmp_path / "fit.json")
    linear = RATES["linear"]
    np.testing.assert_array_equal(
        laws.predict_curve(loaded, linear), laws.predict_curve(fit, linear)
    )
    assert loaded.predict(learning_rates=linear).value == predict_curve(loaded, linear)[-1]
    with pytest.raises(ValueError, match="the learning rate of every step"):
        loaded.predict(params=1e9)
    assert loaded.summary() == fit.summary()


def test_intervals_from_few_curves_are_called_rough():
    fit = fit_table(bootstrap=5)
    assert set(fit.intervals) == set(fit.params)
    assert any("which is few" in reason for reason in fit.reasons)


def test_rows_of_every_step_need_no_schedules_table():
    tables = [
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
    fit = fits.fit(pd.concat(tables), laws.annealing(), bootstrap=0)
    np.testing.assert_allclose(list(fit.params.values()), np.array(TRUTH), rtol=1e-6)
    # At a summed learning rate of zero, the first step, the loss is infinite.
    assert any("dropped 4 rows" in reason for reason in fit.reasons)


@pytest.mark.parametrize(
    "rates, message",
    [
        (schedules().query("curve != 'drop'"), "'drop' is not in the schedules table"),
        (schedules().query("not (curve == 'drop' and step == 17)"), "'drop' has no step 17"),
        (
            pd.concat([schedules(), schedules().query("curve == 'drop' and step == 17")]),
            "'drop' has step 17 twice",
        ),
        (schedules().query("step < 1000"), "its schedule has only 1000 steps"),
        (schedules().assign(learning_rate=lambda t: -t.learning_rate), "not negative"),
        (schedules().rename(columns={"learning_rate": "lr"}), "no column 'learning_rate'"),
    ],
    ids=["no curve", "no step", "a step twice", "too short", "negative", "no column"],
)
def test_schedules_that_do_not_match_the_rows_are_errors(rates, message):
    with pytest.raises(ValueError, match=message):
        fit_table(rates=rates)


def test_rows_without_schedules_say_what_to_give():
    with pytest.raises(ValueError, match="--schedules TABLE"):
        fits.fit(curve_table(), laws.annealing(), columns=COLUMNS, bootstrap=0)


def test_steps_that_are_off_by_one_are_noticed():
    table = curve_table()
    fit = fit_table(table.assign(lr=table.lr.shift(1).bfill()))
    assert any("not that of their schedule" in reason for reason in fit.reasons)


def test_two_models_in_one_table_are_noticed():
    table = curve_table()
    fit = fit_table(pd.concat([table, table.assign(loss=table.loss + 0.5)]))
    assert any("nats between them (curve 'constant', step 1" in reason for reason in fit.reasons)


def test_perplexities_and_two_units_of_size_are_noticed():
    table = curve_table().assign(ppl=lambda it: np.exp(it["loss"]))
    (reason,) = fit_table(table, columns=COLUMNS | {"loss": "ppl"}).reasons[-1:]
    assert "loss=log(ppl)" in reason
    assert not any("perplexit" in it for it in fit_table(table).reasons)
    mixed = sized_table().assign(params=lambda it: it["params"].replace(1e7, 10))
    assert "bring all rows to one unit" in fit_table(mixed, law=laws.annealing_size()).reasons[-1]


def test_a_single_curve_is_unidentified():
    assert fit_table(where="schedule == 'cosine'").verdict == "unidentified"


def test_one_schedule_of_several_sizes_is_several_curves():
    fit = fit_table(sized_table(), law=laws.annealing_size(), holdout="params == 4e8")
    assert list(fit.params) == ["L0", "A", "alpha", "B", "beta", "C", "lambda", "gamma"]
    assert fit.verdict == "ok" and fit.holdout.mae < 1e-7
    assert set(fit.holdout.by_curve) == {f"{name} at 4e+08" for name in RATES}
    with pytest.raises(ValueError, match=r"params=\.\.\."):
        fit.predict(learning_rates=RATES["linear"])
    assert fit.predict(learning_rates=RATES["linear"], params=2e8).value > 0
    far = fit.forecast(learning_rates=RATES["linear"], params=4e8).estimate.method
    assert far.endswith("params is 4 times the largest fitted")
    for params in ("4e8", None, [4e8]):
        with pytest.raises(ValueError, match=r"params .*must be a (single )?number"):
            fit.forecast(learning_rates=RATES["linear"], params=params)


def test_two_sizes_do_not_identify_the_terms_of_the_size():
    two = fit_table(sized_table(), law=laws.annealing_size(), where="params < 5e7")
    assert two.verdict == "unidentified" and "2 model sizes" in two.reasons[0]


def test_the_law_of_a_file_predicts_unseen_sizes(tmp_path):
    fit_table(sized_table(), law=laws.annealing_size()).save(tmp_path / "fit.json")
    law = read_law(tmp_path / "fit.json")
    np.testing.assert_allclose(
        predict_curve(law, RATES["linear"], params=2e8)[WARMUP:],
        predict_curve(SIZED, RATES["linear"], params=2e8)[WARMUP:],
        atol=1e-7,
    )


def test_a_law_is_read_from_a_saved_fit_and_from_printed_json(tmp_path):
    fit = fit_table()
    printed, saved = tmp_path / "printed.json", tmp_path / "fit.json"
    printed.write_text(json.dumps(fit.summary()))
    fit.save(saved)
    law = Annealing(*fit.params.values())
    assert read_law(printed) == read_law(str(saved)) == law
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
    with pytest.raises(ValueError, match="weights must be positive numbers"):
        fit_table(thinned.assign(w=-1.0), weights="w")


def noisy(table, seed=0):
    """The table with the noise of a run in its losses."""
    noise = np.random.default_rng(seed).normal(size=len(table))
    return table.assign(loss=table.loss * np.exp(2e-3 * noise))


def seeds_of(name, count):
    """Losses of several seeds of one schedule, and the schedule of each."""
    table = curve_table().query("schedule == @name")
    losses = [noisy(table, seed).assign(schedule=str(seed)) for seed in range(count)]
    rates = schedules().query("curve == @name")
    return pd.concat(losses), pd.concat([rates.assign(curve=str(seed)) for seed in range(count)])


def test_what_two_sizes_leave_open_has_an_open_interval():
    """The refits start at the fit, and stay where nothing moves them."""
    sized = noisy(sized_table())
    fit = fit_table(sized, law=laws.annealing_size(), where="params < 5e7", bootstrap=4)
    assert fit.verdict == "unidentified"
    open_ends = {name for name, ends in fit.intervals.items() if ends == (None, None)}
    assert open_ends == {"L0", "B", "beta"}


def test_seeds_of_one_schedule_do_not_identify_annealing():
    fit = fit_table(*seeds_of("cosine", 3), bootstrap=4)
    assert fit.verdict == "unidentified"
    assert "one schedule cannot identify lambda" in fit.reasons[0]
    assert fit.intervals["lambda"] == fit.intervals["C"] == (None, None)
    assert None not in fit.intervals["alpha"]


def test_resamples_of_one_schedule_leave_annealing_open_and_this_is_told():
    """Of two curves, half of the resamples have one only."""
    fit = fit_table(noisy(curve_table()), where="schedule in ('cosine', 'drop')", bootstrap=40)
    assert fit.verdict == "ok" and fit.intervals["lambda"] == (None, None)
    assert None not in fit.intervals["alpha"]
    (reason,) = [reason for reason in fit.reasons if "and no interval follows" in reason]
    assert reason.endswith(
        "of the resampled curves do not determine C, lambda, and no interval follows"
    )


def test_a_held_parameter_has_no_interval():
    fit = fit_table(noisy(curve_table()), law=laws.annealing(**{"lambda": 0.99}), bootstrap=4)
    assert set(fit.intervals) == {"L0", "A", "alpha", "C"}


def test_a_law_of_one_size_refuses_the_curves_of_several():
    table = sized_table()
    table["schedule"] += table.params.astype(str)
    rates = [
        schedules().assign(curve=lambda it, size=size: it["curve"] + str(size)) for size in SIZES
    ]
    with pytest.raises(ValueError, match="of a single model size, and params has 4 of them"):
        fit_table(table, pd.concat(rates))
    with pytest.raises(ValueError, match="and N has 4 of them"):
        columns = COLUMNS | {"params": "N"}
        fit_table(table.rename(columns={"params": "N"}), pd.concat(rates), columns=columns)
    one = fit_table(table, pd.concat(rates), where="params == 1e7")
    assert one.verdict == "ok"


def test_losses_of_the_warmup_are_noticed():
    early = curve_table().assign(step=lambda it: it["step"] - 60, loss=lambda it: it["loss"] + 3)
    table = pd.concat([early.groupby("schedule").head(1), curve_table()]).drop(columns="lr")
    (reason,) = fit_table(table, columns={"curve": "schedule"}).reasons
    assert reason.startswith("4 losses were measured before the learning rate first reached its")
    assert reason.endswith('--where "step >= 99"')
    assert not fit_table().reasons


def test_steps_in_another_unit_are_noticed():
    table = curve_table().assign(step=lambda it: it["step"] // 50).drop(columns="lr")
    peaked = schedules().assign(learning_rate=lambda it: it["learning_rate"].clip(lower=3e-5))
    reasons = fit_table(table, peaked, columns={"curve": "schedule"}).reasons
    assert any("end at step 29 of the 1500 steps of its schedule" in it for it in reasons)


def test_two_seeds_in_one_curve_are_noticed():
    table = pd.concat([noisy(curve_table(), seed) for seed in (1, 2)])
    (reason,) = fit_table(table).reasons
    assert reason.startswith("duplicate: 112 losses repeat a step of their curve, with up to 0.0")


def test_a_forecast_says_how_far_its_schedule_is_beyond_the_fitted_ones(tmp_path):
    fit = fit_table(noisy(curve_table()))
    near = fit.forecast(learning_rates=RATES["linear"]).estimate
    # The last fitted loss is that of step 1450 of 1500.
    assert near.method.startswith("no interval: whole-curve laws forecast a point; steps is 1.03")
    longer = np.r_[RATES["constant"], np.linspace(2 * PEAK, 0, 1500)]
    far = fit.forecast(learning_rates=longer).estimate.method
    assert "steps is 2.07 times the largest fitted" in far
    assert "peak rate is 2 times the largest fitted" in far
    assert "drop of the rate is 0.0006, and 0 to 0.000269 in the fit" in far
    fit.save(tmp_path / "fit.json")
    loaded = fits.load(tmp_path / "fit.json")
    assert loaded.forecast(learning_rates=longer).estimate.method == far
