"""One run on several processes (mirrors scalejax/training/distributed.py).

The processes are real and talk over gloo, as they would on several hosts.
"""

import dataclasses
import signal
import time

import numpy as np
import pytest

from scalejax.config import Measure, Model, Placement
from scalejax.training import distributed
from scalejax.training.evaluate import evaluate
from scalejax.training.loop import train
from scalejax.training.result import Result
from scalejax.training.segment import Segment, TrainingJob
from tests.training.hosts import finish, start_processes, wait_for_a_checkpoint
from tests.training.runs import curve

MEASURE = Measure(every=1280, tokens=1024, items=16)


@pytest.fixture(scope="module")
def run(tiny_run):
    """A run whose parameters four devices can split, with a batch of four sequences."""
    model = Model.sized(width=32, depth=2, head_size=8, vocabulary=32)
    data = dataclasses.replace(tiny_run.data, sequence_length=64)
    return tiny_run.replace(model=model, data=data, batch_tokens=256, tokens=60 * 256)


@pytest.fixture(scope="module")
def undisturbed(run, tmp_path_factory):
    """The run trained by this process alone: (its result's row, its curve)."""
    folder = tmp_path_factory.mktemp("alone")
    return train(run, out=folder, measure=MEASURE).row, curve(folder)


def write_job(run, folder, placement, measure=MEASURE):
    segment = Segment(run=run, start=0, stop=run.steps)
    TrainingJob(segment=segment, study="", measure=measure, placement=placement).write(folder)


def assert_same_run(folder, undisturbed):
    """Compare every loss, in training and after it, to 1e-5."""
    row, rows = undisturbed
    trained = Result.load(folder).row
    assert trained["loss"] == pytest.approx(row["loss"], rel=1e-5)
    assert trained["top1_error"] == pytest.approx(row["top1_error"], abs=0.1)
    assert [list(row) for row in curve(folder)] == [list(row) for row in rows]
    for ours, theirs in zip(curve(folder), rows, strict=True):
        names = [name for name in ("step", "tokens", "train_loss", "loss") if name in theirs]
        actual, expected = ([row[name] for name in names] for row in (ours, theirs))
        np.testing.assert_allclose(actual, expected, rtol=1e-5, err_msg=str(theirs["step"]))


@pytest.fixture
def folder(tmp_path):
    """The folder of a run in a study."""
    return tmp_path / "runs" / "run"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "devices_each", "axes"),
    [(2, 1, {"data": 2}), (2, 2, {"fsdp": 2, "tensor": 2})],
    ids=["data 2", "fsdp 2 x tensor 2"],
)
def test_several_processes_train_the_run_of_one(
    processes, devices_each, axes, run, undisturbed, folder
):
    write_job(run, folder, Placement(**axes))
    started = start_processes(folder, processes, devices_each=devices_each)
    outputs = finish(started)
    assert [process.returncode for process in started] == [0, 0], outputs
    assert_same_run(folder, undisturbed)
    # Each process wrote its part of the checkpoint, and process 0 everything else.
    files = {path.name for path in folder.iterdir()}
    assert files == {
        *("config.json", "status.json", "metrics.jsonl", "result.json", "DONE"),
        *("checkpoints", "evaluations"),
    }
    # One process on one device reads the checkpoint of several.
    write_job(run, folder, Placement())
    assert evaluate(folder)["loss"] == pytest.approx(undisturbed[0]["loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_process_dies_the_others_stop_and_a_restart_continues(
    victim, run, undisturbed, folder
):
    write_job(run, folder, Placement(data=2, checkpoint_seconds=1e-3))
    processes = start_processes(folder, 2)
    wait_for_a_checkpoint(folder, processes)
    processes[victim].kill()
    killed = time.monotonic()
    output = processes[1 - victim].communicate(timeout=60)[0]
    assert time.monotonic() - killed < 60
    assert processes[1 - victim].returncode == 75, output
    assert "error: another process of this run has stopped" in output
    assert "Traceback" not in output and not (folder / "DONE").exists()
    finish(processes)

    again = start_processes(folder, 2)
    outputs = finish(again)
    assert [process.returncode for process in again] == [0, 0], outputs
    assert_same_run(folder, undisturbed)


@pytest.mark.slow
def test_sigterm_to_one_process_stops_all_after_the_same_step(run, undisturbed, folder):
    write_job(run, folder, Placement(data=2, checkpoint_seconds=1e-3))
    processes = start_processes(folder, 2)
    wait_for_a_checkpoint(folder, processes)
    processes[1].send_signal(signal.SIGTERM)
    outputs = finish(processes)
    assert [process.returncode for process in processes] == [75, 75], outputs
    assert all("the state is saved" in output for output in outputs)
    # The number of processes may change between stop and restart.
    write_job(run, folder, Placement(checkpoint_seconds=1e-3))
    alone = start_processes(folder, 1)
    outputs = finish(alone)
    assert alone[0].returncode == 0, outputs
    assert_same_run(folder, undisturbed)
    assert Result.load(folder).row["placement_changed"]


def test_a_single_process_exchanges_nothing():
    assert distributed.is_main() and distributed.from_main({"a": [1]}) == {"a": [1]}
    assert distributed.gather(np.arange(3)).tolist() == [[0, 1, 2]]
    agreed = distributed.agree(1, stop=True, save=False, exchange=False)
    assert agreed == distributed.Agreement(stop=True, save=False)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "the processes of this job cannot be found"),
        ({distributed.PROCESSES: "2"}, f"{distributed.ADDRESS} is not: set"),
        (
            {distributed.ADDRESS: "h:1", distributed.PROCESSES: "two", distributed.PROCESS: "0"},
            "JAX_NUM_PROCESSES must be a number of processes from 0; got 'two'",
        ),
    ],
)
def test_a_job_without_processes_is_refused_with_the_variables_to_set(
    variables, message, monkeypatch
):
    for name in (distributed.ADDRESS, distributed.PROCESSES, distributed.PROCESS):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # JAX refuses before it looks for processes when a backend is in use already.
    monkeypatch.setattr("jax._src.xla_bridge.backends_are_initialized", lambda: False)
    with pytest.raises(ValueError, match=message):
        distributed.connect()
