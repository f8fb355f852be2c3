"""The state of a run's folder (mirrors scalejax/training/status.py)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from scalejax.config import Measure, Placement
from scalejax.files import read_json, write_json
from scalejax.optim.schedules import constant
from scalejax.training.loop import train_segment
from scalejax.training.result import Result
from scalejax.training.segment import Segment, TrainingJob
from scalejax.training.status import Status, environment, open_folder, read_status

HERE = environment(Placement())


def opened(folder, placement: Placement, *, population: int = 1, **options: Any) -> Status:
    """Open a folder as a process would that continues what is in it."""
    here = environment(placement, population)
    return open_folder(folder, read_status(folder), "hash", here, **options)


@pytest.mark.parametrize(
    ("fields", "population", "changed"),
    [
        ({}, 1, False),
        # None of these changes a bit of a step.
        ({"checkpoint_seconds": 1.0, "population": 4, "track": "wandb"}, 1, False),
        ({}, 2, True),
        ({"data": 2}, 1, True),
        ({"accumulate": 2}, 1, True),
        ({"remat": "dots"}, 1, True),
        ({"scan_layers": True}, 1, True),
    ],
    ids=str,
)
def test_a_run_that_is_continued_under_another_placement_is_flagged(
    fields: Mapping[str, Any], population, changed, tmp_path
):
    assert not opened(tmp_path, Placement())["placement_changed"]
    placement = Placement(**fields)
    assert opened(tmp_path, placement, population=population)["placement_changed"] == changed
    # Going back does not undo it.
    assert opened(tmp_path, Placement())["placement_changed"] == changed


def test_a_mesh_of_another_shape_on_the_same_devices_is_another_placement(tmp_path):
    opened(tmp_path, Placement(fsdp=2))
    assert opened(tmp_path, Placement(tensor=2))["placement_changed"]


def test_the_devices_are_those_of_the_mesh_not_all_that_the_process_sees():
    kind = HERE["devices"].partition(" x ")[2]
    assert HERE["devices"] == f"1 x {kind}"
    assert environment(Placement(data=2, tensor=3))["devices"] == f"6 x {kind}"


def test_an_evaluation_of_a_trained_run_leaves_the_devices_that_trained_it(tmp_path):
    opened(tmp_path, Placement(fsdp=4))
    again = opened(tmp_path, Placement(), is_trained=True)
    assert again["placement"] == environment(Placement(fsdp=4))
    assert not again["placement_changed"]


def test_a_branch_under_another_placement_than_its_trunk_is_flagged(tiny_run, tmp_path):
    run = tiny_run.replace(schedule=constant(warmup=0), tokens=4 * tiny_run.batch_tokens)
    trunk = Segment(run=run, start=0, stop=2, final=False)
    branch = Segment(run=run, start=2, stop=4, parent=trunk.folder)
    measure = Measure(tokens=64, items=0)
    job = TrainingJob(segment=trunk, study="s@1", measure=measure, placement=Placement())
    job.write(tmp_path / trunk.folder)
    train_segment(job, tmp_path / trunk.folder, None)
    for placement, changed in [(Placement(), False), (Placement(accumulate=2), True)]:
        folder = tmp_path / f"changed-{changed}"
        job = dataclasses.replace(job, segment=branch, placement=placement)
        job.write(folder)
        train_segment(job, folder, tmp_path / trunk.folder)
        row = Result.load(folder).row
        assert (row["placement_changed"], row["devices"]) == (changed, HERE["devices"])
    # What has changed once, in the trunk or above it, has changed for all its branches.
    status = read_status(tmp_path / trunk.folder)
    assert status is not None
    status["placement_changed"] = True
    assert opened(tmp_path, Placement(), trunk=status)["placement_changed"]


@pytest.mark.parametrize("devices", [None, 8, "cpu", "0 x cpu", "x cpu"])
def test_a_status_with_damaged_devices_is_refused(devices, tmp_path):
    opened(tmp_path, Placement())
    content = read_json(tmp_path / "status.json")
    content["placement"]["devices"] = devices
    write_json(tmp_path / "status.json", content)
    with pytest.raises(ValueError, match=r"status\.json is damaged: its field devices"):
        read_status(tmp_path)
