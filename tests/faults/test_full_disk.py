"""Faults F05 to F07 and F27: full disks, and folders that cannot be written."""

import os
import subprocess
from pathlib import Path

import pytest

from scalejax.training import checkpoint
from scalejax.training.loop import train
from tests.cli.test_study import EXPERIMENT
from tests.training.runs import curve, reproducible_row

# When a write fails, orbax drops a coroutine that was never awaited, and Python warns.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB, which is mounted in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting needs root: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Write a file that leaves about `leave` bytes of the disk."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        while free_bytes(folder) > leave:
            file.write(bytes(min(65_536, free_bytes(folder) - leave)))
            file.flush()
    return filler


def free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


@pytest.mark.slow
@pytest.mark.parametrize("leave", [0, 40_000], ids=["for the first file", "for a checkpoint"])
def test_a_full_disk_is_named_and_the_run_continues_when_there_is_room(
    leave, small_disk, tiny_run, tiny_measure, tmp_path
):
    # Its state takes 0.1 MB, which is more than is left.
    calm = train(tiny_run, out=tmp_path / "calm", measure=tiny_measure)
    filler = fill(small_disk, leave)
    with pytest.raises((OSError, ValueError), match=r"(?i)no space|disk|RESOURCE_EXHAUSTED"):
        train(tiny_run, out=small_disk / "run", measure=tiny_measure)
    assert not (small_disk / "run" / "DONE").exists()
    assert checkpoint.steps(small_disk / "run" / "checkpoints") == []
    filler.unlink()
    result = train(tiny_run, out=small_disk / "run", measure=tiny_measure)
    assert reproducible_row(result) == reproducible_row(calm)
    assert curve(small_disk / "run") == curve(tmp_path / "calm")


@pytest.mark.parametrize("name", ["results", "results/one@1", "link"])
def test_a_results_folder_that_is_a_file_is_exit_2(call, tmp_path, name):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    if name != "link":
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("not a folder")
    experiment = tmp_path / "one.py"
    experiment.write_text(EXPERIMENT)
    code, out, err = call("run", experiment, "--out", tmp_path / name.split("/")[0])
    assert code == 2 and not out and "Traceback" not in err
    assert f"{tmp_path / name} is not a folder; give another folder with --out" in err
    assert not (tmp_path / "nowhere").exists()


def test_a_disk_that_is_read_only_is_exit_2(call, small_disk, tmp_path):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    experiment = tmp_path / "one.py"
    experiment.write_text(EXPERIMENT)
    code, out, err = call("run", experiment, "--out", small_disk / "results")
    assert code == 2 and not out and f"because {small_disk} cannot be written" in err
