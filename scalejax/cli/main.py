"""The command line: `scalejax VERB`.

Flags say where and how to run. What to run is in the experiment file.

Every verb is a dataclass. Its docstring is the verb's help text, its fields are the
flags, the comment above a field is the flag's help text, and `run` does the work and
returns the exit code. To add a verb, write such a class in a module of its own and list
it in VERBS.

`scalejax --help` must be fast, so modules that import jax or pandas are imported inside
`run`.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, Protocol

import tyro

from scalejax.cli import exit_codes
from scalejax.cli.compare import Compare
from scalejax.cli.data import Data
from scalejax.cli.fit import Fit, Predict
from scalejax.cli.new import New
from scalejax.cli.run_folder import Eval, Export
from scalejax.cli.status import Status
from scalejax.cli.study import Plan, Report, Run, Work


class Verb(Protocol):
    """A parsed command."""

    def run(self) -> int:
        """Do it and return the exit code."""
        ...


VERBS = {
    "plan": Plan,
    "run": Run,
    "work": Work,
    "status": Status,
    "fit": Fit,
    "predict": Predict,
    "compare": Compare,
    "eval": Eval,
    "report": Report,
    "export": Export,
    "data": Data,
    "new": New,
}

DESCRIPTION = (
    "From a grid of language-model runs to a scaling law with confidence intervals. "
    "Exit codes: 0 done; 1 a run failed, or a gain is too small; 2 bad input; 3 every run "
    "diverged; 75 stopped and saved, so run the same command again; 130 stopped at once by "
    "Ctrl-C. Add --debug to any command to see the traceback of an error."
)


class LastingStream:
    """A stream whose reader may go away: what is written from then on is dropped.

    A study must not end because the terminal or the shell that it was started from has.
    """

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the text, if that is possible."""
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, if that is possible."""
        with self._dropping():
            self._stream.flush()

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            # Python flushes what is left when it exits, and that must not fail either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def main() -> None:
    """Run one verb and exit with its code; see `_run_verb`."""
    with contextlib.redirect_stderr(LastingStream(sys.stderr)):
        sys.exit(_run_verb())


def _run_verb() -> int:
    """Run one verb and return its exit code.

    This is the only place that turns exceptions into exit codes. An error prints one
    message on standard error, without a traceback unless --debug is given, and so does
    Ctrl-C. Any other exception than those, ValueError and OSError is a bug and keeps
    its traceback.
    """
    debug = "--debug" in sys.argv
    try:
        verb = _parse([argument for argument in sys.argv[1:] if argument != "--debug"])
        code = verb.run()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader has seen enough, as in `scalejax status FILE | head`. Python
        # flushes standard output once more when it exits, and that must not raise
        # again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.DONE
    except KeyboardInterrupt:
        if debug:
            raise
        return exit_codes.of_interrupt()
    except exit_codes.Terminated:
        return exit_codes.of_sigterm()
    except (ValueError, OSError) as error:
        if debug:
            raise
        text = str(error)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            text += ": the disk is full; free some space, and run the same command again"
        print(f"scalejax: {text}", file=sys.stderr)
        return exit_codes.of_error(error)


def _parse(arguments: list[str]) -> Verb:
    return tyro.extras.subcommand_cli_from_dict(
        VERBS,
        prog="scalejax",
        description=DESCRIPTION,
        args=arguments,
        sort_subcommands=False,
    )
