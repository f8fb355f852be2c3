"""How many workers a machine gets (mirrors scalejax/launch/cores.py)."""

import os
import subprocess
import sys

import pytest

from scalejax.config import Placement
from scalejax.launch import cores
from scalejax.launch.cores import NOT_PINNED, usable_cores, worker_cores


def test_there_is_one_worker_per_core_or_as_many_as_the_user_wants():
    assert worker_cores(None, Placement()) == usable_cores()
    assert worker_cores(1, Placement()) == usable_cores()[:1]


@pytest.mark.parametrize("devices", [-1, 100_000])
def test_more_workers_than_cores_are_refused(devices):
    count = len(usable_cores())
    with pytest.raises(ValueError, match=f"may use {count} cores; give a number from 1 to {count}"):
        worker_cores(devices, Placement())


def test_a_placement_on_several_devices_has_one_worker_on_all_cores():
    assert worker_cores(None, Placement(fsdp=2)) == [NOT_PINNED]


def test_an_accelerator_has_one_worker_unless_jax_is_told_to_use_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "ACCELERATOR_FILES", (str(tmp_path),))
    assert worker_cores(None, Placement()) == usable_cores()
    monkeypatch.delenv("JAX_PLATFORMS")
    assert worker_cores(None, Placement()) == [NOT_PINNED]


def test_no_devices_are_no_workers():
    assert worker_cores(0, Placement()) == []


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be pinned here")
def test_processes_take_different_cores_as_long_as_there_are_any(tmp_path):
    script = "from scalejax.launch.cores import take_core; print(take_core(), flush=True); input()"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=os.environ | {"TMPDIR": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(len(usable_cores()) + 1)
    ]
    cores = [int(process.stdout.readline()) for process in processes if process.stdout]
    for process in processes:
        process.communicate("\n")
    # The last one finds no free core, and shares one.
    assert set(cores) == set(usable_cores())
