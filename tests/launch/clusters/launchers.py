"""Waiting for a launcher that a test has started, and ending it."""

import subprocess
import time
from collections.abc import Callable
from typing import Any

# On a busy machine every process takes minutes to start.
PATIENCE_SECONDS = 1500


def end(process: "subprocess.Popen[str]") -> None:
    """Kill a process whose output is a pipe."""
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def wait_until(condition: Callable[[], Any], process: "subprocess.Popen[str] | None" = None) -> Any:
    """Return the first value of `condition()` that is true.

    Fails when the process ends before, or after PATIENCE_SECONDS.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.05)
    return value
