"""The command line: help, exit codes and errors (mirrors scalejax/cli/main.py)."""

import dataclasses
import errno
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from scalejax import laws
from scalejax.cli import exit_codes
from scalejax.cli.main import VERBS
from tests.conftest import ROOT

# A study of one run that takes minutes.
LONG_STUDY = """
from scalejax import *
from scalejax.optim.schedules import constant

run = Run(
    model=Model.sized(width=16, depth=1, head_size=8, vocabulary=64),
    data=Data(source="synthetic:64", tokenizer="own", sequence_length=32),
    optimizer=Optimizer(learning_rate=0.01),
    schedule=constant(warmup=0),
    tokens=256 * 600_000,
    batch_tokens=256,
)
study = Study("long@1", [run], measure=Measure(items=0, tokens=4096))
"""


FULL_DISK = ": the disk is full; free some space, and run the same command again"


def test_the_help_names_every_verb_and_every_exit_code(call):
    code, out, _ = call("--help")
    assert code == 0
    assert all(verb in out for verb in VERBS)
    codes = (
        "0 done",
        "1 a run failed",
        "2 bad input",
        "3 every run diverged",
        "75 stopped",
        "130 stopped",
    )
    assert all(text in " ".join(out.split()) for text in codes)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_explains_each_of_its_arguments(verb, call):
    code, out, _ = call(verb, "--help")
    assert code == 0
    text = " ".join(out.replace("│", " ").split())
    # The help of an argument ends in "(required)" or "(default: ...)". Before that come
    # its name, its type and its explanation.
    arguments = re.findall(r"(?:--[\w-]+|STR|PATH|\{[\w,]+\}) (.*?) \((?:required|default)", text)
    assert len(arguments) == len(dataclasses.fields(VERBS[verb]))
    assert all(len(explanation.split()) >= 4 for explanation in arguments), arguments


def test_the_help_of_fit_names_every_law(call):
    _, out, _ = call("fit", "--help")
    named = out.replace(",", " ").replace(".", " ").split()
    assert set(laws.NAMES) <= set(named)


def test_asking_for_help_does_not_import_jax():
    code = (
        "import sys\n"
        "from scalejax.cli.main import main\n"
        "sys.argv = ['scalejax', '--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    print([name for name in ('jax', 'numpy', 'pandas') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize(
    ("error", "code", "advice"),
    [
        (ValueError("a bad value"), exit_codes.BAD_INPUT, ""),
        (FileNotFoundError("no such file"), exit_codes.BAD_INPUT, ""),
        (PermissionError("not yours"), exit_codes.BAD_INPUT, ""),
        (OSError("a broken disk"), exit_codes.FAILED, ""),
        (OSError(errno.ENOSPC, "no space"), exit_codes.FAILED, FULL_DISK),
    ],
)
def test_an_error_is_one_line_on_standard_error_and_an_exit_code(
    error, code, advice, call, monkeypatch
):
    def fail(self):
        raise error

    monkeypatch.setattr(VERBS["plan"], "run", fail)
    assert call("plan", "any.py") == (code, "", f"scalejax: {error}{advice}\n")


def test_an_unexpected_exception_is_a_bug_and_is_not_hidden(call, monkeypatch):
    def fail(self):
        raise RuntimeError("a bug")

    monkeypatch.setattr(VERBS["plan"], "run", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        call("plan", "any.py")


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["runn", "x.py"],
        ["plan", "setup.py"],
        ["run", "none.py"],
        ["report", "nowhere"],
        ["eval", "nowhere"],
        ["data", "prep"],
    ],
)
def test_a_wrong_command_is_exit_2_with_a_message(arguments, call):
    code, out, err = call(*arguments)
    assert code == 2 and err.strip() and not out and "Traceback" not in err


def test_a_command_goes_on_when_nobody_reads_its_progress_any_more(tmp_path):
    """The terminal of a long study was closed; it used to end, with exit code 0."""
    text = tmp_path / "text.jsonl"
    text.write_text("".join(f'{{"text": "{n} and {n + 1}"}}\n' for n in range(50)))
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "scalejax.cli", "data", "prepare", "--source", text),
            *("--tokenizer", "byte", "--out", tmp_path / "shards"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SCALEJAX_CACHE": str(tmp_path / "cache")},
    ) as process:
        assert process.stderr is not None and process.stdout is not None
        process.stderr.close()
        assert process.stdout.read() == f"{tmp_path / 'shards'}\n"
    assert process.returncode == 0


# Sends a signal to itself while it imports a module.
INTERRUPTED_IMPORT = """
import builtins, os, signal, sys
# A background job of a shell starts with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
real = builtins.__import__
def interrupting(name, *rest, **more):
    if name == {module!r}:
        os.kill(os.getpid(), signal.{sent})
    return real(name, *rest, **more)
builtins.__import__ = interrupting
sys.argv = ["scalejax", *{arguments!r}]
from scalejax.cli import main
main()
"""


@pytest.mark.parametrize(
    ("sent", "module", "arguments", "exit_code", "name"),
    [
        ("SIGINT", "tyro", ["--help"], 130, "Ctrl-C"),
        ("SIGINT", "scalejax.study.experiment", ["plan", "x.py"], 130, "Ctrl-C"),
        # A scheduler starts the command again when it sees 75.
        ("SIGTERM", "scalejax.study.experiment", ["run", "x.py"], 75, "SIGTERM"),
    ],
)
def test_a_signal_during_imports_is_one_line_and_an_exit_code(
    sent, module, arguments, exit_code, name
):
    code = INTERRUPTED_IMPORT.format(sent=sent, module=module, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (exit_code, ""), done.stderr
    assert done.stderr.startswith(f"scalejax: stopped by {name}") and done.stderr.count("\n") == 1


# A background job of a shell starts with SIGINT ignored, and so do its children.
WITH_CTRL_C = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("scalejax.cli", run_name="__main__")
"""


@pytest.mark.slow
def test_a_second_ctrl_c_ends_a_study_at_once_without_a_traceback(tmp_path):
    (tmp_path / "long.py").write_text(LONG_STUDY)
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_CTRL_C, "run", "long.py", "--devices", "1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        deadline = time.monotonic() + 240
        while not list(tmp_path.glob("**/metrics.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    # The workers may have saved and stopped before the second signal came.
    assert process.returncode in (exit_codes.INTERRUPTED, exit_codes.PREEMPTED)
    assert "Traceback" not in err
