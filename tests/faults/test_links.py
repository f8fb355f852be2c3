"""Links in a study's folder: what they name, outside the study, is never written."""

import os
import shutil
import subprocess
import sys

import pytest

from scalejax.files import append_chained, append_lines, make_folder, read_lines, replacing
from scalejax.launch.claims import Claims
from scalejax.launch.lock import locked
from scalejax.training import checkpoint

EXPERIMENT = '''"""Does a study with links hold together?"""
from scalejax import Data, Measure, Model, Optimizer, Run, Study, cooldowns, laws
from scalejax.optim.schedules import constant

base = Run(
    model=Model.sized(width=8, depth=1, head_size=8, vocabulary=32),
    data=Data(source="synthetic:32", tokenizer="own", sequence_length=16),
    optimizer=Optimizer(learning_rate=0.01),
    schedule=constant(warmup=640),
    tokens=10_000,
    batch_tokens=64,
)
study = Study(
    "links@1",
    cooldowns(base, at=[5_000, 10_000], fraction=0.2),
    laws=[laws.chinchilla()],
    measure=Measure(tokens=1024, items=0),
    bootstrap=0,
)
'''


@pytest.fixture
def thesis(tmp_path):
    """A file outside the study that a link in it names."""
    path = tmp_path / "outside" / "thesis.txt"
    path.parent.mkdir()
    path.write_text('{"chapter": 1}\n')
    return path


@pytest.mark.slow
def test_a_study_whose_files_are_all_links_is_trained_into_files_of_its_own(tmp_path):
    (tmp_path / "links.py").write_text(EXPERIMENT)
    command = [sys.executable, "-m", "scalejax.cli", "run", tmp_path / "links.py"]
    command += ["--out", tmp_path, "--devices", "1"]
    subprocess.run(command, check=True)

    study, outside = tmp_path / "links@1", tmp_path / "outside"
    shutil.copytree(study, outside)
    files = [path for path in sorted(study.rglob("*")) if path.is_file()]
    for path in files:
        path.unlink()
        # What says that a run is finished goes, so that it is finished again.
        if path.name != "DONE":
            path.symlink_to(outside / path.relative_to(study))
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}

    subprocess.run(command, check=True)
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before
    links = {path.name for path in files if path.is_symlink()}
    written = {"metrics.jsonl", "status.json", "result.json", "lock", "results.parquet"}
    written |= {"study.json", "jobs.json", "report.html", "curves.parquet"}
    assert not written & links
    assert list((study / "logs").iterdir())
    assert not any(path.is_symlink() for path in (study / "logs").iterdir())


def test_lines_are_appended_to_a_copy_of_what_a_link_names(tmp_path, thesis):
    for append in (append_chained, lambda path, row: append_lines(path, [row])):
        ledger = tmp_path / f"{id(append)}.jsonl"
        ledger.symlink_to(thesis)
        append(ledger, {"chapter": 2})
        assert [line["chapter"] for line in read_lines(ledger)] == [1, 2]
        assert thesis.read_text() == '{"chapter": 1}\n'


def test_links_in_the_way_of_temporary_files_and_locks_are_removed(tmp_path, thesis, monkeypatch):
    study = tmp_path / "study"
    (study / "claims").mkdir(parents=True)
    new = tmp_path / "outside" / "new"
    (study / "lock").symlink_to(new)
    with locked(study):
        pass
    assert not new.exists()

    temporary = study / f".a.{os.getpid()}.tmp"
    temporary.symlink_to(thesis)
    with replacing(study / "a") as path:
        path.write_text("content")
    assert (study / "a").read_text() == "content"

    # A claim that is counted up.
    monkeypatch.setattr("scalejax.launch.claims.HEARTBEAT_SECONDS", 0.01)
    (study / "claims" / f".seg.{os.getpid()}.tmp").symlink_to(thesis)
    claim = Claims(study).take("seg")
    assert claim is not None
    with claim:
        while '"heartbeat": 0' in (study / "claims" / "seg.json").read_text():
            pass
    assert thesis.read_text() == '{"chapter": 1}\n'


def test_a_link_to_nothing_is_no_claim(tmp_path, monkeypatch):
    monkeypatch.setattr("scalejax.launch.claims.STALE_SECONDS", -1)
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "seg.json").symlink_to(tmp_path / "nothing")
    claim = Claims(tmp_path).take("seg")
    assert claim is not None
    claim.release()
    assert not (tmp_path / "nothing").exists()


def test_linked_checkpoints_are_refused_and_what_they_name_stays(tmp_path):
    home, folder = tmp_path / "home", tmp_path / "run" / "checkpoints"
    (home / "2024").mkdir(parents=True)
    (home / "2024" / "thesis.txt").write_text("years")
    folder.parent.mkdir()
    folder.symlink_to(home)
    with pytest.raises(ValueError, match=r"checkpoints is a link to .*home.*: remove the link"):
        checkpoint.clean(folder)
    assert (home / "2024" / "thesis.txt").read_text() == "years"


def test_a_linked_folder_of_a_study_is_refused_by_name(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "fits").symlink_to(tmp_path / "home")
    with pytest.raises(ValueError, match="fits is a link to"):
        make_folder(tmp_path / "fits")
    make_folder(tmp_path / "figures")
    make_folder(tmp_path / "figures")
