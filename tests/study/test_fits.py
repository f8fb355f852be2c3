"""The laws of a study and what they forecast (mirrors scalejax/study/fits.py)."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from scalejax import laws
from scalejax.config import Data, Model
from scalejax.data.batches import batches
from scalejax.data.preparation import prepare
from scalejax.files import read_lines
from scalejax.fitting.fit import fit
from scalejax.grids import cooldowns, run_id
from scalejax.launch.claims import Claims
from scalejax.launch.executor import Local
from scalejax.launch.jobs import write_jobs
from scalejax.model.transformer import counts
from scalejax.optim.schedules import constant, cosine, learning_rates, linear
from scalejax.study.fits import fit_laws, register_forecasts, rows_to_fit, run_inputs
from scalejax.study.plan import plan
from scalejax.study.run import run_study
from scalejax.study.study import Study


@pytest.fixture
def runs(tiny_run):
    return [tiny_run.replace(seed=seed) for seed in range(4)]


def table_of_laws():
    """Rows that follow a chinchilla law of the loss, and a power law of the error."""
    params, tokens = (x.ravel() for x in np.meshgrid([1e4, 3e4, 1e5], [1e5, 3e5, 1e6, 3e6]))
    loss = 1.8 + 40 / params**0.34 + 200 / tokens**0.37
    rows = {"params_with_head": params, "tokens": tokens, "loss": loss}
    return pd.DataFrame(rows | {"top1_error": 1 - np.exp(-0.3 * loss)})


def test_laws_are_fitted_to_the_runs_that_are_done_and_not_forecast(runs):
    names = [run_id(run) for run in runs]
    table = pd.DataFrame({"run": names, "status": ["done", "diverged", "done", "done"]})
    rows = rows_to_fit(table, Study("s@1", runs[:3], forecast=runs[3:]))
    assert list(rows["run"]) == [names[0], names[2]]


def test_a_law_that_cannot_be_fitted_is_reported_and_the_others_are_saved(runs, tmp_path):
    (tmp_path / "fits").mkdir()
    (tmp_path / "fits" / "old.json").write_text("{}")
    study = Study("s@1", runs, laws=[laws.chinchilla(), laws.data_constrained()], bootstrap=0)
    fits, unfitted = fit_laws(study, table_of_laws(), tmp_path)
    assert list(fits) == ["chinchilla"] and "unique_tokens" in unfitted["data-constrained"]
    assert [path.name for path in (tmp_path / "fits").iterdir()] == ["chinchilla.json"]


def test_a_law_of_the_loss_forecasts_alone_and_in_a_chain_with_a_law_of_the_error(runs, tmp_path):
    study = Study(
        "s@1", runs[:3], forecast=runs[3:], laws=[laws.chinchilla(), laws.downstream()], bootstrap=0
    )
    rows = table_of_laws()
    fits, unfitted = fit_laws(study, rows, tmp_path)
    assert not unfitted
    register_forecasts(study, fits, rows, tmp_path)
    lines = read_lines(tmp_path / "forecasts.jsonl")
    assert [(line["law"], line["metric"]) for line in lines] == [
        ("chinchilla", "loss"),
        ("chinchilla+downstream", "top1_error"),
    ]
    assert {line["run"] for line in lines} == {f"s@1/{run_id(runs[3])}"}


def test_an_error_that_no_run_can_have_is_not_registered_and_said(runs, tmp_path):
    # The law of these errors falls below 0 at the loss of a much larger run.
    rows = table_of_laws()
    rows = rows.assign(top1_error=0.9 - 30 * np.exp(-1.2 * rows["loss"]))
    model = Model.sized(width=512, depth=4, head_size=64, vocabulary=32)
    large = runs[3].replace(tokens=1e9, model=model)
    study = Study(
        "s@1", runs[:3], forecast=[large], laws=[laws.chinchilla(), laws.downstream()], bootstrap=0
    )
    fits, _ = fit_laws(study, rows, tmp_path)
    (reason,) = register_forecasts(study, fits, rows, tmp_path)
    assert "by chinchilla+downstream: the law gives -" in reason
    assert [line["metric"] for line in read_lines(tmp_path / "forecasts.jsonl")] == ["loss"]


def test_branches_share_an_error_and_kaplans_law_counts_without_embeddings(runs, tmp_path):
    size = counts(runs[3].model)
    table = table_of_laws().assign(trunk=lambda t: t.params_with_head.astype(str))
    table["params_non_embedding"] = table.params_with_head / 2
    table["loss"] *= np.exp(0.002 * np.random.default_rng(0).normal(size=len(table)))
    study = Study("s@1", runs[:3], laws=[laws.chinchilla(), laws.kaplan()], bootstrap=50)
    fits, _ = fit_laws(study, table, tmp_path)
    assert {(fit.clusters, fit.resample) for fit in fits.values()} == {("trunk", "trunks")}
    assert run_inputs(runs[3], fits["kaplan"])["params"] == size.params_non_embedding
    assert run_inputs(runs[3], fits["chinchilla"])["params"] == size.params_with_head


def test_a_data_constrained_law_forecasts_a_run_by_the_tokens_that_it_repeats(tiny_run, tmp_path):
    text = tmp_path / "text.jsonl"
    text.write_text("\n".join(json.dumps({"text": f"{i} bottles of beer " * 9}) for i in range(12)))
    data = Data(source=str(text), tokenizer="byte", sequence_length=16)
    run = tiny_run.replace(data=data, model=dataclasses.replace(tiny_run.model, vocabulary=257))
    windows = batches(prepare(data), run).unique_rows(1_000)
    assert 16 * windows < run.tokens_read, "no token is repeated, and this test could not fail"
    table = table_of_laws().assign(unique_tokens=lambda rows: rows["tokens"] / 4)
    study = Study("s@1", [run], laws=[laws.data_constrained(R_N=5.0, R_D=15.0)], bootstrap=0)
    (fitted,) = fit_laws(study, table, tmp_path).fits.values()
    inputs = run_inputs(run, fitted)
    assert inputs["tokens"] == run.tokens_read and inputs["unique_tokens"] == 16 * windows


@pytest.fixture
def annealed(tiny_run, tiny_measure, tmp_path):
    """A study of a trunk with two branches, another schedule, and a run to forecast."""
    run = tiny_run.replace(schedule=constant(warmup=320), tokens=6_400)
    annealed = run.replace(schedule=cosine(warmup=320))
    runs = [run, *cooldowns([run], at=[3_200, 6_400], fraction=0.3), annealed]
    study = Study(
        "s@1",
        runs,
        forecast=[run.replace(schedule=linear(warmup=320))],
        laws=[laws.annealing(), laws.chinchilla()],
        measure=dataclasses.replace(tiny_measure, every=320),
        bootstrap=4,
    )
    return run_study(study, tmp_path, "Do schedules matter?", Local(devices=1))


def test_the_curves_of_a_study_fit_its_whole_curve_laws_and_forecast_a_schedule(annealed):
    fitted = annealed.fits["annealing"]
    # Steps 5 to 100 of the trunk and of the cosine, and what branches do not share.
    assert fitted.n_rows == 20 + 20 + 3 + 6
    # Resamples of the cosine by itself have one schedule.
    assert fitted.reasons == [
        "50% of the resampled groups by trunk do not determine C, lambda, and no interval follows",
        "intervals resample 2 groups by trunk, which is few: they are rough",
    ]
    assert fitted.clusters == "trunk" and set(fitted.intervals) == set(fitted.params)
    opened = {name for name, interval in fitted.intervals.items() if None in interval}
    assert opened == {"C", "lambda"}
    line, score = annealed.forecasts[0]
    assert (line["law"], line["low"]) == ("annealing", None) and not score["inside"]
    assert line["distance"] >= 1
    (run,) = annealed.plan.study.forecast
    assert line["value"] == laws.predict_curve(fitted, learning_rates(run))[-1]
    # The files that the study wrote give the same law.
    again = fit(
        annealed.folder / "curves.parquet",
        laws.annealing(),
        schedules=annealed.folder / "schedules.parquet",
        columns={"curve": "run"},
        where=f"weights == 'raw' and step >= 4 and run != '{run_id(run)}'",
    )
    assert again.predict(learning_rates=learning_rates(run)).value == pytest.approx(
        line["value"], rel=0.01
    )


def test_a_whole_curve_law_of_one_size_refuses_several(runs, tmp_path):
    rows = table_of_laws()
    fits, unfitted = fit_laws(Study("s@1", runs, laws=[laws.annealing()]), rows, tmp_path)
    assert not fits and "a single model size, and the runs have 3" in unfitted["annealing"]


@pytest.fixture
def planned(tiny_run, tmp_path):
    """A planned study of two runs, and a fit that was made elsewhere."""
    plans = plan(Study("s@1", [tiny_run, tiny_run.replace(seed=1)]))
    (tmp_path / "s@1").mkdir()
    write_jobs(tmp_path / "s@1", plans.jobs(plans.study.runs))
    law_fit = fit(table_of_laws(), laws.chinchilla(), bootstrap=8)
    law_fit.save(tmp_path / "fit.json")
    return tmp_path, [tmp_path / "s@1" / segment.folder for segment in plans.segments], law_fit


def test_a_fit_made_elsewhere_forecasts_a_run_that_has_not_started(planned, tiny_run, call):
    folder, (run, _), law_fit = planned
    code, out, _ = call("predict", folder / "fit.json", "--register", run, "--json")
    size = counts(tiny_run.model).params_with_head
    expected = law_fit.predict(params=size, tokens=3840)
    assert code == 0 and json.loads(out)["value"] == expected.value
    (line,) = read_lines(folder / "s@1" / "forecasts.jsonl")
    assert line["run"] == f"s@1/{run.name}" and line["value"] == expected.value
    # The run reads 3,840 tokens, and the smallest fitted one 100,000.
    assert line["distance"] == pytest.approx(1e5 / 3840) and line["rows_sha256"] == ""
    # Said twice, it is one forecast.
    assert call("predict", folder / "fit.json", "--register", run)[0] == 0
    assert len(read_lines(folder / "s@1" / "forecasts.jsonl")) == 1
    assert not list((folder / "s@1" / "claims").iterdir())


def test_the_forecast_of_a_run_that_started_or_is_unknown_is_refused(planned, call):
    folder, (run, other), _ = planned
    run.mkdir(parents=True)
    (run / "status.json").write_text("{}")
    code, out, err = call("predict", folder / "fit.json", "--register", run)
    assert code == 2 and not out and f"run {run.name} has started" in err
    with Claims(folder / "s@1").take(other.name) or pytest.fail("it is free"):
        assert call("predict", folder / "fit.json", "--register", other)[0] == 2
    code, _, err = call("predict", folder / "fit.json", "--register", run.parent / "abc")
    assert code == 2 and "is not the folder of a run that s@1 plans" in err
    code, _, err = call("predict", folder / "fit.json", "--register", other, "--params", "7")
    assert code == 2 and "remove --params" in err
    assert not (folder / "s@1" / "forecasts.jsonl").exists()
