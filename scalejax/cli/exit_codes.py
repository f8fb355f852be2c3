"""The exit codes of every verb, and what leads to each of them."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalejax.study.run import StudyResult

DONE = 0
# A run failed, or the machine did: the disk is full, for example. So did a comparison
# whose gain may be below what was required.
FAILED = 1
# The user gave something that cannot be used: a file, a value, a flag.
BAD_INPUT = 2
# Every run diverged, so there is nothing to fit.
ALL_DIVERGED = 3
# A signal stopped the study. Its state is saved, and the same command continues it.
PREEMPTED = 75

# Ctrl-C ended a command at once, as shells number it: 128 plus the number of SIGINT.
INTERRUPTED = 130

# OSErrors about a path that the user gave. Any other OSError is the machine's.
PATH_ERRORS = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)


class Terminated(BaseException):
    """SIGTERM has ended a command that has nothing to save."""


@contextlib.contextmanager
def raising_on_sigterm() -> Iterator[None]:
    """Let SIGTERM raise Terminated in this block, instead of ending it silently.

    While a study trains, `launch.signals` saves its state first.
    """

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def of_sigterm() -> int:
    """Say that SIGTERM ended the command, and return its exit code."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("scalejax: stopped by SIGTERM; the same command starts or continues it", file=sys.stderr)
    return PREEMPTED


def of_error(error: ValueError | OSError) -> int:
    """The exit code of an exception that ended a verb.

    >>> of_error(ValueError("tokens must be positive")), of_error(OSError("disk full"))
    (2, 1)
    """
    return BAD_INPUT if isinstance(error, (ValueError, *PATH_ERRORS)) else FAILED


def of_interrupt() -> int:
    """Say that Ctrl-C ended the command, and return its exit code."""
    # Another Ctrl-C while Python shuts down would end in a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("scalejax: stopped by Ctrl-C; the same command starts or continues it", file=sys.stderr)
    return INTERRUPTED


def of_study(result: "StudyResult") -> int:
    """The exit code of `scalejax run`."""
    if result.training.preempted:
        return PREEMPTED
    if result.training.failed:
        return FAILED
    return ALL_DIVERGED if result.all_diverged else DONE
