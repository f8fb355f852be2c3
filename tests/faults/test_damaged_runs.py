"""A stopped run whose folder is damaged: it ends with the right bits, or is refused.

Faults F08, F09, F11 and F15: files that are cut, emptied, deleted, swapped or edited
between stop and resume.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from scalejax.config import Data, Measure, Placement, Schedule
from scalejax.grids import run_id
from scalejax.training import checkpoint
from scalejax.training.loop import Preempted, train, train_segment
from scalejax.training.segment import Segment, TrainingJob
from tests.training.damage import cut_largest_array, file_of_largest_array, flip_a_bit
from tests.training.runs import curve, reproducible_row, stop_after

# When a read fails, orbax drops a coroutine that was never awaited, and Python warns.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def train_in_parts(run, measure, folder, *steps):
    """Train `run` in `folder` and stop, with a checkpoint, after each of `steps`."""
    job = TrainingJob(
        segment=Segment(run=run, start=0, stop=run.steps),
        study="",
        measure=measure,
        placement=Placement(),
    )
    job.write(folder)
    for count in steps:
        with pytest.raises(Preempted):
            train_segment(job, folder, None, stopping=stop_after(count))


@pytest.fixture(scope="module")
def undisturbed(tiny_run, tiny_measure, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return reproducible_row(train(tiny_run, out=folder, measure=tiny_measure)), curve(folder)


@pytest.fixture(scope="module")
def stopped(tiny_run, tiny_measure, tmp_path_factory):
    """A run that was stopped after 25 and 45 of its 60 steps."""
    folder = tmp_path_factory.mktemp("stopped")
    train_in_parts(tiny_run, tiny_measure, folder, 25, 20)
    assert checkpoint.steps(folder / "checkpoints") == [25, 45]
    return folder


@pytest.fixture
def patient(stopped, tmp_path):
    """A copy of the stopped run, to be damaged."""
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def rename_a_step(checkpoints):
    """An old state under a newer step would repeat and skip data."""
    (checkpoints / "25").rename(checkpoints / "50")
    (checkpoints / "25.json").rename(checkpoints / "50.json")


def edit_record(checkpoints, **changes):
    path = checkpoints / "45.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGES = {
    "values cut": lambda folder: cut_largest_array(folder / "45"),
    "values emptied": lambda folder: file_of_largest_array(folder / "45").write_bytes(b""),
    "values deleted": lambda folder: file_of_largest_array(folder / "45").unlink(),
    "a bit flipped": lambda folder: flip_a_bit(folder / "45"),
    "index damaged": lambda folder: (folder / "45" / "manifest.ocdbt").write_bytes(bytes(115)),
    "step folder emptied": lambda folder: [shutil.rmtree(folder / "45"), (folder / "45").mkdir()],
    "step renamed": rename_a_step,
    "record emptied": lambda folder: (folder / "45.json").write_text(""),
    "record of another type": lambda folder: (folder / "45.json").write_text("[]"),
    "record not text": lambda folder: (folder / "45.json").write_bytes(b"\xff\xfe\x00"),
    "record without arrays": lambda folder: edit_record(folder, arrays=None),
    "record with other notes": lambda folder: edit_record(folder, notes={}),
    "record of another format": lambda folder: edit_record(folder, format=0),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(
    damage, patient, undisturbed, tiny_run, tiny_measure, caplog
):
    damage(patient / "checkpoints")
    result = train(tiny_run, out=patient, measure=tiny_measure)
    assert (reproducible_row(result), curve(patient)) == undisturbed
    assert "checkpoint passed over" in caplog.text and str(patient) in caplog.text
    assert "tensorstore_spec" not in caplog.text, "TensorStore's settings help no reader"


def test_a_sound_run_resumes_without_a_warning(
    patient, undisturbed, tiny_run, tiny_measure, caplog
):
    (patient / "checkpoints" / "²").mkdir()
    (patient / "checkpoints" / "².json").write_text("{}")
    result = train(tiny_run, out=patient, measure=tiny_measure)
    assert (reproducible_row(result), curve(patient)) == undisturbed
    assert "checkpoint" not in caplog.text


def test_checkpoints_of_another_run_of_equal_shapes_are_refused_by_name(
    patient, tiny_run, tiny_measure, tmp_path
):
    other = tiny_run.replace(seed=1)
    train_in_parts(other, tiny_measure, tmp_path / "other", 25)
    shutil.rmtree(patient / "checkpoints")
    (tmp_path / "other" / "checkpoints").rename(patient / "checkpoints")
    message = f"belongs to run {run_id(other)}, not to {run_id(tiny_run)}"
    with pytest.raises(checkpoint.CheckpointError, match=message):
        train(tiny_run, out=patient, measure=tiny_measure)


LOSSES = {
    "folder": lambda folder: shutil.rmtree(folder),
    "steps": lambda folder: [shutil.rmtree(folder / step) for step in ("25", "45")],
    "records": lambda folder: [(folder / f"{step}.json").unlink() for step in ("25", "45")],
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_a_run_whose_checkpoints_are_gone_does_not_start_over_silently(
    lose, patient, tiny_run, tiny_measure
):
    lose(patient / "checkpoints")
    with pytest.raises(checkpoint.CheckpointError, match=r"trained to step 45.* are gone"):
        train(tiny_run, out=patient, measure=tiny_measure)


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_over(
    patient, undisturbed, tiny_run, tiny_measure
):
    shutil.rmtree(patient / "checkpoints")
    status = json.loads((patient / "status.json").read_text())
    (patient / "status.json").write_text(json.dumps(status | {"saved": 0}))
    result = train(tiny_run, out=patient, measure=tiny_measure)
    assert (reproducible_row(result), curve(patient)) == undisturbed


def test_a_branch_of_a_trunk_without_checkpoints_does_not_start_from_step_0(
    tiny_run, tiny_measure, tmp_path
):
    run = tiny_run.replace(schedule=Schedule(shape="constant", warmup=640))
    trunk = Segment(run=run, start=0, stop=40, final=False)
    branch = Segment(run=run, start=40, stop=60, parent=trunk.folder)
    for segment in (trunk, branch):
        job = TrainingJob(segment=segment, study="", measure=tiny_measure, placement=Placement())
        job.write(tmp_path / segment.folder)
        if segment == trunk:
            train_segment(job, tmp_path / trunk.folder, None)
    shutil.rmtree(tmp_path / trunk.folder / "checkpoints")
    with pytest.raises(checkpoint.CheckpointError, match=f"{trunk.id} has no checkpoint; delete"):
        train_segment(job, tmp_path / branch.folder, tmp_path / trunk.folder)
    assert not (tmp_path / branch.folder / "metrics.jsonl").exists()


METRICS_DAMAGES = {
    "deleted": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:150]),
    "a digit changed": lambda path: path.write_text(path.read_text().replace("3.", "2.", 1)),
    "a row added": lambda path: path.write_text('{"step": 1}\n' + path.read_text()),
    "NUL bytes": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("damage", METRICS_DAMAGES.values(), ids=METRICS_DAMAGES)
def test_a_run_whose_curve_is_damaged_is_refused(damage, patient, tiny_run, tiny_measure):
    damage(patient / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"metrics\.jsonl has lost or changed rows"):
        train(tiny_run, out=patient, measure=tiny_measure)


@pytest.mark.parametrize("content", ["", "{}", '{"format": 1}', '{"format": 1, "started": 5}'])
def test_a_damaged_status_is_refused_by_name(content, patient, tiny_run, tiny_measure):
    (patient / "status.json").write_text(content)
    with pytest.raises(ValueError, match=r"status\.json is"):
        train(tiny_run, out=patient, measure=tiny_measure)


def test_data_that_changed_between_stop_and_resume_are_refused(tiny_run, tmp_path):
    def write(first_letter):
        words = "".join(chr(ord(first_letter) + (i * i) % 7) for i in range(4000))
        path.write_text("".join(json.dumps({"text": words[i:] + str(i)}) + "\n" for i in range(60)))

    path, folder = tmp_path / "mine.jsonl", tmp_path / "run"
    data = Data(source=str(path), tokenizer="byte", sequence_length=16)
    model = dataclasses.replace(tiny_run.model, vocabulary=257)
    run, measure = tiny_run.replace(model=model, data=data), Measure(tokens=1024, items=0)
    write("a")
    train_in_parts(run, measure, folder, 25)
    before = json.loads((folder / "status.json").read_text())["data_hash"]
    write("A")
    with pytest.raises(ValueError, match=f"with the hash {before}, but the data at hand have"):
        train(run, out=folder, measure=measure)
    write("a")
    finished = train(run, out=folder, measure=measure)
    assert finished.row["data_hash"] == before
    write("A")
    with pytest.raises(ValueError, match="restore the earlier data, or train in another folder"):
        train(run, out=folder, measure=measure)
