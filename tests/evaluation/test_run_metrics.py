"""A Measure is checked before training, once for each content of its files (mirrors scalejax/evaluation/run_metrics.py)."""

import json
import os

import pytest

from scalejax.config import Data, Measure
from scalejax.data.preparation import prepare, write
from scalejax.evaluation import run_metrics, suites

GOOD = {"query": "q", "choices": ["a", "b"], "gold": 0}


@pytest.fixture
def asked(tiny_run, tmp_path):
    """(shards of bytes, a run on them, a Measure of one local task) and the task's file."""
    write([{"text": f"text {i}"} for i in range(8)], tmp_path / "text", tokenizer="byte")
    run = tiny_run.replace(
        data=Data(source=str(tmp_path / "text"), tokenizer="own", sequence_length=16)
    )
    path = tmp_path / "quiz.jsonl"
    path.write_text(json.dumps(GOOD) + "\n")
    return (prepare(run.data), run, Measure(items=0, suites=(f"local:{path}",))), path


def test_files_are_read_once_for_all_runs_of_a_study(asked, monkeypatch):
    (shards, run, one), path = asked
    read = []
    whole = suites.read_items
    monkeypatch.setattr(
        suites, "read_items", lambda path, **options: read.append(path) or whole(path, **options)
    )
    run_metrics.check(shards, run, one)
    run_metrics.check(prepare(run.data), run.replace(seed=1), one)
    assert read == [path]
    run_metrics.check(
        shards,
        run.replace(data=Data(source=run.data.source, tokenizer="own", sequence_length=8)),
        one,
    )
    assert read == [path, path], "another window is another question"


def test_a_file_that_was_changed_is_checked_again(asked):
    (shards, run, one), path = asked
    run_metrics.check(shards, run, one)
    path.write_text(json.dumps({**GOOD, "gold": 7}) + "\n")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"quiz\.jsonl, line 1: gold is the index"):
            run_metrics.check(shards, run, one)
    path.write_text(json.dumps({**GOOD, "gold": 1}) + "\n")
    os.utime(path, ns=(0, 0))
    run_metrics.check(shards, run, one)


def test_an_answer_longer_than_a_sequence_is_refused_before_training(asked):
    (shards, run, one), path = asked
    path.write_text(json.dumps({**GOOD, "choices": ["a", "b" * 16]}) + "\n")
    with pytest.raises(
        ValueError, match="an answer of 16 tokens leaves no context in a window of 16"
    ):
        run_metrics.check(shards, run, one)


def test_a_source_without_text_cannot_be_asked_tasks_of_text(asked, tiny_run):
    (_, _, one), _ = asked
    with pytest.raises(ValueError, match="made of symbols, not of text"):
        run_metrics.check(prepare(tiny_run.data), tiny_run, one)


def test_two_tasks_of_one_name_are_refused(asked, tmp_path):
    (shards, run, _), path = asked
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "quiz.jsonl").write_bytes(path.read_bytes())
    suites_of = lambda *names: Measure(
        items=0, suites=tuple(f"local:{tmp_path / name}" for name in names)
    )
    with pytest.raises(
        ValueError,
        match=r"two tasks quiz, in .*quiz\.jsonl and .*other/quiz\.jsonl: .*; rename a file",
    ):
        run_metrics.check(shards, run, suites_of("quiz.jsonl", "other"))
    run_metrics.check(shards, run, suites_of("quiz.jsonl", "quiz.jsonl"))
