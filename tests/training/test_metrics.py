"""The curves of a run, as others read them (mirrors scalejax/training/metrics.py)."""

import json

from scalejax.training.metrics import TAIL_BYTES, last_row


def write(folder, rows, end=""):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines + end)


def test_the_last_row_of_training_is_found_at_the_end_of_a_long_file(tmp_path):
    assert last_row(tmp_path) is None
    rows = [{"step": step, "train_loss": 5.0 - step / 1000} for step in range(1000)]
    write(tmp_path, rows)
    assert (tmp_path / "metrics.jsonl").stat().st_size > TAIL_BYTES
    assert last_row(tmp_path) == (999, 5.0 - 0.999)


def test_evaluations_skipped_steps_and_a_line_in_the_making_are_passed_over(tmp_path):
    rows = [{"step": 20, "train_loss": 3.5}, {"step": 40, "train_loss": None}]
    write(tmp_path, [*rows, {"step": 40, "weights": "raw", "loss": 3.4}], end='{"step": 60, "tr')
    assert last_row(tmp_path) == (20, 3.5)
    write(tmp_path, [], end='{"step": 60')
    assert last_row(tmp_path) is None
