"""The curves of a run, as others read them (mirrors scalejax/training/metrics.py)."""

import json

from scalejax.training.metrics import TAIL_BYTES, last_rows


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
