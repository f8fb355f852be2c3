"""The curves of a run: metrics.jsonl, one JSON object per logged step.

The file begins at step 0, even when the first steps were trained in a trunk's folder.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO, TypedDict

from scalejax.files import write_text
from scalejax.training import distributed

# How much of the end of metrics.jsonl is read for its last rows.
TAIL_BYTES = 4096

MetricsRow = Mapping[str, float | str | None]


class Position(TypedDict):
    """A position in metrics.jsonl, as a checkpoint stores it."""

    rows: int
    """Number of rows before it."""
    sha256: str
    """Hash of these rows."""


class MetricsFile:
    """A run's metrics.jsonl, open for appending."""

    def __init__(self, handle: TextIO | None, history: str):
        """Append to `handle`, which holds `history` already; None writes nothing."""
        self._handle = handle
        self._rows = history.count("\n")
        self._digest = hashlib.sha256(history.encode())

    @property
    def position(self) -> Position:
        """The end of the file."""
        return {"rows": self._rows, "sha256": self._digest.hexdigest()}

    def write(self, row: MetricsRow) -> None:
        """Append a row; readers of the file merge the rows of one step."""
        line = json.dumps(dict(row), allow_nan=False) + "\n"
        self._rows += 1
        self._digest.update(line.encode())
        if self._handle:
            self._handle.write(line)
            # Flushed at once, so that `scalejax status` sees it; not synced, which is
            # slow.
            self._handle.flush()

    def sync(self) -> None:
        """Wait until all rows are on the disk."""
        if self._handle:
            os.fsync(self._handle.fileno())


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


def last_row(folder: Path) -> tuple[int, float] | None:
    """The step and the training loss of a segment's last row of training.

    None when there is no such row yet. Only the end of the file is read.
    """
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    for line in reversed(lines):
        # The first line may be cut, and another process may be writing the last one.
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            row = json.loads(line)
            return int(row["step"]), float(row["train_loss"])
    return None


@contextlib.contextmanager
def open_metrics(path: Path, *, history: str) -> Iterator[MetricsFile]:
    """Open metrics.jsonl with the rows of `history`, and drop all others.

    On many hosts, process 0 alone writes the file.
    """
    if not distributed.is_main():
        yield MetricsFile(None, history)
        return
    write_text(path, history)
    with open(path, "a", encoding="utf-8") as handle:
        yield MetricsFile(handle, history)
