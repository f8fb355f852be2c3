"""Curves on a dashboard (mirrors scalejax/training/observation/tracking.py).

The tests of TensorBoard and wandb need the extra `track`: `make test-track`.
"""

import logging
import threading
import time
from types import SimpleNamespace

# Imported here because pytest parses its file test_utils.py. Python 3.11 cannot parse
# in two threads at once, and wandb does so in the tracker's.
import orbax.checkpoint  # noqa: F401
import pytest

from scalejax.config import Measure, Placement
from scalejax.files import read_lines
from scalejax.training.loop import Preempted, train, train_segment
from scalejax.training.observation import tracking
from scalejax.training.observation.tracking import Tracker, WeightsAndBiases
from scalejax.training.segment import Segment, TrainingJob
from tests.training.runs import curve, stop_after

MEASURE = Measure(every=1280, tokens=1024, items=0)


class Memory:
    """A dashboard that keeps its rows; `before` is called before each of them."""

    def __init__(self, before=lambda: None):
        self.rows, self.before, self.finished = [], before, False

    def log(self, row):
        self.before()
        self.rows.append(row)

    def finish(self):
        self.finished = True


def test_rows_arrive_in_order_and_nothing_is_said(caplog):
    memory = Memory()
    tracker = Tracker(lambda: memory, "it")
    for step in range(100):
        tracker.write({"step": step})
    tracker.close()
    assert [row["step"] for row in memory.rows] == [*range(100)] and memory.finished
    assert not caplog.records


def refuse():
    raise ConnectionError("the server is down")


@pytest.mark.parametrize("where", ["when it is opened", "when a row is logged"])
def test_a_dashboard_that_is_down_is_said_once_with_the_rows_that_it_lacks(where, caplog):
    opened = refuse if where == "when it is opened" else lambda: Memory(before=refuse)
    tracker = Tracker(opened, "tensorboard")
    for step in range(50):
        tracker.write({"step": step})
    tracker.close()
    (record,) = caplog.records
    assert record.getMessage() == (
        "tensorboard is incomplete (ConnectionError: the server is down): 50 rows were not "
        "copied; metrics.jsonl has all of them"
    )


def test_a_dashboard_that_hangs_delays_nothing_and_fills_a_bounded_queue(monkeypatch, caplog):
    monkeypatch.setattr(tracking, "QUEUE_ROWS", 10)
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 0.05)
    hold = threading.Event()
    tracker = Tracker(lambda: Memory(before=hold.wait), "wandb")
    started = time.monotonic()
    for step in range(1000):
        tracker.write({"step": step})
    tracker.close()
    # It waits for the queue and for the thread, and not once per row.
    assert time.monotonic() - started < 5
    (record,) = caplog.records
    assert record.args[0] == "wandb" and "has not answered" in record.args[1]
    assert 989 <= record.args[2] <= 1000
    hold.set()


def job(run, track):
    segment = Segment(run=run, start=0, stop=run.steps)
    placement = Placement(track=track)
    return TrainingJob(segment=segment, study="s@1", measure=MEASURE, placement=placement)


def interrupt_and_finish(job, folder):
    """Train 25 steps, stop with a checkpoint, and train the rest."""
    job.write(folder)
    with pytest.raises(Preempted):
        train_segment(job, folder, None, stopping=stop_after(25))
    train_segment(job, folder, None)


def test_tracking_is_no_part_of_a_run_and_changes_no_bit_of_it(tiny_run, tmp_path, caplog):
    """A dashboard whose package is missing costs a warning."""
    plain = train(tiny_run, out=tmp_path / "plain", measure=MEASURE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "wandb", None)
        tracked = train(tiny_run, Placement(track="wandb"), tmp_path / "tracked", measure=MEASURE)
    assert tracked.loss == plain.loss and tracked.row["run"] == plain.row["run"]
    assert curve(tmp_path / "tracked") == curve(tmp_path / "plain")
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARN]
    assert len(messages) == 1 and "wandb is incomplete" in messages[0]


def test_a_row_has_the_gradient_norm_and_the_last_window_is_logged(tiny_run, tmp_path):
    run = tiny_run.replace(tokens=50 * 64)
    train(run, out=tmp_path, measure=MEASURE)
    rows = [row for row in read_lines(tmp_path / "metrics.jsonl") if "train_loss" in row]
    # The last 10 steps are no complete window of 20.
    assert [row["step"] for row in rows] == [20, 40, 50]
    assert all(row["grad_norm"] > 0 and row["train_loss"] > 0 for row in rows)


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_holds_every_row_once_at_its_tokens(tiny_run, tmp_path, monkeypatch):
    """Even if a run stops and continues within the second that names its files."""
    pytest.importorskip("tensorboardX", reason="needs the extra `track`: make test-track")
    from tensorboardX import event_file_writer  # pyright: ignore[reportMissingImports]
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportMissingImports]

    one_second = SimpleNamespace(time=lambda: 1.8e9)
    monkeypatch.setattr(event_file_writer, "time", one_second)
    folder = tmp_path / "s@1" / "runs" / "a"
    interrupt_and_finish(job(tiny_run, "tensorboard"), folder)
    points, purged = {}, []
    for path in sorted((tmp_path / "s@1" / "tensorboard" / "a").iterdir()):
        content = path.read_bytes()
        while content:
            # A record: length (8 bytes), its checksum (4), the event, its checksum (4).
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            if event.HasField("session_log"):
                purged.append(event.step)
            for value in event.summary.value:
                points[value.tag, event.step] = value.simple_value
    rows = read_lines(folder / "metrics.jsonl")
    expected = {
        (name, row["tokens"]): row[name]
        for row in rows
        for name in ("train_loss", "loss", "grad_norm", "learning_rate")
        if name in row
    }
    assert len(expected) > 10 and purged == [20 * 64 + 1]
    assert {key: points[key] for key in expected} == pytest.approx(expected, rel=1e-6)
    assert points["flops", 3840] > points["flops", 1280] > 0


def wandb_records(content):
    """The records of an offline file: a LevelDB log behind a header of 7 bytes."""
    position, record = 7, b""
    while position + 7 <= len(content):
        # No header of a record is divided between two blocks of 32 KiB.
        left = 32_768 - position % 32_768
        if left < 7:
            position += left
            continue
        length, kind = (
            int.from_bytes(content[position + 4 : position + 6], "little"),
            content[position + 6],
        )
        if position + 7 + length > len(content):
            return  # a record that is not written yet
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        # Whole records, and the last parts of divided ones.
        if kind in (1, 4):
            yield record
            record = b""


def finished_records(file):
    """The records of an offline file, with the last one.

    wandb's own process writes the file, and may go on after wandb has finished.
    """
    from wandb.proto import wandb_internal_pb2 as pb  # pyright: ignore[reportMissingImports]

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        records = [pb.Record.FromString(data) for data in wandb_records(file.read_bytes())]
        if records and records[-1].WhichOneof("record_type") == "exit":
            return records
        time.sleep(0.1)
    raise TimeoutError(f"{file} has no last record")


def wandb_offline(monkeypatch):
    """Let wandb write files, or skip the test where it is not installed."""
    pytest.importorskip("wandb", reason="needs the extra `track`: make test-track")
    monkeypatch.setenv("WANDB_MODE", "offline")
    # wandb starts a process of its own, which takes long on a busy machine.
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 300)


def read_back(files):
    """Rows and runs in the offline files: (losses by tokens, every row, every run)."""
    rows, runs = [], []
    for file in files:
        for record in finished_records(file):
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({i.key or i.nested_key[0]: float(i.value_json) for i in items})
            elif record.WhichOneof("record_type") == "run":
                runs.append(record.run)
    return losses_by_tokens(rows), rows, runs


def losses_by_tokens(rows):
    return {row["tokens"]: row["train_loss"] for row in rows if "train_loss" in row}


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline_files_read_back(tiny_run, tmp_path, monkeypatch):
    wandb_offline(monkeypatch)
    tracked = job(tiny_run, "wandb")
    interrupt_and_finish(tracked, tmp_path / "run")
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    # One file per attempt, of one run.
    assert len(files) == 2
    logged, rows, runs = read_back(files)
    assert {run.run_id for run in runs} == {f"s-1-{tracked.segment.id}"}
    assert {run.run_group for run in runs} == {"s@1"}
    assert {run.display_name for run in runs} == {tracked.segment.id}
    assert logged == losses_by_tokens(curve(tmp_path / "run"))
    assert all(row["flops"] > 0 for row in rows)


@pytest.mark.filterwarnings("ignore")
def test_runs_that_are_trained_together_are_two_on_wandb(tiny_run, tmp_path, monkeypatch):
    wandb_offline(monkeypatch)
    jobs = [job(tiny_run.replace(seed=seed), "wandb") for seed in range(2)]
    folders = [tmp_path / tracked.segment.id for tracked in jobs]
    open_runs = []
    for tracked, folder in zip(jobs, folders, strict=True):
        folder.mkdir()
        open_runs.append(WeightsAndBiases(tracked, folder, folder, 0))
    for number, one in enumerate(open_runs):
        one.log({"tokens": 64, "train_loss": float(number)})
    for number, (tracked, folder) in enumerate(zip(jobs, folders, strict=True)):
        open_runs[number].finish()
        logged, _, runs = read_back((folder / "wandb").glob("offline-run-*/*.wandb"))
        assert {run.run_id for run in runs} == {f"s-1-{tracked.segment.id}"}
        assert logged == {64: number}
