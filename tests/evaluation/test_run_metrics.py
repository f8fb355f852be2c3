"""A Measure is checked before training (mirrors scalejax/evaluation/run_metrics.py)."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from scalejax.config import Data, Measure, Run
from scalejax.data.preparation import prepare, write
from scalejax.data.shards import LOSS_MASKS, Shards
from scalejax.evaluation import run_metrics, suites

ITEM = {"query": "q", "choices": ["a", "b"], "gold": 0}


class Setup(NamedTuple):
    """A run on text of bytes, and a Measure of one local task."""

    shards: Shards
    run: Run
    measure: Measure
    path: Path
    """The task's file."""


@pytest.fixture
def setup(tiny_run, tmp_path):
    write([{"text": f"text {i}"} for i in range(8)], tmp_path / "text", tokenizer="byte")
    data = Data(source=str(tmp_path / "text"), tokenizer="own", sequence_length=16)
    path = tmp_path / "quiz.jsonl"
    path.write_text(json.dumps(ITEM) + "\n")
    measure = Measure(items=0, suites=(f"local:{path}",))
    return Setup(prepare(data), tiny_run.replace(data=data), measure, path)


def test_files_are_read_once_for_all_runs_of_a_study(setup, monkeypatch):
    shards, run, measure, path = setup
    paths_read = []
    read_items = suites.read_items

    def recording_read_items(path, **options):
        paths_read.append(path)
        return read_items(path, **options)

    monkeypatch.setattr(suites, "read_items", recording_read_items)
    run_metrics.check_measure(shards, run, measure)
    run_metrics.check_measure(prepare(run.data), run.replace(seed=1), measure)
    assert paths_read == [path]
    shorter = Data(source=run.data.source, tokenizer="own", sequence_length=8)
    run_metrics.check_measure(shards, run.replace(data=shorter), measure)
    assert paths_read == [path, path], "another window needs another check"


def test_held_out_tokens_that_are_all_masked_are_refused_before_training(setup):
    """Their loss would be 0 / 0, and a sound run would count as diverged."""
    shards, run, measure, _ = setup
    run = run.replace(data=replace(run.data, packing="documents"))
    mask = np.ones(len(shards.validation), np.uint8)
    mask[:5] = 0
    mask.tofile(shards.folder / LOSS_MASKS["validation"])
    run_metrics.check_measure(shards, run, replace(measure, tokens=5))
    with pytest.raises(ValueError, match=r"Measure\.tokens is 4, but none of the first 4"):
        run_metrics.check_measure(shards, run, replace(measure, tokens=4))


def test_a_file_that_was_changed_is_checked_again(setup):
    shards, run, measure, path = setup
    run_metrics.check_measure(shards, run, measure)
    path.write_text(json.dumps({**ITEM, "gold": 7}) + "\n")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"quiz\.jsonl, line 1: gold is 7; expected the index"):
            run_metrics.check_measure(shards, run, measure)
    path.write_text(json.dumps({**ITEM, "gold": 1}) + "\n")
    os.utime(path, ns=(0, 0))
    run_metrics.check_measure(shards, run, measure)


def test_an_answer_longer_than_a_sequence_is_refused_before_training(setup):
    shards, run, measure, path = setup
    path.write_text(json.dumps({**ITEM, "choices": ["a", "b" * 15]}) + "\n")
    message = "an answer of 16 tokens leaves no context in a window of 16"
    with pytest.raises(ValueError, match=message):
        run_metrics.check_measure(shards, run, measure)


def test_tasks_of_text_are_refused_for_a_source_without_text(setup, tiny_run):
    with pytest.raises(ValueError, match="consists of token ids without text; it has no tokenizer"):
        run_metrics.check_measure(prepare(tiny_run.data), tiny_run, setup.measure)


def test_two_tasks_with_the_same_name_are_refused(setup, tmp_path):
    shards, run, _, path = setup
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "quiz.jsonl").write_bytes(path.read_bytes())

    def measure_of(*names):
        return Measure(items=0, suites=tuple(f"local:{tmp_path / name}" for name in names))

    message = r"two tasks named quiz, in .*quiz\.jsonl and .*other/quiz\.jsonl; .*Rename one"
    with pytest.raises(ValueError, match=message):
        run_metrics.check_measure(shards, run, measure_of("quiz.jsonl", "other"))
    (tmp_path / "continuation.jsonl").write_bytes(path.read_bytes())
    names = (f"local:{tmp_path / 'continuation.jsonl'}", "continuation")
    with pytest.raises(ValueError, match="two tasks named continuation, in the held-out text and"):
        run_metrics.check_measure(shards, run, Measure(items=1, suites=names))
    # The same file twice is one task.
    run_metrics.check_measure(shards, run, measure_of("quiz.jsonl", "quiz.jsonl"))


def test_two_suites_with_the_same_name_are_refused(setup, tmp_path):
    """Each would be the column error_local-tasks, and the second would win."""
    shards, run, _, path = setup
    folders = [tmp_path / name / "tasks" for name in "ab"]
    for folder in folders:
        folder.mkdir(parents=True)
        for number in range(2):
            task = folder / f"{folder.parent.name}{number}.jsonl"
            task.write_bytes(path.read_bytes())
    measure = Measure(items=0, suites=tuple(f"local:{folder}" for folder in folders))
    with pytest.raises(ValueError, match=r"two suites named local-tasks, .*a/tasks and .*b/tasks"):
        run_metrics.check_measure(shards, run, measure)
