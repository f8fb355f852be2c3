"""Files that are whole or absent: atomic JSON and text, and JSON lines that a kill cannot spoil."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FORMAT = 1
"""Version carried by every JSON file."""


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes {format: 1, **value} whole: a reader sees the old file or the new one, never a half."""
    write_text(path, json.dumps({"format": FORMAT, **value}, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replaces the file as a whole (temporary file, fsync, rename, fsync of the folder)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to write, which takes the place of `path` as a whole when it is on the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    yield temporary
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError naming the file when it is not JSON or of a newer format."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); delete it and run again") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ValueError(f"{path} is not a scalejax file of format {FORMAT}")
    return value


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Appends one JSON object a line, durably; a last line that a kill cut short is cut off first."""
    if path.exists() and not (old := path.read_bytes()).endswith(b"\n"):
        os.truncate(path, old.rfind(b"\n") + 1)
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    with open(path, "a", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; [] when absent. A last line cut short by a kill is left out.

    Raises ValueError naming the file and the line when any other line is not a JSON object.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")  # not splitlines: U+2028 inside a string is no line end
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {line[:80]!r}") from error
    return rows
