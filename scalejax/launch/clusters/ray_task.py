"""What a Ray task does: it trains one segment, on whichever machine Ray chose.

Nothing here imports jax, and neither may the import of this file: a process of Ray is
pinned to a core first.
"""

import time
from pathlib import Path

from scalejax.launch.attempt import attempt
from scalejax.launch.claims import Claims
from scalejax.launch.signals import stopping_on_signals

# How long to wait before a segment that another process trains is tried again.
LOOK_AGAIN_SECONDS = 2.0


class Stopped(Exception):
    """The task was asked to stop, and saved its state; Ray starts it again."""


def train(folder: str, trunk_error: str) -> str:
    """Train the segment in `folder`; return "", or why it failed.

    trunk_error: what the task of its trunk returned; waiting for it makes Ray train the
        trunk first.
    Raises Stopped on SIGTERM, and when the task is cancelled.
    """
    if trunk_error:
        return "its trunk failed"
    path = Path(folder)
    _sit_down(path)
    claims = Claims(path.parent.parent)
    with stopping_on_signals() as stopping:
        while not stopping():
            event = attempt(claims, path, report=lambda step, loss: None, stopping=stopping)
            if event.kind in ("done", "failed"):
                return event.error
            # A process of another engine trains it, or one that has just died.
            if event.kind == "claimed":
                time.sleep(LOOK_AGAIN_SECONDS)
    raise Stopped(folder)


def _sit_down(folder: Path) -> None:
    """Pin this process as a worker would be; Ray itself gives it accelerators."""
    from scalejax.launch.seats import has_accelerator, take_seat
    from scalejax.training.segment import TrainingJob

    if not has_accelerator():
        take_seat(TrainingJob.read(folder).placement)
