"""Metrics of a run: one JSON line per logged step, from step 0 on, whatever trunk the first steps were trained in."""

import json
import os
from pathlib import Path
from typing import Any

from scalejax.files import read_lines, write_text


class Metrics:
    """The run's metrics.jsonl, open for appending; rows after `step` (of an attempt that was cut off) are dropped first."""

    def __init__(self, path: Path, *, history: Path, step: int):
        """`history` is where the rows up to `step` stand: `path` itself on resume, the trunk's file on a branch."""
        rows = [row for row in read_lines(history) if row["step"] <= step]
        write_text(path, "".join(_line(row) for row in rows))
        self._handle = open(path, "a", encoding="utf-8")

    def write(self, row: dict[str, Any]) -> None:
        """Appends a row; rows of one step are merged on reading."""
        self._handle.write(_line(row))
        self._handle.flush()

    def sync(self) -> None:
        """Makes what was written durable; called before a checkpoint that relies on it."""
        os.fsync(self._handle.fileno())

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
