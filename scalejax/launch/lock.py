"""The lock of a study's folder: only one launcher may train in it at a time."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from scalejax.files import replace_link

# How long a new launcher waits for the lock. When a launcher is killed, its workers
# need a moment to die, and they hold the lock until then.
LOCK_TIMEOUT_SECONDS = 20
POLL_SECONDS = 0.1


class FolderLocked(ValueError):
    """Another launcher is training in the study's folder."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold the lock of `folder` and yield its file descriptor.

    The folder is created if it does not exist.

    Pass the descriptor to every worker process. An flock belongs to the open file, not
    to the process, so the folder stays locked until the launcher and all of its workers
    have ended. A new launcher therefore never trains next to orphaned workers of a
    killed one.

    Raises FolderLocked if another launcher holds the lock for LOCK_TIMEOUT_SECONDS.
    """
    folder.mkdir(parents=True, exist_ok=True)
    replace_link(folder / "lock")
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    try:
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise FolderLocked(
                    f"another `scalejax run` is training in {folder}; wait for it to end, "
                    "or choose another folder with --out"
                )
            time.sleep(POLL_SECONDS)
        yield descriptor
    finally:
        # This closes our copy only. A worker that still has its own keeps the lock.
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
