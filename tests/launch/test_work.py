"""A worker on a shared study folder (mirrors scalejax/launch/work.py)."""

import threading
from dataclasses import replace

import pytest

from scalejax import __version__
from scalejax.config import Measure, Placement
from scalejax.files import read_json, write_json
from scalejax.launch import work as module
from scalejax.launch.attempt import failure, forget_failure
from scalejax.launch.claims import Claims
from scalejax.launch.jobs import JOBS, read_jobs, read_plan, write_jobs
from scalejax.launch.work import work
from scalejax.training.result import Result
from scalejax.training.segment import Segment, TrainingJob


@pytest.fixture
def jobs(tiny_run):
    """A trunk and two branches of it."""
    half = tiny_run.steps // 2
    trunk = Segment(run=tiny_run, start=0, stop=half, final=False)
    runs = [tiny_run, tiny_run.replace(tokens=tiny_run.tokens - tiny_run.batch_tokens)]
    branches = [Segment(run=run, start=half, stop=run.steps, parent=trunk.folder) for run in runs]
    return [
        TrainingJob(
            segment=segment,
            study="s@1",
            measure=Measure(tokens=1024, items=0),
            placement=Placement(),
        )
        for segment in (trunk, *branches)
    ]


def run_worker(study, stopping=lambda: False):
    lines = []
    return work(study, say=lines.append, stopping=stopping), lines


def test_jobs_come_back_as_they_were_written(jobs, tmp_path):
    write_jobs(tmp_path, jobs[:2], later=jobs)
    assert read_jobs(tmp_path) == (jobs[:2], False)
    assert read_plan(tmp_path) == jobs
    write_jobs(tmp_path, jobs)
    assert read_jobs(tmp_path) == (jobs, True) and read_plan(tmp_path) == jobs
    # They are not read anew, but a list may be changed by who reads it.
    again = read_jobs(tmp_path).jobs
    assert again.pop() is read_jobs(tmp_path).jobs[-1]


def test_jobs_of_another_version_are_refused_with_both_versions(jobs, tmp_path):
    write_jobs(tmp_path, jobs)
    content = read_json(tmp_path / JOBS)
    content["jobs"][0]["placement"]["pods"] = 3
    write_json(tmp_path / JOBS, content)
    with pytest.raises(ValueError, match=r"holds no training job .*'pods'.*; restore it"):
        read_jobs(tmp_path)
    write_json(tmp_path / JOBS, content | {"version": "9.9"})
    message = rf"by scalejax 9\.9, and this is scalejax {__version__}, .*'pods'"
    for read in (read_jobs, read_plan):
        with pytest.raises(ValueError, match=message):
            read(tmp_path)


def test_a_folder_without_jobs_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no jobs\.json.*start `scalejax run`"):
        run_worker(tmp_path)


def test_a_worker_trains_trunks_before_branches_and_ends_when_nothing_is_left(jobs, tmp_path):
    # Branches first: they have to wait for their trunk.
    write_jobs(tmp_path, jobs[::-1])
    result, lines = run_worker(tmp_path)
    trunk, *branches = (job.segment.folder for job in jobs)
    assert result.trained[0] == trunk and set(result.trained[1:]) == set(branches)
    assert not result.failed and not result.preempted
    assert lines == [f"{folder} done" for folder in result.trained]
    assert list((tmp_path / "claims").iterdir()) == []
    again, _ = run_worker(tmp_path)
    assert again.trained == []


def test_a_worker_waits_for_what_another_one_trains(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOK_AGAIN_SECONDS", 0.05)
    write_jobs(tmp_path, jobs)
    claim = Claims(tmp_path).take(jobs[0].segment.id)
    assert claim is not None
    threading.Timer(0.5, claim.release).start()
    result, _ = run_worker(tmp_path)
    assert len(result.trained) == 3


def test_a_failure_is_told_to_all_workers_and_ends_with_the_next_start(jobs, tmp_path):
    write_jobs(tmp_path, jobs)
    folder = tmp_path / jobs[0].segment.folder
    folder.mkdir(parents=True)
    (folder / "status.json").write_text("{}")
    first, _ = run_worker(tmp_path)
    second, _ = run_worker(tmp_path)
    for result in (first, second):
        assert result.trained == [] and len(result.failed) == 3
        assert "status.json" in result.failed[jobs[0].segment.folder]
        assert "from which it begins, failed" in result.failed[jobs[1].segment.folder]
    assert "status.json" in (failure(folder) or "")
    write_json(folder / "failed.json", {})
    assert "failed.json is damaged" in (failure(folder) or "")
    forget_failure(folder)
    (folder / "status.json").unlink()
    third, _ = run_worker(tmp_path)
    assert len(third.trained) == 3


def test_a_worker_that_is_asked_to_stop_saves_and_gives_its_claim_back(jobs, tmp_path):
    write_jobs(tmp_path, jobs)
    steps = iter(range(10**9))
    result, _ = run_worker(tmp_path, stopping=lambda: next(steps) >= 2)
    assert result.preempted and result.trained == []
    assert list((tmp_path / "claims").iterdir()) == []
    result, _ = run_worker(tmp_path)
    assert len(result.trained) == 3
    assert all(Result.load(tmp_path / job.segment.folder).row["loss"] > 0 for job in jobs[1:])


def test_a_worker_does_not_wait_for_ever_for_runs_to_forecast(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOK_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(module, "FITTING_SECONDS", 0.2)
    write_jobs(tmp_path, jobs[:1], later=jobs)
    assert len(run_worker(tmp_path)[0].trained) == 1


@pytest.mark.parametrize("missing", ["data", "suite", "start", "devices"])
def test_a_worker_that_does_not_see_the_files_of_a_study_leaves_it_to_others(
    jobs, tmp_path, monkeypatch, missing
):
    """Relative paths mean other files elsewhere; a failure would end it for all."""
    job, run = jobs[1], jobs[1].segment.run
    if missing == "data":
        run = run.replace(data=replace(run.data, source="corpus.jsonl", tokenizer="byte"))
    elif missing == "suite":
        job = replace(job, measure=Measure(suites=("local:tasks",)))
    elif missing == "devices":
        job = replace(job, placement=Placement(data=1024))
    else:
        run = run.replace(start="model")
    segment = Segment(run=run, start=0, stop=run.steps)
    write_jobs(tmp_path, [replace(job, segment=segment)])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(ValueError, match=r"this worker cannot train runs/.* left to others"):
        run_worker(tmp_path)
    assert failure(tmp_path / segment.folder) is None
    assert not (tmp_path / "claims").exists() and not (tmp_path / segment.folder).exists()
