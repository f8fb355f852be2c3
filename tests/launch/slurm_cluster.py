"""A real SLURM cluster of two nodes on this machine; see .ci/slurm_cluster."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scalejax.files import read_json
from scalejax.launch.clusters.slurm import tasks_of
from tests.launch.clusters.launchers import wait_until

SCRIPT = Path(__file__).parents[2] / ".ci" / "slurm_cluster"
PROGRAMS = ("slurmctld", "slurmd", "munged", "srun")


def why_no_slurm() -> str:
    """Why no cluster can run here, or ""."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a SLURM cluster on this machine needs Linux and root"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"{', '.join(missing)} missing: apt-get install slurm-wlm munge" if missing else ""


def skip_without_slurm() -> None:
    """Skip the tests of the calling file where no cluster can run."""
    if reason := why_no_slurm():
        pytest.skip(reason, allow_module_level=True)


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[Callable[..., None]]:
    """A function that calls the cluster's script; two nodes run during the block."""

    def call(verb: str, *arguments: object) -> None:
        command = [str(SCRIPT), verb, str(folder), *map(str, arguments)]
        subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)

    # The ports are always the same: one cluster at a time, over all processes.
    lock = Path(tempfile.gettempdir()) / "scalejax-slurm-tests.lock"
    with lock.open("w") as file, pytest.MonkeyPatch.context() as environment:
        fcntl.flock(file, fcntl.LOCK_EX)
        environment.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        # As on machines of one device each.
        environment.setenv("XLA_FLAGS", "")
        try:
            call("start", 2)
            yield call
        finally:
            call("stop")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Callable[..., None]]:
    """See `two_nodes`."""
    with two_nodes(tmp_path_factory.mktemp("slurm")) as call:
        yield call


def nodes_at_work(study: Path) -> dict[str, str]:
    """The node of every process that has a claim, by its task as ARRAY_TASK."""
    found = {}
    for claim in study.glob("claims/*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            process = read_json(claim)["process"]
            content = Path(f"/proc/{process}/environ").read_text()
            environment = dict(item.split("=", 1) for item in content.split("\0") if "=" in item)
            task = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
            found[task] = environment["SLURMD_NODENAME"]
    return found


def start_again(task: str) -> None:
    """Spare a requeued task, as ARRAY_TASK, the two minutes that SLURM lets it wait."""
    array = task.partition("_")[0]
    wait_until(
        lambda: any(
            other.id == task and other.state == "PENDING" for other in tasks_of(array) or []
        )
    )
    # A node refuses a task that starts within the second in which it was taken away.
    time.sleep(5)
    subprocess.run(["scontrol", "update", f"JobId={task}", "StartTime=now"], check=True)


def array_of(study: Path) -> str:
    """The id of the array that a launcher has submitted for a study."""
    return read_json(study / "slurm.json")["array"]
