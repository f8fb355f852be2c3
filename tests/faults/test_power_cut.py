"""A power cut: what was not forced onto the disk is lost.

Training runs on a file system in an image file. A copy of that file, made without
`sync`, is what would be found on the disk after a power cut at that moment.
"""

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest

from scalejax.training import checkpoint
from scalejax.training.loop import train
from scalejax.training.result import Result
from tests.faults.test_damaged_runs import train_in_parts
from tests.training.runs import curve, reproducible_row


@pytest.fixture
def mounted():
    """Mount images; they are unmounted after the test."""
    with contextlib.ExitStack() as stack:

        def mount(image, folder):
            folder.mkdir()
            # By itself, the kernel would write only after a minute.
            command = ["mount", "-o", "loop,commit=60", str(image), str(folder)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"mounting an image needs root: {done.stderr.strip()}")
            stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
            return Path(folder)

        yield mount


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="needs mkfs.ext4")
def test_a_power_cut_costs_only_what_came_after_the_last_save(
    mounted, tiny_run, tiny_measure, tmp_path, caplog
):
    calm = train(tiny_run, out=tmp_path / "calm", measure=tiny_measure)
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(32 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    disk = mounted(image, tmp_path / "disk")

    def cut(name):
        """Return the folder of the run as the disk has it."""
        shutil.copyfile(image, tmp_path / f"{name}.image")
        return mounted(tmp_path / f"{name}.image", tmp_path / name) / "run"

    (disk / "unsynced").write_text("lost")
    train_in_parts(tiny_run, tiny_measure, disk / "run", 25, 20)
    stopped = cut("stopped")
    lost = stopped.parent / "unsynced"
    assert not lost.exists() or lost.read_text() != "lost", "the test cannot fail"
    assert checkpoint.steps(stopped / "checkpoints") == [25, 45]
    resumed = train(tiny_run, out=stopped, measure=tiny_measure)
    assert "checkpoint passed over" not in caplog.text
    assert reproducible_row(resumed) == reproducible_row(calm)
    assert curve(stopped) == curve(tmp_path / "calm")

    # Right after DONE, everything is there.
    train(tiny_run, out=disk / "run", measure=tiny_measure)
    done = cut("done")
    assert (done / "DONE").exists()
    assert reproducible_row(Result.load(done)) == reproducible_row(calm)
    assert curve(done) == curve(tmp_path / "calm")
