"""A worker that is suspended for longer than its claim lasts, and then goes on."""

import hashlib
import signal
import subprocess
import sys
import time

import pytest

from scalejax.config import Measure, Placement
from scalejax.launch.jobs import write_jobs
from scalejax.training.segment import Segment, TrainingJob

# `scalejax work` with claims that last for three seconds instead of a minute.
WORK = """
import sys
from scalejax import cli
from scalejax.launch import claims
claims.HEARTBEAT_SECONDS, claims.STALE_SECONDS = 0.2, 3.0
sys.argv[:1] = ["scalejax", "work"]
cli.main()
"""


def start_worker(study):
    return subprocess.Popen(
        [sys.executable, "-c", WORK, str(study)], stderr=subprocess.PIPE, text=True
    )


def files(study):
    """The hash and the time of every file of a study, but for temporary ones."""
    return {
        path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in study.rglob("*")
        if path.is_file() and not path.name.endswith(".tmp")
    }


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="suspends a process")
def test_a_worker_that_was_suspended_writes_nothing_over_its_successor_s_files(tiny_run, tmp_path):
    run = tiny_run.replace(tokens=1_500 * tiny_run.batch_tokens)
    job = TrainingJob(
        segment=Segment(run=run, start=0, stop=run.steps),
        study="s@1",
        measure=Measure(tokens=1024, items=0),
        placement=Placement(checkpoint_seconds=0.2),
    )
    write_jobs(tmp_path, [job])
    folder = tmp_path / job.segment.folder

    suspended = start_worker(tmp_path)
    while not list(folder.glob("checkpoints/*.json")):
        assert suspended.poll() is None, suspended.communicate()[1]
        time.sleep(0.001)
    # It is mostly caught while it writes status.json, after the checkpoint.
    suspended.send_signal(signal.SIGSTOP)
    assert not (folder / "DONE").exists() and list((tmp_path / "claims").iterdir())

    successor = start_worker(tmp_path)
    message = successor.communicate(timeout=1500)[1]
    assert successor.returncode == 0 and f"{job.segment.folder} done" in message, message
    before = files(tmp_path)
    assert folder / "DONE" in before

    suspended.send_signal(signal.SIGCONT)
    message = suspended.communicate(timeout=1500)[1]
    assert suspended.returncode == 0 and "done" not in message, message
    assert files(tmp_path) == before
