"""A study on a real Ray cluster (mirrors scalejax/launch/clusters/ray_cluster.py)."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scalejax.files import read_json
from tests.launch.clusters.studies import EXPERIMENT, RUNS, curves, losses

pytest.importorskip("ray", reason="ray is not installed: make test-ray")
pytestmark = pytest.mark.ray
SCALEJAX = [sys.executable, "-m", "scalejax.cli"]


@pytest.fixture
def cluster(monkeypatch):
    """Two machines of one core beside a head without any; each is a raylet."""
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("XLA_FLAGS", "")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.nodes = [add_node(cluster), add_node(cluster)]
    yield cluster
    cluster.shutdown()


def add_node(cluster):
    return cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(EXPERIMENT)
    return path


def start(experiment, out, *flags):
    return subprocess.Popen(
        [*SCALEJAX, "run", experiment, "--out", out, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def owners_of(study):
    """The ids of the processes that train."""
    found = []
    for claim in study.glob("claims/*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            found.append(read_json(claim)["process"])
    return found


def raylet_of(process):
    """The process that started one of Ray's worker processes."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_study_uses_a_cluster_that_shrinks_and_grows(cluster, experiment, tmp_path, monkeypatch):
    local = [*SCALEJAX, "run", experiment, "--out", tmp_path / "local", "--devices", "1"]
    subprocess.run(local, check=True)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    study = tmp_path / "ray" / "tiny@1"
    run = start(experiment, tmp_path / "ray", "--executor", "ray")
    while not (processes := owners_of(study)):
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.05)
    # The machine that trains is lost. Another one joins.
    raylet = raylet_of(processes[0])
    (lost,) = (
        node
        for node in cluster.nodes
        if raylet in [info.process.pid for info in node.all_processes["raylet"]]
    )
    cluster.remove_node(lost, allow_graceful=False)
    assert not Path(f"/proc/{processes[0]}").exists() or raylet_of(processes[0]) != raylet
    add_node(cluster)
    output = run.communicate(timeout=600)[0]
    assert run.returncode == 0, output
    assert len(losses(study)) == RUNS and losses(study) == losses(tmp_path / "local" / "tiny@1")
    assert curves(study) == curves(tmp_path / "local" / "tiny@1")
    assert list((study / "claims").iterdir()) == []


def test_sigterm_saves_and_a_failed_trunk_fails_its_branches(experiment, tmp_path, monkeypatch):
    # A cluster of this machine, which `run` starts and ends.
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("XLA_FLAGS", "")
    study = tmp_path / "tiny@1"
    run = start(experiment, tmp_path, "--executor", "ray")
    while not owners_of(study):
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.05)
    run.terminate()
    output = run.communicate(timeout=200)[0]
    assert run.returncode == 75, output
    assert list(study.glob("*/*/checkpoints/*.json")), "nothing was saved"
    assert not [process for process in owners_of(study) if os.path.exists(f"/proc/{process}")]

    # The trunk in training when it was stopped has lost all of its checkpoints.
    for record in study.glob("*/*/checkpoints/*.json"):
        record.write_text("{}")
    run = start(experiment, tmp_path, "--executor", "ray")
    output = run.communicate(timeout=600)[0]
    assert run.returncode == 1, output
    assert "no checkpoint can be used" in output and "its trunk" in output
