"""Which results count, and which are refused (mirrors scalejax/training/result.py)."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest

from scalejax.config import Measure
from scalejax.data.locking import exclusive
from scalejax.data.preparation import prepare
from scalejax.files import read_json
from scalejax.study.results import read_curve
from scalejax.training.loop import train
from scalejax.training.result import Result, has_diverged

QUIET = Measure(items=0, tokens=1024)


@pytest.mark.parametrize("rate", [1e2, 1e4, 1e6])
def test_a_run_that_is_no_better_than_guessing_has_diverged(tiny_run, tmp_path, rate):
    """At 1e2 the loss explodes; beyond, all logits become equal and it is ln 32."""
    optimizer = dataclasses.replace(tiny_run.optimizer, learning_rate=rate)
    result = train(tiny_run.replace(optimizer=optimizer), out=tmp_path / "run", measure=QUIET)
    assert (result.row["status"], result.loss) == ("diverged", math.inf)
    assert read_json(tmp_path / "run" / "status.json")["status"] == "diverged"
    assert Result.load(tmp_path / "run").row["status"] == "diverged"


@pytest.mark.parametrize(
    ("loss", "skipped", "diverged"),
    [
        (3.0, 0.0, False),
        (3.4, 0.4, False),
        (math.log(32), 0.0, True),
        (3.6, 0.0, True),
        (math.inf, 0.0, True),
        (3.0, 0.5, True),
        (None, 0.0, True),
    ],
)
def test_the_loss_of_guessing_and_half_of_the_tokens_are_the_limits(
    tiny_run, loss, skipped, diverged
):
    assert has_diverged({"loss": loss}, prepare(tiny_run.data), skipped) is diverged


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(tiny_run, out=folder, measure=QUIET)
    return folder


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def test_a_copied_folder_of_another_run_is_refused(tiny_run, folder):
    other = tiny_run.replace(seed=1)
    with pytest.raises(ValueError, match=r"run holds another run: seed differ"):
        train(other, out=folder, measure=QUIET)
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"run": "0" * 16}))
    (folder / "DONE").write_text("a folder of an earlier version has no hashes\n")
    with pytest.raises(ValueError, match=r"is the result of run 0000000000000000, but its folder"):
        train(tiny_run, out=folder, measure=QUIET)


@pytest.mark.parametrize("name", ["result.json", "metrics.jsonl"])
def test_a_number_that_was_changed_by_hand_is_refused(name, tiny_run, folder):
    path, loss = folder / name, Result.load(folder).loss
    read_curve(folder)
    path.write_text(path.read_text().replace(f'"loss": {loss}', f'"loss": {loss - 0.5}'))
    with pytest.raises(ValueError, match=rf"{name} is not as the run left it"):
        Result.load(folder) if name == "result.json" else read_curve(folder)
    # The remedy that the message names.
    if name == "result.json":
        path.unlink()
        assert train(tiny_run, out=folder, measure=QUIET).loss == loss
        assert Result.load(folder).loss == loss


def test_a_result_that_is_missing_is_evaluated_again(tiny_run, folder):
    before = Result.load(folder)
    (folder / "result.json").unlink()
    assert train(tiny_run, out=folder, measure=QUIET).loss == before.loss


DAMAGE = [
    {"loss": "3.1"},
    {"loss": None},
    {"loss": [1]},
    {"status": "<script>alert(1)</script>"},
    {"status": None},
    {"run": 7},
    {"tokens": "many"},
    {"step": True},
    {"measure": []},
    {"measure": {"evry": 1}},
    {"extra": {"a": 1}},
]


@pytest.mark.parametrize("change", DAMAGE)
def test_a_damaged_result_is_refused_by_file_and_field(tiny_run, folder, change):
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    field = next(iter(change))
    with pytest.raises(ValueError, match=rf"result\.json is damaged: its field {field} is missing"):
        train(tiny_run, out=folder, measure=QUIET)


def test_a_folder_that_another_process_trains_in_is_refused(tiny_run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with exclusive(folder), pytest.raises(ValueError, match="is in use by another process"):
        train(tiny_run, out=folder, measure=QUIET)
    assert list(folder.iterdir()) == []
    assert train(tiny_run, out=folder, measure=QUIET).row["status"] == "done"
