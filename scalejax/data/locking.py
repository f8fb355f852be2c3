"""Folders that appear complete or not at all, even with several writers."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time run the block; `path` is an empty lock file.

    The operating system releases the lock when the process ends, however it ends, so a
    killed process cannot block the next one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    handle = _lock(path)
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder's lock for the block. Raises ValueError when another process does.

    The lock is on the folder itself and leaves no file behind.
    """
    try:
        handle = _lock(folder, fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(
            f"{folder} is in use by another process; wait until that has ended, or name another "
            "folder"
        ) from error
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """A new, locked folder beside `folder`; deleted at the end unless it was renamed.

    The caller fills it and renames it to `folder`, which is atomic because both have
    the same parent. Scratch folders of processes that were killed are deleted first.
    """
    # Hold the parent's lock until the new folder is locked: without it, another process
    # could see the folder in between, find it unlocked and delete it as abandoned.
    parent = _lock(folder.parent)
    _delete_abandoned(folder)
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
    handle = _lock(scratch)
    os.close(parent)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(handle)


def _delete_abandoned(folder: Path) -> None:
    """Delete scratch folders of `folder` that no living process has locked."""
    for scratch in folder.parent.glob(f"{folder.name}.tmp-*"):
        # BlockingIOError: its owner is still writing. FileNotFoundError: its owner has
        # just finished and renamed it.
        with suppress(BlockingIOError, FileNotFoundError):
            os.close(_lock(scratch, fcntl.LOCK_NB))
            shutil.rmtree(scratch)


def _lock(path: Path, flags: int = 0) -> int:
    """Lock a file or folder; the lock is held until the returned descriptor is closed.

    Raises BlockingIOError when `flags` has LOCK_NB and another process holds the lock.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | flags)
    except BlockingIOError:
        os.close(handle)
        raise
    return handle
