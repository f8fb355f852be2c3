"""A study as an array on a real SLURM cluster (mirrors
scalejax/launch/clusters/slurm.py).
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from scalejax.config import Placement
from scalejax.files import write_json
from scalejax.launch.clusters.slurm import ENDED, RECORD, Slurm, tasks_of
from tests.launch.clusters.launchers import PATIENCE_SECONDS, end, wait_until
from tests.launch.clusters.studies import EXPERIMENT, RUNS, curves, losses
from tests.launch.slurm_cluster import (
    array_of,
    cluster,
    nodes_at_work,
    skip_without_slurm,
    start_again,
)

skip_without_slurm()
pytestmark = pytest.mark.slow
__all__ = ["cluster"]

SCALEJAX = [sys.executable, "-m", "scalejax.cli"]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    path = tmp_path_factory.mktemp("project") / "tiny.py"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture(scope="module")
def local(experiment, tmp_path_factory):
    """The study, trained by one undisturbed worker of this machine."""
    out = tmp_path_factory.mktemp("local")
    subprocess.run([*SCALEJAX, "run", experiment, "--out", out, "--devices", "1"], check=True)
    return out / "tiny@1"


@pytest.fixture
def launch(experiment, tmp_path):
    """Start `scalejax run` on the cluster; what is left of it ends after the test."""
    with contextlib.ExitStack() as stack:

        def start():
            command = [*SCALEJAX, "run", experiment, "--out", tmp_path, "--executor", "slurm"]
            process = subprocess.Popen(
                [*command, "--workers", "1"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.callback(end, process)
            return process

        yield start
    subprocess.run(["scancel", "--user=root"], check=True)


def submit(study):
    """Submit the batch script of a study by hand; return the array's id."""
    command = ["sbatch", "--parsable", study / "slurm.sh"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def trained(study):
    """How often a worker said that it has finished a segment, by the segment."""
    logs = "".join(path.read_text() for path in study.glob("logs/slurm-*.log"))
    return Counter(re.findall(r"^(\w+/\w+) done$", logs, re.MULTILINE))


def check(study, local):
    assert len(losses(study)) == RUNS and losses(study) == losses(local)
    assert curves(study) == curves(local)
    folders = [path.parent for path in study.glob("*/*/DONE")]
    assert len(folders) > RUNS, "no trunks"
    assert trained(study) == {str(folder.relative_to(study)): 1 for folder in folders}
    assert list((study / "claims").iterdir()) == []
    orphans = subprocess.run(["pgrep", "-f", study], capture_output=True, text=True).stdout
    assert not orphans


def test_two_arrays_survive_a_lost_node_a_requeue_and_their_launcher(
    cluster, launch, local, tmp_path
):
    study = tmp_path / "tiny@1"
    run = launch()
    wait_until(lambda: nodes_at_work(study), run)
    first = array_of(study)
    # A second array on the same study takes the other node. Both are stopped while
    # they work, so that none can finish the study alone.
    second = submit(study)
    wait_until(lambda: {f"{first}_0", f"{second}_0"} <= nodes_at_work(study).keys(), run)
    node = nodes_at_work(study)[f"{first}_0"]
    subprocess.run(["scontrol", "requeue", f"{second}_0"], check=True)
    # The launcher dies together with a node. The array goes on, and the same command
    # follows it.
    cluster("kill-node", node)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    cluster("start-node", node)
    start_again(f"{first}_0")
    run = launch()
    start_again(f"{second}_0")
    output = run.communicate(timeout=PATIENCE_SECONDS)[0]
    assert run.returncode == 0, output
    assert f"following SLURM array {first}" in output and "submitted SLURM" not in output
    for array in (first, second):
        wait_until(lambda array=array: all(task.state in ENDED for task in tasks_of(array) or []))
    check(study, local)


def test_a_task_that_is_warned_saves_and_queues_again_and_cancelled_ones_are_told(
    cluster, launch, tmp_path
):
    study = tmp_path / "tiny@1"
    run = launch()
    wait_until(lambda: list(study.glob("*/*/metrics.jsonl")), run)
    array = array_of(study)
    # What SLURM sends a minute before the end of a task's time.
    subprocess.run(["scancel", "--batch", "--signal=USR1", f"{array}_0"], check=True)
    wait_until(lambda: [task.state for task in tasks_of(array) or []] == ["PENDING"], run)
    assert list((study / "claims").iterdir()) == []
    assert list(study.glob("*/*/checkpoints/*.json")), "nothing was saved"
    subprocess.run(["scancel", array], check=True)
    output = run.communicate(timeout=PATIENCE_SECONDS)[0]
    # Somebody ended the array: the study is preempted, and says where to look.
    assert run.returncode == 75, output
    assert f"no task of SLURM array {array} is left" in output and "CANCELLED" in output
    assert str(study / "logs" / f"slurm-{array}_0.log") in output


def test_a_foreign_array_with_the_number_of_the_studys_is_not_followed(cluster, tmp_path):
    """Numbers begin anew on another cluster, where a study may be copied to."""
    command = ["sbatch", "--parsable", "--array=0-0", "--output=/dev/null", "--wrap=sleep 600"]
    foreign = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    write_json(tmp_path / RECORD, {"array": foreign})
    observer: Any = SimpleNamespace(step=None, done=None, say=lambda text: None)
    array = Slurm(("sleep", "600"), 1).start(
        tmp_path, placement=Placement(), lock=0, priority={}, observer=observer
    )
    try:
        assert tasks_of(foreign) and not array._follow()
        array._submit()
        assert array._follow() and array_of(tmp_path) != foreign
    finally:
        subprocess.run(["scancel", "--user=root"], check=True)
