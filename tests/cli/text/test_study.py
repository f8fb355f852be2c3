"""What `plan` and `run` print (mirrors scalejax/cli/text/study.py)."""

from pathlib import Path

import pandas as pd

from scalejax.cli.text.study import plan_text, resources_text, stopped_text, study_text
from scalejax.grids import cooldowns
from scalejax.launch.pool import PoolResult
from scalejax.optim.schedules import constant
from scalejax.report.ledger_lines import Forecast, Score, ScoredForecast
from scalejax.study.plan import plan
from scalejax.study.resources import resources
from scalejax.study.run import StudyResult
from scalejax.study.study import Study


def planned(tiny_run):
    base = tiny_run.replace(schedule=constant(warmup=640), tokens=64_000)
    other = tiny_run.replace(seed=1)
    return plan(Study("s@1", cooldowns(base, at=[32_000, 64_000], fraction=0.2), [other]))


def result(tiny_run, **fields):
    return StudyResult(folder=Path("out/s@1"), plan=planned(tiny_run), **fields)


def test_a_plan_counts_runs_and_trunks_and_gives_the_cost(tiny_run):
    lines = plan_text(planned(tiny_run)).split("\n")
    assert lines[0] == "s@1: 3 runs, 1 shared trunk, 1 to forecast"
    assert lines[1].startswith("  width 16, depth 1: 3 runs of 3.84e+03, 3.2e+04, 6.4e+04 tokens")
    assert "less than the" in lines[2] and "separately" in lines[2]


def test_the_estimate_of_memory_gives_way_to_a_compiled_program(tiny_run, tmp_path):
    needs = resources(planned(tiny_run), tmp_path)
    assert "GB of memory per device, up to" in resources_text(needs)
    text = resources_text(needs, compiled=True)
    assert "memory" not in text and "GB of checkpoints" in text


def test_a_study_lists_diverged_runs_failures_and_unfitted_laws(tiny_run):
    text = study_text(
        result(
            tiny_run,
            training=PoolResult(failed={"runs/abc": "ValueError: no data"}, runs_already_done=1),
            table=pd.DataFrame({"status": ["done", "diverged", "done"]}),
            unfitted={"kaplan": "too few rows"},
        )
    )
    lines = text.split("\n")
    assert lines[0] == (
        "s@1: 2 runs done, 1 diverged (left out of the fits); 1 of them were done before this "
        "command"
    )
    assert "law kaplan was not fitted: too few rows" in lines
    assert "failed: runs/abc: ValueError: no data" in lines


def test_a_forecast_stands_beside_what_was_measured(tiny_run):
    forecast = Forecast(
        kind="forecast",
        id="1",
        run="s@1/abc",
        law="chinchilla",
        metric="loss",
        value=2.8,
        low=2.7,
        high=None,
        level=0.95,
        distance=1.5,
        fit_sha256="",
        rows_sha256="",
        code="",
        created="",
    )
    score = Score(kind="score", id="1", measured=2.85, error=0.05, inside=True, created="")
    forecasts = [ScoredForecast(forecast, None), ScoredForecast(forecast, score)]
    lines = study_text(result(tiny_run, training=PoolResult(), forecasts=forecasts)).split("\n")
    assert lines[0] == "s@1: no run has finished"
    first = "forecast of loss by chinchilla: 2.800 [2.700, open]; "
    assert first + "not measured yet (run s@1/abc)" in lines
    assert first + "measured 2.850, inside the interval, error +0.050" in lines


def test_a_stopped_study_says_where_it_is_saved_and_how_to_continue(tiny_run):
    text = stopped_text(result(tiny_run, training=PoolResult(preempted=True)))
    assert "every run is saved in out/s@1" in text and "the same command continues" in text
