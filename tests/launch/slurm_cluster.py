"""A real SLURM cluster of two nodes on this machine; see .ci/slurm_cluster."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "slurm_cluster"
PROGRAMS = ("slurmctld", "slurmd", "munged", "srun")


def skip_without_slurm() -> None:
    """Skip the tests of the calling file where no cluster can run."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a SLURM cluster on this machine needs Linux and root", allow_module_level=True)
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(
            f"{', '.join(missing)} missing: apt-get install slurm-wlm munge",
            allow_module_level=True,
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Callable[..., None]]:
    """A function that calls the cluster's script; two nodes run until the tests end."""
    folder = tmp_path_factory.mktemp("slurm")

    def call(verb: str, *arguments: object) -> None:
        command = [str(SCRIPT), verb, str(folder), *map(str, arguments)]
        subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)

    # The ports are always the same: one cluster at a time, over all pytest processes.
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
