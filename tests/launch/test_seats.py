"""How many workers a machine gets (mirrors scalejax/launch/seats.py)."""

import os
import subprocess
import sys

import pytest

from scalejax.config import Placement
from scalejax.launch import seats as module
from scalejax.launch.seats import NOT_PINNED, Seat, take_seat, usable_cores, worker_seats


@pytest.fixture
def devices(tmp_path, monkeypatch):
    """Make a machine that has the device files with these names, and no others."""
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "DEVICES", tmp_path / "dev")
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))

    def make(*names):
        for name in names:
            path = tmp_path / "dev" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    return make


def cores(seats):
    return [seat.core for seat in seats]


def test_there_is_one_worker_per_core_or_as_many_as_the_user_wants():
    assert cores(worker_seats(None, Placement())) == usable_cores()
    assert cores(worker_seats(1, Placement())) == usable_cores()[:1]


@pytest.mark.parametrize("devices", [-1, 100_000])
def test_more_workers_than_cores_are_refused(devices):
    count = len(usable_cores())
    with pytest.raises(ValueError, match=f"may use {count} cores; give a number from 1 to {count}"):
        worker_seats(devices, Placement())


def test_a_placement_on_several_virtual_devices_has_one_worker_on_all_cores():
    assert cores(worker_seats(None, Placement(fsdp=2))) == [NOT_PINNED]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", {"XLA_FLAGS": "--xla_force_host_platform_device_count=6"}),
        ("--a=1", {"XLA_FLAGS": "--a=1 --xla_force_host_platform_device_count=6"}),
        ("--xla_force_host_platform_device_count=8", {}),
    ],
)
def test_a_worker_on_a_cpu_sees_as_many_devices_as_its_placement_needs(
    flags, expected, monkeypatch
):
    monkeypatch.setattr(module.os, "environ", os.environ | {"XLA_FLAGS": flags})
    placement = Placement(fsdp=2, tensor=3)
    (seat,) = worker_seats(None, placement)
    assert seat.environment == expected and seat.core == NOT_PINNED
    assert take_seat(placement) == seat
    assert module.os.environ["XLA_FLAGS"] == expected.get("XLA_FLAGS", flags)


def test_a_limit_that_a_placement_on_several_devices_would_exceed_is_refused(devices):
    with pytest.raises(ValueError, match="--devices 1 is not used by a placement on 2 virtual"):
        worker_seats(1, _mesh(2))
    devices(*(f"nvidia{number}" for number in range(8)))
    with pytest.raises(ValueError, match=r"a run of this study uses 4 .* give a multiple of 4"):
        worker_seats(2, _mesh(4))
    assert len(worker_seats(4, _mesh(4))) == 1 and len(worker_seats(8, _mesh(4))) == 2


def test_no_devices_are_no_workers():
    assert worker_seats(0, Placement()) == []


def test_eight_gpus_are_eight_workers_that_see_one_each(devices):
    # The control devices of the driver are no GPUs.
    devices(*(f"nvidia{number}" for number in range(8)), "nvidiactl", "nvidia-uvm")
    seats = worker_seats(None, Placement())
    assert [seat.environment for seat in seats] == [
        {"CUDA_VISIBLE_DEVICES": str(number)} for number in range(8)
    ]
    assert len({seat.name for seat in seats}) == 8 and set(cores(seats)) == {NOT_PINNED}
    assert len(worker_seats(3, Placement())) == 3


def test_gpus_are_shared_out_in_groups_as_large_as_the_placement(devices):
    devices(*(f"nvidia{number}" for number in range(8)))
    groups = [seat.environment["CUDA_VISIBLE_DEVICES"] for seat in worker_seats(None, _mesh(3))]
    assert groups == ["0,1,2", "3,4,5"]
    # A placement on all GPUs has one worker from which none is hidden.
    assert worker_seats(None, _mesh(8)) == [Seat("0")]


def _mesh(devices):
    return Placement(fsdp=devices)


def test_a_placement_on_more_devices_than_there_are_is_refused(devices, monkeypatch):
    flag = "--xla_force_host_platform_device_count"
    monkeypatch.setenv("XLA_FLAGS", f"{flag}=8 {flag}=2")
    with pytest.raises(ValueError, match=r"divides the CPU into 2 devices, but .* uses 4"):
        worker_seats(None, _mesh(4))
    devices(*(f"nvidia{number}" for number in range(8)))
    with pytest.raises(ValueError, match=r"uses 16 accelerators .* may use 8"):
        worker_seats(None, _mesh(16))


def test_only_the_gpus_that_a_scheduler_gave_are_used(devices, monkeypatch):
    devices(*(f"nvidia{number}" for number in range(8)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5,GPU-7")
    groups = [seat.environment for seat in worker_seats(None, Placement())]
    assert groups == [{"CUDA_VISIBLE_DEVICES": "GPU-5"}, {"CUDA_VISIBLE_DEVICES": "GPU-7"}]
    with pytest.raises(ValueError, match="may use 2 accelerators; give a number from 1 to 2"):
        worker_seats(3, Placement())


@pytest.mark.parametrize("folder", ["accel", "vfio/"])
def test_tpu_chips_are_hidden_with_the_bounds_of_a_process(folder, devices):
    devices(*(f"{folder}{number}" for number in range(8)), "vfio/vfio")
    one, four = worker_seats(None, Placement()), worker_seats(None, _mesh(4))
    assert len(one) == 8 and len(four) == 2
    assert four[1].environment == {
        "TPU_VISIBLE_CHIPS": "4,5,6,7",
        "TPU_CHIPS_PER_PROCESS_BOUNDS": "2,2,1",
        "TPU_PROCESS_BOUNDS": "1,1,1",
    }
    with pytest.raises(ValueError, match="needs 3 of the TPU chips"):
        worker_seats(None, _mesh(3))


def test_accelerators_are_not_used_when_jax_is_told_to_use_the_cpu(devices, monkeypatch):
    devices("nvidia0", "nvidia1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert cores(worker_seats(None, Placement())) == usable_cores()


def test_workers_of_a_folder_take_different_gpus_and_no_more_than_there_are(devices, monkeypatch):
    devices("nvidia0", "nvidia1")
    # Taken seats change the environment; here, in one process, the choice stays.
    monkeypatch.setattr(module.os, "environ", dict(os.environ))
    first = take_seat(Placement())
    assert module.os.environ["CUDA_VISIBLE_DEVICES"] == "0" and first.name == "0"
    del module.os.environ["CUDA_VISIBLE_DEVICES"]
    assert take_seat(Placement()).name == "1"
    del module.os.environ["CUDA_VISIBLE_DEVICES"]
    with pytest.raises(ValueError, match="each of the 2 accelerators"):
        take_seat(Placement())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be pinned here")
def test_processes_take_different_cores_as_long_as_there_are_any(tmp_path):
    script = (
        "from scalejax.launch.seats import take_seat; "
        "from scalejax.config import Placement; "
        "print(take_seat(Placement()).core, flush=True); input()"
    )
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
