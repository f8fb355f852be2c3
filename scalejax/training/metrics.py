"""The curves of a run: metrics.jsonl, one JSON object per logged step.

The file begins at step 0, even when the first steps were trained in a trunk's folder.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from scalejax.files import read_lines, write_text

MetricsRow = Mapping[str, float | str | None]


@dataclass(frozen=True)
class MetricsFile:
    """A run's metrics.jsonl, open for appending."""

    handle: TextIO

    def write(self, row: MetricsRow) -> None:
        """Append a row; readers of the file merge the rows of one step."""
        self.handle.write(_line(row))
        # Flushed at once, so that `scalejax status` sees it; not synced, which is slow.
        self.handle.flush()

    def sync(self) -> None:
        """Wait until all rows are on the disk."""
        os.fsync(self.handle.fileno())


@contextlib.contextmanager
def open_metrics(path: Path, *, history: Path, step: int) -> Iterator[MetricsFile]:
    """Open metrics.jsonl with the rows of `history` up to `step`.

    `history` is `path` itself on a resume and the trunk's file on a branch. Rows after
    `step` are dropped: they belong to an attempt that was killed after its last
    checkpoint, and their steps are trained again.
    """
    rows = [row for row in read_lines(history) if row["step"] <= step]
    write_text(path, "".join(_line(row) for row in rows))
    with open(path, "a", encoding="utf-8") as handle:
        yield MetricsFile(handle)


def _line(row: MetricsRow) -> str:
    return json.dumps(dict(row), allow_nan=False) + "\n"
