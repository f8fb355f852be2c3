"""Which worker trains which segment, and what happens when one dies (mirrors
scalejax/launch/pool.py).
"""

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from scalejax.config import Measure, Model, Placement, Schedule
from scalejax.launch import seats
from scalejax.launch.lock import locked
from scalejax.launch.pool import MAX_ATTEMPTS, Pool, next_job
from scalejax.launch.seats import Seat
from scalejax.training.segment import Segment, TrainingJob

SMALL = Model.sized(width=16, depth=1, head_size=8, vocabulary=32)
LARGE = Model.sized(width=24, depth=1, head_size=8, vocabulary=32)
FINAL_LOSS_ONLY = Measure(tokens=1024, items=0)


def job_of(segment, measure=None):
    return TrainingJob(
        segment=segment, study="s@1", measure=measure or Measure(), placement=Placement()
    )


@pytest.fixture
def whole_run(tiny_run):
    """Make the job of a run that is trained in one segment."""

    def make(measure=None, **changes):
        run = tiny_run.replace(**changes)
        return job_of(Segment(run=run, start=0, stop=run.steps), measure)

    return make


@pytest.fixture
def trunk_and_branch(tiny_run, tiny_measure):
    """The jobs of a trunk of 40 steps and of the run that branches off it."""
    run = tiny_run.replace(schedule=Schedule(shape="constant", warmup=640))
    trunk = Segment(run=run, start=0, stop=40, final=False)
    branch = Segment(run=run, start=40, stop=60, parent=trunk.folder)
    return job_of(trunk, tiny_measure), job_of(branch, tiny_measure)


@pytest.fixture
def start_pool(tmp_path):
    """Start pools of one worker in tmp_path; they are closed after the test."""
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(locked(tmp_path))

        def start(jobs, on_step=lambda segment, step, loss: None):
            done = []
            pool = Pool(
                tmp_path,
                seats=[Seat("0")],
                lock=lock,
                priority={job.segment.folder: 1.0 for job in jobs},
                on_step=on_step,
                on_done=done.append,
            )
            stack.callback(pool.close)
            return pool, done

        yield start


def choose(model, waiting, busy=(), priority=None):
    priority = priority or {}
    by_priority = sorted(waiting, key=lambda job: -priority.get(job.segment.folder, 1.0))
    return next_job(model, {job.segment.folder: job for job in by_priority}, list(busy))


def test_a_branch_waits_until_its_trunk_is_done(trunk_and_branch):
    trunk, branch = trunk_and_branch
    assert choose(None, [branch, trunk]) == trunk
    assert choose(None, [branch], busy=[trunk]) is None
    assert choose(None, [branch]) == branch


def test_a_worker_prefers_the_model_that_it_compiled_to_work_of_higher_priority(whole_run):
    small, large = whole_run(model=SMALL), whole_run(model=LARGE)
    priority = {small.segment.folder: 1.0, large.segment.folder: 2.0}
    assert choose(SMALL, [small, large], priority=priority) == small
    assert choose(None, [small, large], priority=priority) == large


def test_a_new_worker_prefers_a_model_that_no_other_worker_trains(whole_run):
    small, large = whole_run(model=SMALL), whole_run(model=LARGE)
    priority = {small.segment.folder: 2.0, large.segment.folder: 1.0}
    in_training = whole_run(model=SMALL, seed=1)
    assert choose(None, [small, large], busy=[in_training], priority=priority) == large
    assert choose(None, [small], busy=[in_training]) == small


def test_one_worker_trains_a_trunk_and_its_branch_and_nothing_twice(
    trunk_and_branch, start_pool, tmp_path
):
    pool, done = start_pool(trunk_and_branch)
    result = pool.train(trunk_and_branch)
    assert [segment.final for segment in done] == [False, True]
    assert not result.failed and result.runs_already_done == 0
    assert (tmp_path / done[1].folder / "result.json").exists()

    again, done_again = start_pool(trunk_and_branch)
    assert again.train(trunk_and_branch).runs_already_done == 1
    assert done_again == done and not again.workers


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_segment_of_a_worker_that_ended_is_trained_by_a_new_one(
    number, whole_run, tiny_run, start_pool
):
    # Long enough that the worker is still training when the signal arrives.
    jobs = [whole_run(FINAL_LOSS_ONLY, tokens=5_000 * tiny_run.batch_tokens)]
    ended = []

    def end_once(segment, step, loss):
        if not ended:
            ended.append(pool.workers[0].process.pid)
            pool.workers[0].process.send_signal(number)

    pool, done = start_pool(jobs, on_step=end_once)
    result = pool.train(jobs)
    assert not result.failed and not result.preempted and len(done) == 1
    # A worker that was asked to end has not failed.
    folder = jobs[0].segment.folder
    assert pool.attempts == ({folder: 1} if number == signal.SIGKILL else {})
    assert len(pool.workers) == 1 and pool.workers[0].process.pid not in ended


@pytest.mark.slow
def test_a_segment_that_kills_every_worker_fails_with_its_branches(tiny_run, start_pool, tmp_path):
    schedule = Schedule(shape="constant", warmup=640)
    run = tiny_run.replace(schedule=schedule, tokens=100_000 * tiny_run.batch_tokens)
    trunk = Segment(run=run, start=0, stop=50_000, final=False)
    branch = Segment(run=run, start=50_000, stop=100_000, parent=trunk.folder)
    jobs = [job_of(trunk, FINAL_LOSS_ONLY), job_of(branch, FINAL_LOSS_ONLY)]

    def kill(segment, step, loss):
        pool.workers[0].process.kill()

    pool, done = start_pool(jobs, on_step=kill)
    result = pool.train(jobs)
    assert not done and pool.attempts == {trunk.folder: MAX_ATTEMPTS}
    log = tmp_path / "logs" / "worker-0.log"
    assert result.failed == {
        trunk.folder: f"the worker died; its log is {log}",
        branch.folder: f"{trunk.folder}, from which it begins, failed",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_eight_gpus_train_eight_runs_at_once_in_one_process_each(whole_run, tmp_path, monkeypatch):
    # The machine's device files are made up; the processes are real.
    for number in range(8):
        (tmp_path / f"nvidia{number}").touch()
    with monkeypatch.context() as machine:
        machine.setattr(seats, "DEVICES", tmp_path)
        machine.delenv("JAX_PLATFORMS")
        machine.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        eight = seats.worker_seats(None, Placement())
    jobs = [whole_run(seed=seed) for seed in range(9)]
    gpus = {}

    def look_and_end():
        while sum(worker.job is not None for worker in pool.workers) < 8:
            time.sleep(0.1)
        for worker in pool.workers:
            environment = Path(f"/proc/{worker.process.pid}/environ").read_text().split("\0")
            gpu = next(item for item in environment if item.startswith("CUDA_VISIBLE_DEVICES="))
            gpus[gpu] = worker.job.segment.folder if worker.job else ""
        pool.result.preempted = True
        for worker in pool.workers:
            worker.process.kill()

    with (
        locked(tmp_path) as lock,
        contextlib.closing(
            Pool(
                tmp_path,
                seats=eight,
                lock=lock,
                priority={job.segment.folder: 1.0 for job in jobs},
                on_step=lambda segment, step, loss: None,
                on_done=lambda segment: None,
            )
        ) as pool,
    ):
        thread = threading.Thread(target=look_and_end)
        thread.start()
        pool.train(jobs)
        thread.join()
    assert set(gpus) == {f"CUDA_VISIBLE_DEVICES={number}" for number in range(8)}
    # The ninth run waits.
    assert set(gpus.values()) == {job.segment.folder for job in jobs[:8]}


def test_an_error_is_final_and_the_other_runs_go_on(whole_run, tiny_measure, start_pool):
    bad = whole_run(tiny_measure, model=Model.sized(width=16, depth=1, head_size=8, vocabulary=16))
    good = whole_run(tiny_measure)
    pool, done = start_pool([bad, good])
    result = pool.train([bad, good])
    assert list(result.failed) == [bad.segment.folder] and "vocabulary" in str(result.failed)
    assert [segment.folder for segment in done] == [good.segment.folder]


def test_sigterm_saves_the_running_segment_and_starts_no_other(whole_run, tiny_run, start_pool):
    tokens = 100_000 * tiny_run.batch_tokens
    jobs = [whole_run(FINAL_LOSS_ONLY, tokens=tokens, seed=seed) for seed in (0, 1)]
    signals = []

    def send_sigterm(segment, step, loss):
        if not signals:
            signals.append(threading.get_ident())
            os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    pool, done = start_pool(jobs, on_step=send_sigterm)
    result = pool.train(jobs)
    assert result.preempted and not done and not result.failed
    assert list(pool.waiting) == [jobs[1].segment.folder]
    assert list((pool.folder / jobs[0].segment.folder / "checkpoints").glob("*.json"))
    assert signal.getsignal(signal.SIGTERM) == handler
