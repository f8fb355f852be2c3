"""How many workers a machine gets (mirrors scalejax/launch/cores.py)."""

import pytest

from scalejax.config import Placement
from scalejax.launch import cores
from scalejax.launch.cores import NOT_PINNED, usable_cores, worker_cores


def test_there_is_one_worker_per_core_or_as_many_as_the_user_wants():
    assert worker_cores(None, Placement()) == usable_cores()
    assert worker_cores(1, Placement()) == usable_cores()[:1]


@pytest.mark.parametrize("devices", [0, -1, 100_000])
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
