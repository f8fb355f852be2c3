"""Folders appear complete or not at all (mirrors scalejax/data/locking.py)."""

import multiprocessing
import os

from scalejax.data.locking import locked, scratch_folder


def _hold_lock(path, connection) -> None:
    with locked(path):
        connection.send("locked")
        # Until the process is killed.
        connection.recv()


def test_a_killed_process_loses_its_lock(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    holder = spawn.Process(target=_hold_lock, args=(tmp_path / "lock", theirs))
    holder.start()
    assert ours.poll(60) and ours.recv() == "locked"
    holder.kill()
    holder.join()
    with locked(tmp_path / "lock"):
        pass


def test_a_scratch_folder_that_was_not_renamed_is_deleted(tmp_path):
    with scratch_folder(tmp_path / "out") as scratch:
        (scratch / "file").write_text("content")
    assert list(tmp_path.iterdir()) == []


def test_only_scratch_folders_without_a_living_owner_are_deleted(tmp_path):
    (tmp_path / "out.tmp-abandoned").mkdir()
    (tmp_path / "other.tmp-abandoned").mkdir()
    with scratch_folder(tmp_path / "out") as first:
        assert not (tmp_path / "out.tmp-abandoned").exists()
        with scratch_folder(tmp_path / "out") as second:
            assert first.is_dir() and first != second
            os.rename(second, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.tmp-abandoned", "out"]
