"""Runs that a study should train next (mirrors scalejax/study/next_runs.py)."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from scalejax import laws
from scalejax.config import Measure, Model
from scalejax.files import write_json
from scalejax.grids import cooldowns, grid, run_id
from scalejax.model.transformer import counts
from scalejax.optim.schedules import constant
from scalejax.study.cost import run_flops
from scalejax.study.next_runs import next_runs
from scalejax.study.plan import plan
from scalejax.study.run import study_record
from scalejax.study.study import Study
from scalejax.training.result import Result

SIZES = [
    Model.sized(width=width, depth=1, head_size=8, vocabulary=32) for width in (8, 16, 32, 64, 128)
]
BUDGETS = [4096.0, 8192.0, 16384.0]


@pytest.fixture(scope="module")
def study(tiny_run):
    """Four sizes with three cooldowns each, and a forecast of the next size."""
    trunk = tiny_run.replace(schedule=constant(warmup=640), tokens=BUDGETS[-1])
    return Study(
        "next@1",
        cooldowns(grid(trunk, model=SIZES[:4]), at=BUDGETS, fraction=0.25),
        forecast=cooldowns(grid(trunk, model=SIZES[4:]), at=BUDGETS[-1:], fraction=0.25),
        laws=[laws.chinchilla()],
    )


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    """The study's folder, as if its runs had been trained; their losses obey a law."""
    folder, planned = tmp_path_factory.mktemp("next"), plan(study)
    write_json(folder / "study.json", dict(study_record(planned, "")))
    rng = np.random.default_rng(0)
    for segment in planned.needed(study.runs):
        (folder / segment.folder).mkdir(parents=True)
        run = segment.run
        if segment.final:
            size, tokens = counts(run.model).params_with_head, run.tokens_read
            loss = (1.0 + 9 * size**-0.34 + 30 * tokens**-0.35) * np.exp(0.002 * rng.normal())
            row = {"run": run_id(run), "study": study.name, "status": "done", "step": run.steps}
            row |= {"tokens": tokens, "params_with_head": size, "wall_seconds": 1.0, "loss": loss}
            Result(row=row, measure=Measure(items=0)).save(folder / segment.folder)
        (folder / segment.folder / "DONE").write_text("")
    return folder


def test_the_proposed_runs_are_affordable_and_narrow_the_forecast(study, folder):
    budget = 2.0 * run_flops(study.forecast[0])
    proposal = next_runs(study, folder, count=3, budget=budget)
    assert 1 <= len(proposal.runs) <= 3 and sum(proposal.flops) <= budget
    trained = {run_id(run) for run in [*study.runs, *study.forecast]}
    assert not trained & {run_id(run) for run in proposal.runs}
    (forecast,) = proposal.forecasts
    assert forecast.after < 0.95 * forecast.before
    # A tenth of the FLOPs helps less.
    poor = next_runs(study, folder, count=3, budget=budget / 10)
    assert forecast.after < poor.forecasts[0].after < poor.forecasts[0].before
    assert json.dumps(proposal.summary())


def test_a_branch_of_a_finished_trunk_costs_less_than_a_run_of_its_own(study, folder):
    budget = 2.0 * run_flops(study.forecast[0])
    proposal = next_runs(study, folder, count=4, budget=budget)
    of_trunk, of_own = [], []
    for run, flops in zip(proposal.runs, proposal.flops, strict=True):
        shares = run.seed == 0 and run.model in SIZES[:4]
        (of_trunk if shares else of_own).append(flops / run_flops(run))
    # All of these lists are shares of what the run costs from its first step.
    assert all(share < 1 for share in of_trunk) and all(share <= 1 for share in of_own)
    assert of_trunk or of_own


def test_what_diverged_is_not_proposed_and_unfinished_runs_are_told(study, folder, tmp_path):
    budget = 0.02 * run_flops(study.forecast[0])
    (run,) = next_runs(study, folder, count=1, budget=budget).runs
    twins = [one for one in study.runs if one.replace(seed=run.seed, tokens=run.tokens) == run]
    assert twins, "the proposal is of a size that was trained"
    copy = shutil.copytree(folder, tmp_path / "next")
    result = Result.load(copy / "runs" / run_id(twins[0]))
    result.row["status"] = "diverged"
    result.save(copy / "runs" / run_id(twins[0]))
    (copy / "runs" / run_id(study.runs[0]) / "DONE").unlink()
    proposal = next_runs(study, copy, count=1, budget=budget)
    assert all(one.model != run.model for one in proposal.runs)
    assert proposal.reasons[0].startswith("1 of 12 runs of the study are not finished, and the")


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"forecast": ()}, {}, "name the run that you care for in Study.forecast"),
        ({"laws": [laws.downstream()]}, {}, "no law of the loss on params and tokens"),
        ({}, {"budget": 1.0}, "no candidate of 1 FLOPs narrows .* give a larger --budget"),
        ({}, {"count": 0}, "--next takes a number of runs"),
    ],
)
def test_what_is_missing_is_named(study, folder, changes, options, message):
    options = {"count": 2, "budget": 1e12} | options
    with pytest.raises(ValueError, match=message):
        next_runs(dataclasses.replace(study, **changes), folder, **options)


def test_a_study_without_enough_finished_runs_says_so(study, folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="not the folder of a study"):
        next_runs(study, tmp_path, count=2, budget=1e12)
    write_json(tmp_path / "study.json", dict(study_record(plan(study), "")))
    with pytest.raises(ValueError, match=r"no run of next@1 .* is finished"):
        next_runs(study, tmp_path, count=2, budget=1e12)
    one_size = dataclasses.replace(study, runs=study.runs[:3])
    with pytest.raises(ValueError, match=r"needs as many rows|undetermined"):
        next_runs(one_size, folder, count=2, budget=1e12)
