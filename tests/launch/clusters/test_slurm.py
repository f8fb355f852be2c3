"""A study as an array on a real SLURM cluster (mirrors
scalejax/launch/clusters/slurm.py).
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from scalejax.files import read_json
from scalejax.launch.clusters.slurm import ENDED, tasks_of
from tests.launch.clusters.studies import EXPERIMENT, RUNS, curves, losses
from tests.launch.slurm_cluster import cluster, skip_without_slurm

skip_without_slurm()
pytestmark = pytest.mark.slow
__all__ = ["cluster"]

# On a busy machine every process takes minutes to start.
PATIENCE_SECONDS = 1500

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

        def start(workers):
            command = [*SCALEJAX, "run", experiment, "--out", tmp_path, "--executor", "slurm"]
            process = subprocess.Popen(
                [*command, "--workers", str(workers)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.callback(end, process)
            return process

        yield start
    subprocess.run(["scancel", "--user=root"], check=True)


def end(process):
    process.kill()
    process.wait()
    process.stdout.close()


def wait_until(condition, process=None):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.1)
    return value


def nodes_at_work(study):
    """The node of every process that has a claim, by the array's task."""
    found = {}
    for claim in study.glob("claims/*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            process = read_json(claim)["process"]
            content = Path(f"/proc/{process}/environ").read_text()
            environment = dict(item.split("=", 1) for item in content.split("\0") if "=" in item)
            found[environment["SLURM_ARRAY_TASK_ID"]] = environment["SLURMD_NODENAME"]
    return found


def start_again(array, task):
    """Spare a requeued task the two minutes that SLURM lets it wait."""
    name = f"{array}_{task}"

    def waits():
        return any(item.id == name and item.state == "PENDING" for item in tasks_of(array) or [])

    wait_until(waits)
    subprocess.run(["scontrol", "update", f"JobId={name}", "StartTime=now"], check=True)


def array_of(study):
    return read_json(study / "slurm.json")["array"]


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


def test_an_array_survives_a_lost_node_a_requeue_and_its_launcher(cluster, launch, local, tmp_path):
    study = tmp_path / "tiny@1"
    run = launch(2)
    lost, node = wait_until(lambda: nodes_at_work(study), run).popitem()
    array, other = array_of(study), {"0": "1", "1": "0"}[lost]
    cluster("kill-node", node)
    # The launcher dies, too. The array goes on, and the same command follows it.
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    cluster("start-node", node)
    run = launch(2)
    wait_until(lambda: other in nodes_at_work(study), run)
    subprocess.run(["scontrol", "requeue", f"{array}_{other}"], check=True)
    start_again(array, lost)
    start_again(array, other)
    output = run.communicate(timeout=PATIENCE_SECONDS)[0]
    assert run.returncode == 0, output
    assert f"following SLURM array {array}" in output and "submitted" not in output
    check(study, local)


def test_two_arrays_do_no_work_twice_also_when_one_is_warned_and_one_cancelled(
    cluster, launch, local, tmp_path
):
    study = tmp_path / "tiny@1"
    run = launch(1)
    wait_until(lambda: nodes_at_work(study), run)
    first = array_of(study)
    subprocess.run(["scancel", first], check=True)
    output = run.communicate(timeout=PATIENCE_SECONDS)[0]
    # Somebody ended the array: the study is preempted, and says where to look.
    assert run.returncode == 75, output
    assert f"no task of SLURM array {first} is left" in output and "CANCELLED" in output
    assert str(study / "logs" / f"slurm-{first}_0.log") in output

    run = launch(1)
    array = wait_until(lambda: array_of(study) != first and array_of(study), run)
    other = subprocess.run(
        ["sbatch", "--parsable", study / "slurm.sh"], check=True, capture_output=True, text=True
    ).stdout.strip()
    wait_until(lambda: nodes_at_work(study), run)
    # What SLURM sends a minute before the end of a task's time.
    subprocess.run(["scancel", "--batch", "--signal=USR1", other], check=True)
    start_again(other, 0)
    output = run.communicate(timeout=PATIENCE_SECONDS)[0]
    assert run.returncode == 0, output
    assert f"submitted SLURM array {array}" in output
    wait_until(lambda: all(task.state in ENDED for task in tasks_of(other) or []))
    check(study, local)
