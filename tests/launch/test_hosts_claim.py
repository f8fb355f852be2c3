"""What a run of several processes needs (mirrors scalejax/launch/hosts.py)."""

import hashlib
import subprocess
import time

import pytest

from scalejax.config import Measure, Placement
from scalejax.files import read_json, write_json
from scalejax.launch.claims import Claims
from scalejax.launch.hosts import LOOK_AGAIN_SECONDS
from scalejax.training.segment import Segment, TrainingJob
from tests.training.hosts import COMMAND, finish, start_processes, wait_for_a_checkpoint


def hashes(folder):
    """The hash of every file, but for temporary ones."""
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".tmp")
    }


def wait_for_a_line(process, text):
    """Read what a process prints up to a line with `text`; fail if there is none."""
    printed = []
    for line in process.stdout:
        printed.append(line)
        if text in line:
            return
    pytest.fail("".join(printed))


@pytest.mark.slow
def test_processes_wait_for_a_claim_and_stop_when_they_lose_it(tiny_run, tmp_path):
    run = tiny_run.replace(tokens=200_000 * tiny_run.batch_tokens)
    segment = Segment(run=run, start=0, stop=run.steps)
    folder = tmp_path / segment.folder
    placement = Placement(data=2, checkpoint_seconds=1e-3)
    measure = Measure(tokens=1024, items=0)
    TrainingJob(segment=segment, study="", measure=measure, placement=placement).write(folder)

    # While this process has the claim, they wait.
    claim = Claims(tmp_path).take(segment.id)
    assert claim is not None
    processes = start_processes(folder, 2)
    wait_for_a_line(processes[0], f"waiting: another process trains {segment.id}")
    time.sleep(2 * LOOK_AGAIN_SECONDS)
    assert not (folder / "status.json").exists()
    assert all(process.poll() is None for process in processes)
    claim.release()
    wait_for_a_checkpoint(folder, processes)

    # Process 0 has it now, until somebody takes it over, as after a long pause.
    path = tmp_path / "claims" / f"{segment.id}.json"
    owner = read_json(path)
    assert owner["process"] == processes[0].pid and Claims(tmp_path).take(segment.id) is None
    successor = owner | {"token": "another"}
    write_json(path, successor)
    # They notice within about a second, and end.
    processes[0].wait(timeout=30)
    before = hashes(folder)
    outputs = finish(processes, timeout=60)
    assert [process.returncode for process in processes] == [75, 75], outputs
    assert f"another process has taken over {segment.id}" in outputs[0]
    assert "Traceback" not in "".join(outputs)
    assert hashes(folder) == before and not (folder / "DONE").exists()
    assert read_json(path) == successor


@pytest.mark.parametrize("given", ["nothing", "no folder of a run", "a run without its trunk"])
def test_what_cannot_be_trained_is_one_line_and_exit_2(given, tiny_run, tmp_path):
    trunk = Segment(run=tiny_run, start=0, stop=9, final=False)
    segment = Segment(run=tiny_run, start=9, stop=tiny_run.steps, parent=trunk.folder)
    folder = tmp_path / segment.folder
    measure, placement = Measure(tokens=1024, items=0), Placement(data=2)
    for part in (trunk, segment):
        job = TrainingJob(segment=part, study="s@1", measure=measure, placement=placement)
        job.write(tmp_path / part.folder)
    arguments, message = {
        "nothing": ([], "give the folder of one run"),
        "no folder of a run": ([tmp_path], "give the folder of one run"),
        "a run without its trunk": ([folder], f"{trunk.folder}, which is not finished"),
    }[given]
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["config.json"]
