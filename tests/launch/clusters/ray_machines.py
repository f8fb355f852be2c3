"""A real Ray cluster, whose machines are processes of this one."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scalejax.files import read_json

# Ray has no types.
Cluster = Any


def ray_settings(environment: pytest.MonkeyPatch) -> None:
    """Set what processes of Ray read when they start."""
    # On a busy machine the helpers of a node take long to start, and workers of Ray,
    # which are nicer than other processes, would get no time.
    environment.setenv("RAY_agent_register_timeout_ms", "300000")
    environment.setenv("RAY_worker_niceness", "0")
    environment.setenv("RAY_enable_metrics_collection", "0")
    environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
    environment.delenv("RAY_ADDRESS", raising=False)
    # Other tests need eight virtual devices, and each of these runs one.
    environment.setenv("XLA_FLAGS", "")


@contextlib.contextmanager
def two_machines(environment: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head that trains nothing, and two machines of one core, for the block."""
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    environment.setenv("RAY_ADDRESS", cluster.address)
    try:
        add_machine(cluster)
        add_machine(cluster)
        yield cluster
    finally:
        cluster.shutdown()


def add_machine(cluster: Cluster, attempts: int = 3) -> None:
    """Start a machine of one core."""
    try:
        cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    except Exception:  # Ray waits 30 s for it, which a busy computer can exceed.
        if attempts == 1:
            raise
        add_machine(cluster, attempts - 1)


def owners(study: Path) -> dict[str, int]:
    """The processes that train, by the id of their segment."""
    found = {}
    for claim in study.glob("claims/*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            found[claim.stem] = read_json(claim)["process"]
    return found


def parent(process: int) -> int:
    """The process that started another one; for a worker of Ray, its machine."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def machine_of(process: int, cluster: Cluster) -> Any:
    """The machine of the cluster on which a worker of Ray runs."""
    raylets = {
        machine.all_processes["raylet"][0].process.pid: machine for machine in cluster.worker_nodes
    }
    return raylets[parent(process)]
