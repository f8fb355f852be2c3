"""What a Ray task does: it trains one segment, on whichever machine Ray chose.

This file does not import jax at its top, because a process is pinned to a core before
jax is imported.
"""

import functools
import sys
import time
from pathlib import Path

from scalejax.config import Placement
from scalejax.launch.attempt import attempt, failure
from scalejax.launch.claims import Claims
from scalejax.launch.seats import has_accelerator, take_seat
from scalejax.launch.signals import stopping_on_signals
from scalejax.training.segment import TrainingJob

# How long to wait before a segment that another process trains is tried again.
LOOK_AGAIN_SECONDS = 2.0


class Stopped(Exception):
    """The task was asked to stop and has saved its state; Ray starts it again."""


def train(folder: str, trunk_error: str) -> str:
    """Train the segment in `folder`; return "", or why it failed.

    trunk_error: the result of the task that this one waits for, "" without one.

    Raises Stopped when SIGTERM arrives or the task is cancelled.
    """
    if trunk_error:
        return f"the segment from which it begins failed: {trunk_error}"
    path = Path(folder)
    job, claims = TrainingJob.read(path), Claims(path.parent.parent)
    _sit_down(job.placement)
    # Not at the top of the file: this imports jax.
    from scalejax.training.result import is_finished

    with stopping_on_signals() as stopping:
        while not stopping():
            # A process of another engine may have trained it.
            if is_finished(job, path):
                return ""
            if error := failure(path):
                return error
            event = attempt(claims, path, report=lambda step, loss: None, stopping=stopping)
            if event.kind in ("done", "failed"):
                # Ray writes this into the log of its worker.
                print(job.segment.folder, event.kind, file=sys.stderr, flush=True)
                return event.error
            # A process of another engine trains it, or one that was lost just now.
            if event.kind == "claimed":
                time.sleep(LOOK_AGAIN_SECONDS)
    raise Stopped(f"{folder} was stopped and has saved its state")


# A process of Ray trains one segment after another, all on the seat that it took first.
@functools.cache
def _sit_down(placement: Placement) -> None:
    """Pin this process as a worker would be. Ray itself hands out accelerators."""
    if not has_accelerator():
        take_seat(placement)
