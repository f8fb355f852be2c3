"""The command line: help, exit codes and errors (mirrors scalejax/cli/main.py)."""

import dataclasses
import re
import subprocess
import sys

import pytest

from scalejax import laws
from scalejax.cli import exit_codes
from scalejax.cli.main import VERBS


def test_the_help_names_every_verb_and_every_exit_code(call):
    code, out, _ = call("--help")
    assert code == 0
    assert all(verb in out for verb in VERBS)
    codes = ("0 done", "1 a run failed", "2 bad input", "3 every run diverged", "75 stopped")
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
    ("error", "code"),
    [
        (ValueError("a bad value"), exit_codes.BAD_INPUT),
        (FileNotFoundError("no such file"), exit_codes.BAD_INPUT),
        (PermissionError("not yours"), exit_codes.BAD_INPUT),
        (OSError("no space left on device"), exit_codes.FAILED),
    ],
)
def test_an_error_is_one_line_on_standard_error_and_an_exit_code(error, code, call, monkeypatch):
    def fail(self):
        raise error

    monkeypatch.setattr(VERBS["plan"], "run", fail)
    assert call("plan", "any.py") == (code, "", f"scalejax: {error}\n")


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
