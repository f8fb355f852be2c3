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
    assert any("duplicate: curve 'constant'" in reason for reason in fit.reasons)


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
