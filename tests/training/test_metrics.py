"""The curves of a run, as others read them (mirrors scalejax/training/metrics.py)."""

import json
import math

import numpy as np
import pytest

from scalejax.config import Placement
from scalejax.files import read_lines
from scalejax.training.loop import Preempted, train, train_segment
from scalejax.training.metrics import TAIL_BYTES, last_rows, spike_score
from scalejax.training.segment import Segment, TrainingJob
from tests.training.runs import stop_after


def rows_of(steps):
    return [{"step": step, "tokens": step, "seconds": 1.0, "train_loss": 3.5} for step in steps]


def write(folder, rows, end=""):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines + end)


def test_only_the_end_of_a_long_file_is_read(tmp_path):
    assert last_rows(tmp_path) == []
    rows = rows_of(range(1000))
    write(tmp_path, rows)
    last = last_rows(tmp_path)
    assert last == rows[-len(last) :] and 10 < len(last) < TAIL_BYTES / 40


def test_evaluations_and_a_row_in_the_making_are_left_out(tmp_path):
    rows = [*rows_of([20]), {"step": 40, "tokens": 40, "seconds": 2.0, "train_loss": None}]
    write(tmp_path, [*rows, {"step": 40, "weights": "raw", "loss": 3.4}], end='{"step": 60, "tr')
    assert last_rows(tmp_path) == rows
    write(tmp_path, [], end='{"step": 60')
    assert last_rows(tmp_path) == []


def test_spikes_are_counted_and_a_fall_is_none():
    rng = np.random.default_rng(0)
    losses = 3 + 4 * 0.9 ** np.arange(400) + rng.normal(0, 0.02, 400)
    assert spike_score(list(losses)) == 0
    losses[[100, 200, 300]] += 0.5
    assert spike_score(list(losses)) == pytest.approx(3 / 390)
    losses[[100, 200, 300]] -= 1
    assert spike_score(list(losses)) == 0
    assert math.isnan(spike_score(list(losses[:10])))


def test_the_spike_score_of_a_run_is_that_of_its_whole_curve(tiny_run, tiny_measure, tmp_path):
    run = tiny_run.replace(tokens=260 * tiny_run.batch_tokens)
    segment = Segment(run=run, start=0, stop=run.steps)
    job = TrainingJob(segment=segment, study="", measure=tiny_measure, placement=Placement())
    job.write(tmp_path)
    with pytest.raises(Preempted):
        train_segment(job, tmp_path, None, stopping=stop_after(130))
    row = train(run, out=tmp_path, measure=tiny_measure).row
    rows = read_lines(tmp_path / "metrics.jsonl")
    losses = [line["train_loss"] for line in rows if "train_loss" in line]
    assert len(losses) == 13 and row["spike_score"] == spike_score(losses)
