"""A study from plan to report, with real workers (mirrors scalejax/study/run.py).

Killed at random moments, it ends with the same results as an undisturbed one.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from scalejax.config import Data, Measure
from scalejax.evaluation.run_metrics import tasks_hash
from scalejax.files import read_json, read_lines
from scalejax.grids import run_id
from scalejax.study.experiment import load_study
from scalejax.study.plan import plan
from scalejax.study.run import _analyse, _check_data, dropped_runs, study_record
from scalejax.study.study import Study
from scalejax.training.result import Result

SCALEJAX = Path(sys.executable).with_name("scalejax")
EXPERIMENT = '''"""Does a tiny study hold together?"""
from scalejax import Analysis, Conclusion, Data, Measure, Model, Optimizer, Run, Study
from scalejax import cooldowns, grid, laws, results
from scalejax.optim.schedules import constant

sizes = [Model.sized(width=width, depth=1, head_size=8, vocabulary=32) for width in (8, 16, 24)]
large = Model.sized(width=32, depth=1, head_size=8, vocabulary=32)
base = Run(
    model=sizes[0],
    data=Data(source="synthetic:32", tokenizer="own", sequence_length=16),
    optimizer=Optimizer(learning_rate=0.01),
    schedule=constant(warmup=640),
    tokens=40_000,
    batch_tokens=64,
)
budgets = [10_000, 20_000, 40_000]
ahead = cooldowns(base.replace(model=large), at=[40_000], fraction=0.2)
study = Study(
    "tiny@1",
    cooldowns(grid(base, model=sizes), at=budgets, fraction=0.2),
    forecast=ahead,
    laws=[laws.chinchilla()],
    measure=Measure(every=10_000, tokens=1024, items=0),
    bootstrap=100,
    analysis=lambda folder: Analysis(
        conclusions=[
            Conclusion(claim="Every run ended", estimate=float(len(results(folder))), above=9.0)
        ]
    ),
)
'''


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    path = tmp_path_factory.mktemp("project") / "tiny.py"
    path.write_text(EXPERIMENT)
    return path


def scalejax(*arguments):
    return [str(SCALEJAX), *map(str, arguments)]


@pytest.fixture(scope="module")
def calm(experiment, tmp_path_factory):
    out = tmp_path_factory.mktemp("calm")
    done = subprocess.run(scalejax("run", experiment, "--out", out), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return out / "tiny@1", done


def losses(folder):
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("runs/*/result.json"))]
    return {
        row["run"]: {k: v for k, v in row.items() if isinstance(v, float) and "second" not in k}
        for row in rows
    }


def test_a_study_writes_every_file_of_its_contract(calm):
    folder, done = calm
    for name in (
        "study.json",
        "results.parquet",
        "curves.parquet",
        "forecasts.jsonl",
        "report.html",
        "analysis.json",
        "fits/chinchilla.json",
    ):
        assert (folder / name).exists(), name
    assert len(losses(folder)) == 10 == len(list(folder.glob("runs/*/DONE")))
    assert "Every run ended (above 9): 10, not resolved at this scale" in done.stdout
    for words in ("verdict", "forecast of loss by chinchilla", "less than the", "report.html"):
        assert words in done.stdout


def test_the_forecast_is_registered_before_its_run_starts(calm):
    folder, _ = calm
    forecast, score = read_lines(folder / "forecasts.jsonl")
    assert (forecast["kind"], score["kind"]) == ("forecast", "score")
    assert forecast["id"] == score["id"]
    run = forecast["run"].split("/")[1]
    result = read_json(folder / "runs" / run / "result.json")
    assert forecast["created"] < result["started"] and score["measured"] == result["loss"]


def test_a_second_call_trains_nothing(calm, experiment):
    folder, _ = calm
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/result.json")}
    again = subprocess.run(
        scalejax("run", experiment, "--out", folder.parent), capture_output=True, text=True
    )
    assert again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/*/result.json")} == before
    assert len(read_lines(folder / "forecasts.jsonl")) == 2


@pytest.mark.parametrize(
    ("data", "vocabularies", "message"),
    [
        ({}, [257, 200, 257], "has 257 token ids, but Model.vocabulary is 200"),
        ({"mixture": "wiki=1"}, [257], "names the domain 'wiki', .* its domains are text"),
        ({"sequence_length": 10**6}, [257], "fewer than one window of sequence_length 1000000"),
    ],
)
def test_a_run_that_its_data_do_not_fit_is_refused_before_any_is_trained(
    tmp_path, tiny_run, data, vocabularies, message
):
    """A worker would find out, when other runs of the grid are trained."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(f'{{"text": "{n} is not {n + 1}"}}\n' for n in range(200)))
    fields = {"source": str(corpus), "tokenizer": "byte", "sequence_length": 16, **data}
    length = fields["sequence_length"]
    runs = [
        tiny_run.replace(
            model=replace(tiny_run.model, vocabulary=vocabulary),
            data=Data(**fields),
            batch_tokens=length,
            tokens=1000 * length,
        )
        for vocabulary in vocabularies
    ]
    study = Study("s@1", runs, measure=Measure(tokens=512, items=0))
    with pytest.raises(ValueError, match=message):
        _check_data(plan(study), tmp_path)


def test_weights_that_do_not_exist_are_refused_before_any_run_is_trained(tmp_path, tiny_run):
    study = Study(
        "s@1",
        [tiny_run, tiny_run.replace(start=str(tmp_path / "model"))],
        measure=Measure(tokens=512, items=0),
    )
    with pytest.raises(ValueError, match=r"model is neither the folder of a trained run"):
        _check_data(plan(study), tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").touch()
    _check_data(plan(study), tmp_path)


def test_a_run_that_begins_from_one_of_another_tokenizer_is_refused(tmp_path, tiny_run):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(f'{{"text": "{n} is not {n + 1}"}}\n' for n in range(200)))
    model = replace(tiny_run.model, vocabulary=300)
    one, two = (
        tiny_run.replace(
            model=model, data=Data(source=str(corpus), tokenizer=tokenizer, sequence_length=16)
        )
        for tokenizer in ("byte", "bpe:300")
    )
    two = two.replace(start=run_id(one))
    study = Study("s@1", [one, two], measure=Measure(tokens=512, items=0))
    with pytest.raises(ValueError, match=r"know other token ids: .* set Data\.tokenizer='byte'"):
        _check_data(plan(study), tmp_path)


def test_a_run_that_was_scored_on_another_version_of_its_tasks_is_refused(tmp_path, tiny_run):
    """Rows that are scored on two sets of items would share one law of the error."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(f'{{"text": "{n} is not {n + 1}"}}\n' for n in range(200)))
    task = tmp_path / "quiz.jsonl"
    item = '{"query": "1 is", "choices": ["not", "so"], "gold": 0}\n'
    task.write_text(item)
    data = Data(source=str(corpus), tokenizer="byte", sequence_length=16)
    run = tiny_run.replace(model=replace(tiny_run.model, vocabulary=257), data=data)
    measure = Measure(tokens=512, items=0, suites=(f"local:{task}",))
    study = Study("s@1", [run], measure=measure)

    folder = tmp_path / "runs" / run_id(run)
    folder.mkdir(parents=True)
    row = {"run": run_id(run), "study": "s@1", "status": "done", "step": 60, "tokens": 3840}
    row |= {"loss": 3.0, "params_with_head": 9, "wall_seconds": 1.0}
    Result(row=row | {"tasks_hash": tasks_hash(measure)}, measure=measure).save(folder)
    (folder / "DONE").touch()
    _check_data(plan(study), tmp_path)
    task.write_text(item * 2)
    with pytest.raises(ValueError, match=r"was scored on task files .* to score the runs anew"):
        _check_data(plan(study), tmp_path)
    # What is scored anew, or was scored by an earlier version, is not refused.
    _check_data(plan(replace(study, measure=replace(measure, tokens=1024))), tmp_path)
    Result(row=row, measure=measure).save(folder)
    _check_data(plan(study), tmp_path)


def test_finished_runs_that_a_study_has_no_more_are_named(tmp_path, tiny_run):
    """The file was changed, or another one has a study of this name."""
    runs = [tiny_run.replace(seed=seed) for seed in range(3)]
    ids = [run_id(run) for run in runs]
    for name in ids:
        (tmp_path / "runs" / name).mkdir(parents=True)
    for name in ids[1:]:
        (tmp_path / "runs" / name / "DONE").touch()
    for study, dropped in (
        (Study("s@1", runs[:2], [runs[2]]), []),
        (Study("s@1", runs[:2]), [ids[2]]),
    ):
        assert dropped_runs(tmp_path, study_record(plan(study), "")) == dropped


def test_status_counts_the_runs(calm, experiment):
    folder, _ = calm
    done = subprocess.run(
        scalejax("status", experiment, "--out", folder.parent, "--json"),
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout)["totals"] == {"done": 10}


@pytest.mark.parametrize(
    ("mistake", "reason"), [(ValueError, "too few seeds"), (KeyError, "KeyError: 'too few seeds'")]
)
def test_an_analysis_that_cannot_be_made_says_why_and_hides_nothing(
    experiment, tmp_path, mistake, reason
):
    def analysis(folder):
        raise mistake("too few seeds")

    (tmp_path / "analysis.json").write_text("{}")  # Of an earlier call, on other runs.
    study, _ = load_study(str(experiment))
    assert _analyse(replace(study, analysis=analysis), tmp_path) == (None, reason)
    assert not (tmp_path / "analysis.json").exists()


def test_a_study_in_which_every_run_diverges_is_exit_3(experiment, tmp_path):
    wild = tmp_path / "wild.py"
    text = EXPERIMENT.replace("learning_rate=0.01", "learning_rate=1e30, clip=0").replace(
        "tiny@1", "wild@1"
    )
    wild.write_text(text.replace("(8, 16, 24)", "(8,)").replace("forecast=ahead", "forecast=[]"))
    done = subprocess.run(scalejax("run", wild, "--out", tmp_path), capture_output=True, text=True)
    assert done.returncode == 3, done.stderr[-2000:]
    assert "3 diverged" in done.stdout and "law chinchilla was not fitted" in done.stdout
    status = subprocess.run(
        scalejax("status", wild, "--out", tmp_path, "--json"), capture_output=True, text=True
    )
    assert json.loads(status.stdout)["totals"] == {"diverged": 3}


def test_a_trunk_that_cannot_be_read_fails_its_branches_and_no_other_run(
    calm, experiment, tmp_path
):
    """The exit code is 1, and the runs of the other sizes stay done."""
    shutil.copytree(calm[0], tmp_path / "tiny@1")
    leaf = next(
        path
        for path in (tmp_path / "tiny@1" / "runs").iterdir()
        if read_json(path / "config.json")["segment"]["parent"]
    )
    shutil.rmtree(leaf)
    parent = read_json(calm[0] / "runs" / leaf.name / "config.json")["segment"]["parent"]
    for record in (tmp_path / "tiny@1" / parent / "checkpoints").glob("*.json"):
        record.write_text("{}")
    done = subprocess.run(
        scalejax("run", experiment, "--out", tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr[-2000:]
    assert f"failed: runs/{leaf.name}" in done.stdout and "9 runs done" in done.stdout


def alive(folder):
    """Processes that have the study's lock open."""
    return [
        p.name
        for p in Path("/proc").glob("[0-9]*")
        if any(_target(f) == str(folder / "lock") for f in _files(p))
    ]


def _files(process):
    try:
        return list((process / "fd").iterdir())
    except OSError:
        return []


def _target(link):
    try:
        return os.readlink(link)
    except OSError:
        return ""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_study_that_is_killed_at_random_moments_ends_with_the_same_results(
    calm, experiment, tmp_path
):
    moments = random.Random(0)
    for kill in (os.kill, os.killpg, os.kill, os.killpg):
        process = subprocess.Popen(
            scalejax("run", experiment, "--out", tmp_path),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(moments.uniform(3, 14))
        except subprocess.TimeoutExpired:
            kill(process.pid, signal.SIGKILL)
            process.wait()
    deadline = time.monotonic() + 5
    while alive(tmp_path / "tiny@1") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(tmp_path / "tiny@1"), "a worker outlived its launcher"
    done = subprocess.run(
        scalejax("run", experiment, "--out", tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert losses(tmp_path / "tiny@1") == losses(calm[0])
    assert [line["kind"] for line in read_lines(tmp_path / "tiny@1" / "forecasts.jsonl")] == [
        "forecast",
        "score",
    ]


@pytest.mark.slow
def test_sigterm_saves_the_study_and_the_same_command_continues_it(calm, experiment, tmp_path):
    process = subprocess.Popen(
        scalejax("run", experiment, "--out", tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob("tiny@1/*/*/metrics.jsonl")):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "every run is saved" in errors and "the same command continues" in errors
    assert (
        subprocess.run(
            scalejax("run", experiment, "--out", tmp_path), capture_output=True
        ).returncode
        == 0
    )
    assert losses(tmp_path / "tiny@1") == losses(calm[0])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="pins processes to cores")
def test_workers_that_are_killed_at_random_moments_share_a_study(calm, experiment, tmp_path):
    moments, folder = random.Random(0), tmp_path / "tiny@1"
    launcher = subprocess.Popen(
        scalejax("run", experiment, "--out", tmp_path, "--devices", "0"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (folder / "jobs.json").exists():
        time.sleep(0.1)

    def start_worker():
        return subprocess.Popen(scalejax("work", folder), stderr=subprocess.DEVNULL)

    workers, kills = [start_worker(), start_worker()], 0
    while launcher.poll() is None:
        time.sleep(moments.uniform(4, 10))
        victim = workers.pop(0)
        if kills < 5 and victim.poll() is None:
            victim.kill()
            kills += 1
        elif victim.poll() is None:
            workers.append(victim)
            continue
        victim.wait()
        workers.append(start_worker())
    assert launcher.returncode == 0
    assert [worker.wait(60) for worker in workers][-1] == 0
    assert kills >= 2 and losses(folder) == losses(calm[0])
    assert list((folder / "claims").glob("*.json")) == []
    assert len(read_lines(folder / "forecasts.jsonl")) == 2
