"""One process trains one segment, or several (mirrors scalejax/launch/attempt.py)."""

import contextlib
import dataclasses

import pytest

from scalejax.config import Measure, Placement
from scalejax.files import read_json
from scalejax.launch.attempt import Companions, attempt, failure
from scalejax.launch.claims import Claims
from scalejax.launch.jobs import write_jobs
from scalejax.launch.lock import locked
from scalejax.launch.pool import Pool
from scalejax.launch.seats import Seat
from scalejax.launch.work import work
from scalejax.training.segment import Segment, TrainingJob


@pytest.fixture
def jobs(tiny_run):
    """Four jobs of one shape, of which three may be trained together."""
    runs = [
        tiny_run.replace(
            tokens=20 * tiny_run.batch_tokens,
            optimizer=dataclasses.replace(tiny_run.optimizer, learning_rate=rate),
        )
        for rate in (0.01, 0.02, 0.03, 0.04)
    ]
    return [
        TrainingJob(
            segment=Segment(run=run, start=0, stop=run.steps),
            study="s@1",
            measure=Measure(tokens=1024, items=0),
            placement=Placement(population=3),
        )
        for run in runs
    ]


def train_all(study):
    lines = []
    return work(study, say=lines.append, stopping=lambda: False), lines


def population_of(job, study):
    """The number of runs that a run was trained with."""
    status = read_json(study / job.segment.folder / "status.json")
    return status["placement"].get("population", 1)


def test_a_worker_trains_runs_of_one_shape_together(jobs, tmp_path):
    write_jobs(tmp_path, jobs)
    result, lines = train_all(tmp_path)
    folders = [job.segment.folder for job in jobs]
    assert result.trained == folders and not result.failed
    assert lines == [f"{folder} done" for folder in folders]
    assert [population_of(job, tmp_path) for job in jobs] == [3, 3, 3, 1]
    assert list((tmp_path / "claims").iterdir()) == []
    for folder in folders:
        assert (tmp_path / folder / "DONE").exists()
        assert read_json(tmp_path / folder / "config.json")["id"] == folder.split("/")[1]


def test_an_error_of_one_member_is_that_of_its_own_run(jobs, tmp_path):
    write_jobs(tmp_path, jobs[:3])
    damaged = tmp_path / jobs[1].segment.folder
    damaged.mkdir(parents=True)
    (damaged / "status.json").write_text("{}")
    result, _ = train_all(tmp_path)
    assert result.trained == [jobs[0].segment.folder, jobs[2].segment.folder]
    assert list(result.failed) == [jobs[1].segment.folder]
    assert "status.json" in (failure(damaged) or "")


def test_companions_are_free_and_leave_other_workers_their_share(jobs, tmp_path):
    longer = jobs[0].segment.run.replace(tokens=40 * jobs[0].segment.run.batch_tokens)
    other_shape = dataclasses.replace(
        jobs[0], segment=Segment(run=longer, start=0, stop=longer.steps)
    )
    write_jobs(tmp_path, [other_shape, *jobs])

    def companions(workers):
        with contextlib.ExitStack() as held:
            taken = list(Companions(Claims(tmp_path), tmp_path, workers)._take(jobs[0]))
            for _, claim in taken:
                held.enter_context(claim)
            return [job for job, _ in taken]

    assert companions(1) == jobs[1:3]
    # Four runs and two workers: two for each.
    assert companions(2) == jobs[1:2]
    claim = Claims(tmp_path).take(jobs[1].segment.id)
    assert claim is not None
    with claim:
        assert companions(1) == jobs[2:4]


def test_a_pool_hears_of_all_runs_of_a_population(jobs, tmp_path):
    write_jobs(tmp_path, jobs[:3])
    done = []
    with locked(tmp_path) as lock:
        pool = Pool(
            tmp_path,
            seats=[Seat("0")],
            lock=lock,
            priority={job.segment.folder: 1.0 for job in jobs},
            on_step=lambda segment, step, loss: None,
            on_done=done.append,
        )
        with contextlib.closing(pool):
            result = pool.train(jobs[:3])
    assert done == [job.segment for job in jobs[:3]] and not result.failed
    assert [population_of(job, tmp_path) for job in jobs[:3]] == [3, 3, 3]


def test_a_companion_whose_folder_is_that_of_another_run_fails_nobody_else(jobs, tmp_path):
    write_jobs(tmp_path, jobs[:3])
    first, wrong, _ = (tmp_path / job.segment.folder for job in jobs[:3])
    jobs[0].write(first)
    jobs[3].write(wrong)
    claims = Claims(tmp_path)
    event = attempt(
        claims,
        first,
        report=lambda step, loss: None,
        stopping=lambda: False,
        companions=Companions(claims, tmp_path),
    )
    assert (event.kind, event.error) == ("done", "")
    assert failure(first) is None and (first / "DONE").exists()
    assert list((tmp_path / "claims").iterdir()) == []
