"""The lock of a study's folder (mirrors scalejax/launch/lock.py)."""

import subprocess
import sys

import pytest

from scalejax.launch import lock
from scalejax.launch.lock import FolderLocked, locked


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(lock, "LOCK_TIMEOUT_SECONDS", 0.3)


def test_a_second_launcher_is_refused_while_the_first_one_holds_the_lock(tmp_path, impatient):
    with (
        locked(tmp_path / "study"),
        pytest.raises(FolderLocked, match="another `scalejax run`"),
        locked(tmp_path / "study"),
    ):
        pass
    with locked(tmp_path / "study"):
        pass


def test_two_folders_have_two_locks(tmp_path, impatient):
    with locked(tmp_path / "a"), locked(tmp_path / "b"):
        pass


def test_the_lock_lasts_as_long_as_a_worker_that_inherited_it(tmp_path, impatient):
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with locked(tmp_path) as descriptor:
        worker = subprocess.Popen(sleep, pass_fds=[descriptor])
    try:
        with pytest.raises(FolderLocked), locked(tmp_path):
            pass
    finally:
        worker.kill()
        worker.wait()
    with locked(tmp_path):
        pass
