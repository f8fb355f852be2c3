"""A study on a real Ray cluster (mirrors scalejax/launch/clusters/ray_cluster.py).

The machines of the cluster are processes of this one. `make test-ray` runs the file.
"""

import contextlib
import importlib.util
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from scalejax.config import Measure, Placement
from scalejax.launch.clusters.ray_cluster import PROCESS_BYTES, resources
from scalejax.model.memory import device_bytes, state_bytes
from scalejax.optim.averaging import ema
from scalejax.study.experiment import load_study
from scalejax.study.plan import plan
from scalejax.training.segment import Segment, TrainingJob
from tests.launch.clusters.launchers import PATIENCE_SECONDS, end, wait_until
from tests.launch.clusters.ray_machines import (
    add_machine,
    machine_of,
    owners,
    parent,
    ray_settings,
    two_machines,
)
from tests.launch.clusters.studies import EXPERIMENT, RUNS, curves, losses

SCALEJAX = [sys.executable, "-m", "scalejax.cli"]


def on_a_cluster(test):
    """Mark a test that starts Ray."""
    missing = importlib.util.find_spec("ray") is None or sys.platform != "linux"
    reason = "needs Linux and ray: make test-ray"
    return pytest.mark.slow(pytest.mark.skipif(missing, reason=reason)(test))


@pytest.fixture
def environment(monkeypatch):
    """Settings for processes of Ray that this test starts."""
    ray_settings(monkeypatch)
    return monkeypatch


@pytest.fixture
def cluster(environment):
    """See `two_machines`."""
    with two_machines(environment) as cluster:
        yield cluster


@pytest.fixture
def launch(tmp_path):
    """Start `scalejax run` on Ray; what is left of it ends after the test."""
    with contextlib.ExitStack() as stack:

        def start(experiment):
            process = subprocess.Popen(
                [*SCALEJAX, "run", experiment, "--out", tmp_path / "ray", "--executor", "ray"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.callback(end, process)
            return process

        yield start


def trained(cluster):
    """How often a task said that it has trained a segment, by the segment."""
    logs = Path(cluster.head_node.get_session_dir_path(), "logs").glob("worker-*.err")
    text = "".join(log.read_text() for log in logs)
    return Counter(re.findall(r"^(\w+/\w{16}) done$", text, re.MULTILINE))


@on_a_cluster
def test_a_study_is_stopped_and_continues_on_a_cluster_that_shrinks_and_grows(
    cluster, launch, tmp_path
):
    experiment = tmp_path / "tiny.py"
    experiment.write_text(EXPERIMENT)
    study, local = tmp_path / "ray" / "tiny@1", tmp_path / "local" / "tiny@1"

    # Both machines train. SIGTERM lets them save.
    run = launch(experiment)
    wait_until(lambda: len(owners(study)) == 2, run)
    wait_until(lambda: len(list(study.glob("trunks/*/metrics.jsonl"))) == 2, run)
    run.send_signal(signal.SIGTERM)
    output = run.communicate(timeout=PATIENCE_SECONDS)[0]
    assert run.returncode == 75, output
    assert len(list(study.glob("trunks/*/checkpoints/*.json"))) >= 2, "nothing was saved"
    assert list((study / "claims").iterdir()) == []

    # The same command continues. A machine is lost while it trains, and another joins.
    run = launch(experiment)
    process = next(iter(wait_until(lambda: owners(study), run).values()))
    cluster.remove_node(machine_of(process, cluster), allow_graceful=False)
    add_machine(cluster)
    output = run.communicate(timeout=PATIENCE_SECONDS)[0]
    assert run.returncode == 0, output
    assert not Path(f"/proc/{process}").exists()

    command = [*SCALEJAX, "run", experiment, "--out", tmp_path / "local", "--devices", "1"]
    subprocess.run(command, check=True)
    assert len(losses(study)) == RUNS and losses(study) == losses(local)
    assert curves(study) == curves(local)
    folders = [str(done.parent.relative_to(study)) for done in study.glob("*/*/DONE")]
    assert len(folders) > RUNS and trained(cluster) == dict.fromkeys(folders, 1)
    assert list((study / "claims").iterdir()) == []


@on_a_cluster
def test_a_local_cluster_is_started_and_a_failed_trunk_fails_its_branches(
    environment, launch, tmp_path
):
    experiment = tmp_path / "tiny.py"
    experiment.write_text(EXPERIMENT.replace("000, ", "0, ").replace("000]", "0]"))
    segments = plan(load_study(str(experiment))[0]).segments
    study = tmp_path / "ray" / "tiny@1"
    # A file where the checkpoints of one trunk belong.
    broken = next(segment for segment in segments if not segment.final)
    (study / broken.folder).mkdir(parents=True)
    (study / broken.folder / "checkpoints").write_text("")

    run = launch(experiment)
    process = next(iter(wait_until(lambda: owners(study), run).values()))
    machine = parent(process)
    output = run.communicate(timeout=PATIENCE_SECONDS)[0]
    assert run.returncode == 1 and "Traceback" not in output, output
    assert f"{broken.folder}, from which it begins, failed" in output
    # The other chain is trained, and the cluster has ended.
    assert len(losses(study)) == RUNS // 2
    assert not Path(f"/proc/{machine}").exists()


def test_a_task_asks_for_cores_or_accelerators_and_for_memory(tiny_run):
    segment = Segment(run=tiny_run, start=0, stop=tiny_run.steps)
    measure, placement = Measure(averages=(ema(half_life_tokens=640),)), Placement(fsdp=4)
    job = TrainingJob(segment=segment, study="", measure=measure, placement=placement)
    host = PROCESS_BYTES + state_bytes(tiny_run, 1)
    on_gpus = resources(job, {"CPU": 64.0, "GPU": 8.0})
    assert on_gpus == {"num_cpus": 1, "num_gpus": 4, "memory": host}
    on_tpus = resources(job, {"CPU": 64.0, "TPU": 8.0})
    assert on_tpus == {"num_cpus": 1, "resources": {"TPU": 4}, "memory": host}
    arrays = 4 * device_bytes(tiny_run, placement, 1)
    assert resources(job, {"CPU": 64.0}) == {"num_cpus": 4, "memory": host + arrays}
