"""One run on two nodes of a real SLURM cluster (mirrors scalejax/launch/hosts.py)."""

import subprocess
import sys
import time

import pytest

from scalejax.config import Measure, Placement
from scalejax.training.loop import train
from scalejax.training.result import Result
from scalejax.training.segment import Segment, TrainingJob
from tests.launch.slurm_cluster import cluster, skip_without_slurm
from tests.training.hosts import wait_for_a_checkpoint
from tests.training.runs import curve

MEASURE = Measure(tokens=1024, items=0)

skip_without_slurm()
pytestmark = pytest.mark.slow
__all__ = ["cluster"]


def start(folder):
    """Train the segment in `folder` on both nodes."""
    return subprocess.Popen(
        ["srun", "-N2", "-n2", sys.executable, "-m", "scalejax.launch.hosts", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def training_losses(folder):
    return [row["train_loss"] for row in curve(folder) if "train_loss" in row]


def test_two_nodes_train_the_run_of_one_machine_also_when_a_node_is_lost(
    cluster, tiny_run, tmp_path
):
    alone = train(tiny_run, out=tmp_path / "alone", measure=MEASURE)
    folder = tmp_path / "runs" / "run"
    placement = Placement(data=2, checkpoint_seconds=1e-3)
    segment = Segment(run=tiny_run, start=0, stop=tiny_run.steps)
    TrainingJob(segment=segment, study="", measure=MEASURE, placement=placement).write(folder)

    job = start(folder)
    wait_for_a_checkpoint(folder, [job])
    cluster("kill-node", "n2")
    lost = time.monotonic()
    output = job.communicate(timeout=60)[0]
    assert job.returncode != 0 and time.monotonic() - lost < 60, output
    # SLURM may notice the loss before the other process does, and end it.
    assert "process of this run has stopped" in output or "Node failure" in output, output
    assert not (folder / "DONE").exists()

    cluster("start-node", "n2")
    job = start(folder)
    output = job.communicate(timeout=300)[0]
    assert job.returncode == 0, output
    assert Result.load(folder).loss == pytest.approx(alone.loss, rel=1e-5)
    assert training_losses(folder) == pytest.approx(training_losses(tmp_path / "alone"), rel=1e-5)
