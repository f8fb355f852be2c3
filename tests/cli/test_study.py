"""`scalejax plan` and `run` (mirrors scalejax/cli/study.py)."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

EXPERIMENT = '''"""A question?"""
from scalejax import Data, Measure, Model, Optimizer, Run, Study, cosine

run = Run(
    model=Model.sized(width=16, depth=1, head_size=8, vocabulary=32),
    data=Data(source="synthetic:32", tokenizer="own", sequence_length=16),
    optimizer=Optimizer(learning_rate=0.01),
    schedule=cosine(warmup=0),
    tokens=640,
    batch_tokens=64,
)
study = Study("one@1", [run], measure=Measure(items=0))
'''


@pytest.fixture
def experiment(tmp_path):
    """Write one.py, with some of its text replaced, and return its path."""

    def write(*changes):
        text = EXPERIMENT
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "one.py").write_text(text)
        return tmp_path / "one.py"

    return write


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("learning_rate=0.01", "learning_rat=0.01"), "learning_rat"),
        (
            ("learning_rate=0.01", "learning_rate=-0.01"),
            "Optimizer.learning_rate must be in (0, inf)",
        ),
        (("width=16", "width=20"), "heads do not divide"),
        (("tokens=640,", "tokens=60,"), "at least one batch of 64 tokens"),
        (("synthetic:32", "no/such/corpus"), "is not a known source"),
        (("synthetic:32", "synthetic:many"), "synthetic:V"),
        (("vocabulary=32", "vocabulary=31"), "set it to 32"),
        (("study = Study(", "other = Study("), "does not assign `study`"),
        (('"one@1"', '"one"'), "name@version"),
        (("sequence_length=16", "sequence_length=9_000_000"), "multiple of Data.sequence_length"),
    ],
)
def test_a_bad_experiment_is_exit_2_and_nothing_is_written(
    change, message, call, experiment, tmp_path
):
    code, out, err = call("run", experiment(change), "--out", tmp_path / "out")
    assert code == 2 and message in err and not out and "Traceback" not in err
    assert len(err.strip().splitlines()[-1]) > 20 and not (tmp_path / "out").exists()


def test_the_message_about_text_that_is_not_utf8_names_the_byte(call, experiment, tmp_path):
    (tmp_path / "text.txt").write_bytes(b"good \xff bad")
    path = experiment(
        (
            'source="synthetic:32", tokenizer="own"',
            f'source="{tmp_path / "text.txt"}", tokenizer="byte"',
        )
    )
    code, _, err = call("run", path, "--out", tmp_path / "out")
    assert code == 2 and "byte 5" in err and not (tmp_path / "out").exists()


def test_plan_prints_one_json_object_and_trains_nothing(call, experiment, tmp_path):
    code, out, _ = call("plan", experiment(), "--json")
    assert code == 0 and json.loads(out)["runs"] == 1 and json.loads(out)["saved_fraction"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.py"]


def test_next_runs_need_a_budget_and_finished_runs(call, experiment, tmp_path):
    code, out, err = call("plan", experiment(), "--next", 3)
    assert (code, out) == (2, "") and "give both or neither" in err
    command = ("plan", experiment(), "--next", 3, "--budget", "1e12", "--out", tmp_path)
    code, out, err = call(*command)
    assert (code, out) == (2, "") and "no law of the loss on params and tokens" in err


@pytest.mark.parametrize("devices", [-1, 100_000])
def test_a_number_of_devices_that_the_machine_does_not_have_is_refused(
    devices, call, experiment, tmp_path
):
    arguments = ("run", experiment(), "--out", tmp_path / "out", "--devices", devices)
    code, _, err = call(*arguments)
    assert code == 2 and f"--devices {devices}: this process may use" in err
    assert not (tmp_path / "out").exists()


def test_a_reader_that_closes_the_pipe_early_is_no_error(experiment):
    arguments = [sys.executable, "-m", "scalejax.cli", "plan", experiment()]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout and command.stderr
        command.stdout.close()
        assert command.stderr.read() == ""
    assert command.returncode == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--executor", "slurm"), "needs --workers N"),
        (("--executor", "slurm", "--workers", "0"), "--workers 0: give the number of tasks"),
        (("--executor", "slurm", "--workers", "1", "--sbatch", "a\nb"), "options of sbatch on one"),
        (("--executor", "slurm", "--workers", "1", "--devices", "1"), "--devices is not used by"),
        (("--workers", "1"), "--workers is not used by --executor local"),
        (("--executor", "slurm", "--workers", "1"), "needs sbatch and squeue, not found on PATH"),
        (("--executor", "ray", "--devices", "1"), "--devices is not used by --executor ray"),
        pytest.param(
            ("--executor", "ray"),
            "pip install 'scalejax[ray]'",
            marks=pytest.mark.skipif(find_spec("ray") is not None, reason="ray is installed"),
        ),
    ],
)
def test_an_executor_that_cannot_be_used_is_exit_2_and_nothing_is_written(
    flags, message, call, experiment, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, err = call("run", experiment(), "--out", tmp_path / "out", *flags)
    assert code == 2 and message in err and not out and "Traceback" not in err
    assert not (tmp_path / "out").exists()
