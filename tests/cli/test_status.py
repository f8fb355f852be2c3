"""`scalejax status` (mirrors scalejax/cli/status.py)."""

import json
import signal
import subprocess
import sys

import pytest

from scalejax.cli import status as module
from scalejax.files import write_json
from scalejax.launch.jobs import write_jobs
from scalejax.study.plan import plan
from scalejax.study.study import Study
from tests.cli.test_main import WITH_CTRL_C


@pytest.fixture
def study(tiny_run, tmp_path):
    """The folder of a planned study of two runs, of which none has started."""
    planned = plan(Study("s@1", [tiny_run, tiny_run.replace(seed=1)]))
    (tmp_path / "s@1").mkdir()
    write_jobs(tmp_path / "s@1", planned.jobs(planned.study.runs))
    for segment in planned.segments:
        (tmp_path / "s@1" / segment.folder).mkdir(parents=True)
    return tmp_path / "s@1"


def fail(study):
    for folder in (study / "runs").iterdir():
        write_json(folder / "failed.json", {"error": "ValueError: no data"})


def test_a_folder_has_a_status_as_text_and_as_json(study, call):
    code, out, _ = call("status", study)
    assert code == 0 and "2 waiting; 0% of the FLOPs" in out and "seed" in out
    code, out, _ = call("status", study, "--json")
    assert code == 0 and json.loads(out)["totals"] == {"waiting": 2}


def test_a_folder_that_is_no_study_is_exit_2(tmp_path, call):
    code, out, err = call("status", tmp_path)
    assert code == 2 and "has no jobs.json" in err and not out


def test_watching_ends_when_no_run_is_left_and_prints_changes_to_a_pipe(study, call, monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda _: fail(study))
    code, out, _ = call("status", study, "--watch")
    first, _, second = out.partition("seed")
    assert code == 0 and "2 waiting" in first and "\x1b" not in out
    assert second.count(": failed") == 2 and "2 failed; 100% of the FLOPs" in second


def test_ctrl_c_ends_watching_with_130(study):
    arguments = [sys.executable, "-c", WITH_CTRL_C, "status", str(study), "--watch"]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout and command.stderr
        assert "2 waiting" in command.stdout.readline()
        command.send_signal(signal.SIGINT)
        assert command.wait(60) == 130 and "Traceback" not in command.stderr.read()
