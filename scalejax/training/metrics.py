"""The curves of a run: metrics.jsonl, one JSON object per logged step.

The file begins at step 0, even when the first steps were trained in a trunk's folder.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypedDict

import numpy as np

from scalejax.files import write_text, wrong_field
from scalejax.training import distributed
from scalejax.training.observation.tracking import open_tracker
from scalejax.training.segment import TrainingJob

# Bytes at the end of metrics.jsonl that `last_rows` reads: some 20 rows. The file
# itself grows with the run, and the status of thousands of runs must not.
TAIL_BYTES = 4096

# How far above the losses before it a loss is a spike, in standard deviations, and how
# many losses that are: at most, which is 1,000 steps, and at least.
SPIKE_DEVIATIONS, SPIKE_WINDOW, SPIKE_HISTORY = 7, 50, 10

# The fields that a row with a training loss must have.
NUMBER = (int, float)
ROW_TYPES = {"step": int, "tokens": NUMBER, "seconds": NUMBER}
ROW_TYPES |= {"train_loss": (*NUMBER, type(None))}

MetricsRow = Mapping[str, float | str | None]


class Position(TypedDict):
    """A position in metrics.jsonl, as a checkpoint stores it."""

    rows: int
    """Number of rows before it."""
    sha256: str
    """Hash of these rows."""


class MetricsFile:
    """A run's metrics.jsonl, open for appending."""

    def __init__(self, handle: TextIO | None, history: str, copy: Callable[[MetricsRow], None]):
        """Append to `handle`, which holds `history` already; None writes nothing.

        `copy` is called with every row that is written.
        """
        self._handle, self._copy = handle, copy
        self._rows = history.count("\n")
        self._digest = hashlib.sha256(history.encode())
        self.train_losses: list[float] = []
        """The training losses of all rows that have one."""
        for line in history.splitlines():
            self._keep(json.loads(line))

    @property
    def position(self) -> Position:
        """The end of the file."""
        return {"rows": self._rows, "sha256": self._digest.hexdigest()}

    def write(self, row: MetricsRow) -> None:
        """Append a row; readers of the file merge the rows of one step."""
        line = json.dumps(dict(row), allow_nan=False) + "\n"
        self._rows += 1
        self._digest.update(line.encode())
        self._keep(row)
        if self._handle:
            self._handle.write(line)
            # Flushed at once, so that `scalejax status` sees it; not synced, which is
            # slow.
            self._handle.flush()
            self._copy(row)

    def _keep(self, row: MetricsRow) -> None:
        if isinstance(loss := row.get("train_loss"), float):
            self.train_losses.append(loss)

    def sync(self) -> None:
        """Wait until all rows are on the disk."""
        if self._handle:
            os.fsync(self._handle.fileno())


def spike_score(losses: Sequence[float]) -> float:
    """The share of training losses that are spikes.

    A spike is a loss more than 7 standard deviations above the mean of up to 50 losses
    before it. The first 10 losses are not judged; without any others, the score is NaN.

    OLMo 2 (arXiv 2501.00656) compares the losses of single steps with the 1,000 steps
    before, and also counts those far below the mean. The losses here are those of
    metrics rows, means of 20 steps, so that a spike of a single step must be higher.

    >>> noise = [3.0, 3.1] * 20
    >>> spike_score(noise), spike_score([*noise, 4.0, 3.0])
    (0.0, 0.03125)
    """
    values = np.asarray(losses, np.float64)
    spikes = []
    for i in range(SPIKE_HISTORY, len(values)):
        before = values[max(0, i - SPIKE_WINDOW) : i]
        spikes.append(values[i] > before.mean() + SPIKE_DEVIATIONS * before.std())
    return float(np.mean(spikes)) if spikes else math.nan


def read_history(path: Path, position: Position) -> str:
    """The rows of a metrics.jsonl before `position`, as text.

    Later rows are left out: they belong to an attempt that was killed after its last
    checkpoint, and their steps are trained again.

    Raises ValueError when rows are missing or changed.
    """
    content = path.read_bytes() if path.exists() else b""
    lines = content.split(b"\n")[:-1][: position["rows"]]
    history = b"".join(line + b"\n" for line in lines)
    if hashlib.sha256(history).hexdigest() != position["sha256"]:
        raise ValueError(
            f"{path} has lost or changed rows that were logged before the last checkpoint "
            f"({position['rows']} rows): restore the file, or delete the run's folder to train "
            "it anew"
        )
    return history.decode()


def last_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the last rows of a metrics.jsonl that have a training loss, oldest first.

    Raises ValueError for a row that is damaged.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    with path.open("rb") as file:
        start = max(0, path.stat().st_size - TAIL_BYTES)
        file.seek(start)
        lines = file.read().split(b"\n")
    # Behind the last newline lies nothing, or a row that is being written. In front of
    # the first one lies a part of a row, unless the file was read from its start.
    rows = []
    for line in lines[1 if start else 0 : -1]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or ("train_loss" in row and wrong_field(row, ROW_TYPES)):
            raise ValueError(
                f"{path} is damaged: a row near its end reads {line[:80]!r}; restore the file, or "
                f"delete {path.parent} to train the run anew"
            )
        if "train_loss" in row:
            rows.append(row)
    return rows


@contextlib.contextmanager
def open_metrics(job: TrainingJob, folder: Path, *, history: str) -> Iterator[MetricsFile]:
    """Open metrics.jsonl with the rows of `history`, and drop all others.

    Rows are also copied to where `Placement.track` says. On many hosts, only process 0
    writes.
    """
    if not distributed.is_main():
        yield MetricsFile(None, history, copy=lambda row: None)
        return
    path = folder / "metrics.jsonl"
    write_text(path, history)
    with (
        open_tracker(job, folder, history=history) as copy,
        open(path, "a", encoding="utf-8") as handle,
    ):
        yield MetricsFile(handle, history, copy)
