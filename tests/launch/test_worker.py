"""The process that trains segments (mirrors scalejax/launch/worker.py)."""

import os
import signal
import subprocess
import sys
import time

import pytest

from scalejax.config import Measure, Placement
from scalejax.files import read_json
from scalejax.launch.events import Event
from scalejax.launch.seats import NOT_PINNED, usable_cores
from scalejax.training.segment import Segment, TrainingJob

COMMAND = [sys.executable, "-m", "scalejax.launch.worker"]


@pytest.fixture
def start_worker():
    """Start workers of this process; they are killed after the test."""
    workers = []

    def start(core=NOT_PINNED):
        worker = subprocess.Popen(
            [*COMMAND, str(os.getpid()), str(core), "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.kill()
        worker.wait()
        worker.stdin.close()
        worker.stdout.close()


@pytest.fixture
def job(tiny_run, tiny_measure):
    return job_of(tiny_run, tiny_measure)


def job_of(run, measure):
    segment = Segment(run=run, start=0, stop=run.steps)
    return TrainingJob(segment=segment, study="s@1", measure=measure, placement=Placement())


def send(worker, folder):
    worker.stdin.write(f"{folder}\n")
    worker.stdin.flush()


def next_event(worker):
    return Event.from_line(worker.stdout.readline())


def test_a_worker_trains_one_segment_after_the_other_on_its_core(start_worker, job, tmp_path):
    worker = start_worker(core=min(usable_cores()))
    # An error is reported, and the worker goes on.
    send(worker, tmp_path / "runs" / "nothing")
    event = next_event(worker)
    assert event.kind == "failed" and "nothing" in event.error

    folder = tmp_path / job.segment.folder
    job.write(folder)
    send(worker, folder)
    events = [next_event(worker) for _ in range(4)]
    assert [event.kind for event in events] == ["step", "step", "step", "done"]
    assert [event.step for event in events[:3]] == [20, 40, 60]
    assert (folder / "DONE").exists() and events[2].loss < events[0].loss
    if hasattr(os, "sched_setaffinity"):
        assert read_json(folder / "status.json")["placement"]["threads"] == 1

    # It ends when there is no more work.
    worker.stdin.close()
    assert worker.wait(timeout=30) == 0


def test_sigterm_saves_the_segment_and_ends_the_worker(start_worker, tiny_run, tmp_path):
    # Long enough that the signal arrives while it trains.
    long_run = tiny_run.replace(tokens=100_000 * tiny_run.batch_tokens)
    job = job_of(long_run, Measure(tokens=1024, items=0))
    folder = tmp_path / job.segment.folder
    job.write(folder)
    worker = start_worker()
    send(worker, folder)
    assert next_event(worker).step == 20
    worker.send_signal(signal.SIGTERM)
    kinds = [Event.from_line(line).kind for line in worker.stdout]
    assert kinds[-1] == "preempted" and worker.wait() == 0
    assert not (folder / "DONE").exists() and list((folder / "checkpoints").glob("*.json"))


def test_a_worker_whose_launcher_is_dead_leaves_at_once():
    done = subprocess.run([*COMMAND, "1", "-1"], capture_output=True, timeout=60)
    assert done.returncode == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel kills a worker only on Linux")
def test_a_worker_dies_with_its_launcher(tmp_path):
    start_worker = (
        "import os, subprocess, sys, time\n"
        "command = [sys.executable, '-m', 'scalejax.launch.worker', str(os.getpid()), '-1']\n"
        "worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-c", start_worker], stdout=subprocess.PIPE, text=True
    )
    assert launcher.stdout
    pid = int(launcher.stdout.readline())
    launcher.kill()
    launcher.wait()
    launcher.stdout.close()
    deadline = time.monotonic() + 20
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(pid)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
