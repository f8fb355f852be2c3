"""Files that appear complete or not at all, and JSON lines that survive a kill."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

# Version that every JSON file carries in its field `format`.
FORMAT = 1

# What `check_fence` calls.
_fence: ContextVar[Callable[[], None]] = ContextVar("fence", default=lambda: None)


@contextmanager
def fenced(check: Callable[[], None]) -> Iterator[None]:
    """Write files in this block only while `check()` does not raise.

    A process may be suspended for hours at any line, and another one may do its work
    meanwhile. So every file is checked at the last moment, when only its name is
    missing. A thread has no fence, unless it runs in a `contextvars.copy_context()`.
    """
    token = _fence.set(check)
    try:
        yield
    finally:
        _fence.reset(token)


def check_fence() -> None:
    """Raise an exception when this process may not write any more; see `fenced`."""
    _fence.get()()


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write {"format": 1, **value}.

    A reader sees the old file or the new one, never a mix. Raises ValueError for nan
    and infinity, which JSON does not have.
    """
    write_text(path, json.dumps({"format": FORMAT, **value}, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace the content of a file as a whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which is renamed to `path` at the end of the block.

    Renaming is atomic. Both the file and its name are on the disk when the block has
    ended.
    """
    # The process id keeps two processes from writing to the same temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # In a folder from somebody else, this could be a link.
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        # The order matters: a name that reaches the disk before the content would,
        # after a power failure, name an empty file.
        sync(temporary)
        check_fence()
        os.replace(temporary, path)
    except BaseException:
        # On a full disk, half a file would take the space that another one needs.
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def replace_link(path: Path) -> None:
    """Replace a link by a copy of the file that it names; other paths stay as they are.

    Call this before a file of a study is opened for appending. The folder may come from
    somebody else, and its links may name files of yours.
    """
    if path.is_symlink():
        if path.is_file():
            with replacing(path) as temporary:
                shutil.copyfile(path, temporary)
        else:
            path.unlink()


def check_can_be_folder(folder: Path) -> None:
    """Raise ValueError unless files can be written to `folder`, which is not made yet.

    Call this before long work whose results go there.
    """
    # A link that leads nowhere is in the way as well.
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return
    reason = "cannot be written" if nearest.is_dir() else "is not a folder"
    raise ValueError(
        f"nothing can be written to the folder {folder}, because {nearest} {reason}; give another "
        "folder with --out (in Python, `out`), or change that one"
    )


def make_folder(path: Path) -> None:
    """Create a folder in an existing one, unless it is there; see `refuse_link`."""
    refuse_link(path)
    path.mkdir(exist_ok=True)


def refuse_link(folder: Path) -> None:
    """Raise ValueError when a folder in which files are deleted or replaced is a link.

    The folder that it names may hold files of the user that have the same names.
    """
    if folder.is_symlink():
        raise ValueError(
            f"{folder} is a link to {os.readlink(folder)}; expected a folder that belongs to the "
            "study, because files in it are replaced and deleted: remove the link, and move the "
            "folder that it names here if it is the study's; for another disk, use --out"
        )


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file that `write_json` wrote.

    Raises ValueError, naming the file, when it is not JSON or has another format.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); delete it and run again") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ValueError(f"{path} is not a scalejax file of format {FORMAT}")
    return value


def wrong_field(record: Mapping[str, Any], kinds: Mapping[str, Any]) -> str:
    """The first field of a record that is missing or not of its type; "" without one.

    `kinds` maps each required field to its type or types. A truth value is no number.

    >>> wrong_field({"step": 3, "loss": True}, {"step": int, "loss": (int, float)})
    'loss'
    """
    for name, kind in kinds.items():
        # A field that may be null must still be there.
        if name not in record:
            return name
        value = record[name]
        is_bool = isinstance(value, bool)
        takes_bool = kind is bool or (isinstance(kind, tuple) and bool in kind)
        if not isinstance(value, kind) or (is_bool and not takes_bool) or _is_huge(value):
            return name
    return ""


def _is_huge(value: object) -> bool:
    """Whether a number is beyond what a float holds: JSON can spell such integers."""
    return isinstance(value, int) and abs(value) >= 2**1023


def content_hash(record: Mapping[str, Any]) -> str:
    """The sha256 of a record of JSON values, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes, which are read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Append one JSON object per line, and wait until they are on the disk.

    A last line that a killed process left incomplete is removed first.
    """
    replace_link(path)
    if path.exists() and not (old := path.read_bytes()).endswith(b"\n"):
        os.truncate(path, old.rfind(b"\n") + 1)
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    with open(path, "a", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def append_chained(path: Path, row: Mapping[str, object]) -> None:
    """Append a JSON line that carries the sha256 of the line before, as `previous`.

    A later change of a line therefore shows in the line that follows it, and in the
    last line by its own hash, `sha256`. Processes that append at the same time wait for
    each other.
    """
    # The file that is locked must be the one that the lines are appended to.
    replace_link(path)
    with path.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        lines = _complete_lines(path)
        chained = {**row, "previous": _line_hash(lines[-1]) if lines else ""}
        append_lines(path, [{**chained, "sha256": content_hash(chained)}])


def broken_link(path: Path) -> int | None:
    """The number of the first line that `append_chained` cannot have written, from 1.

    None for a file whose chain is whole. Lines without `previous` before the first line
    with it are not part of the chain.
    """
    before, chained = b"", False
    for number, line in enumerate(_complete_lines(path), start=1):
        try:
            record = json.loads(line)
            previous, own_hash = record.get("previous"), record.pop("sha256", None)
        except (ValueError, AttributeError):
            return number
        chained = chained or previous is not None
        link = _line_hash(before) if number > 1 else ""
        if chained and (previous, own_hash) != (link, content_hash(record)):
            return number
        before = line
    return None


def _complete_lines(path: Path) -> list[bytes]:
    """The lines of a file that end in a newline, without it."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def _line_hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; an absent file has none.

    A last line that a killed process left incomplete is ignored. Raises ValueError,
    naming the file and the line, when any other line is not JSON.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: it is not UTF-8 text ({error})") from error
    # Not splitlines, which would also split at a U+2028 inside a string.
    lines = text.split("\n")
    rows = []
    # Behind the last newline lies an empty string, or an incomplete line.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is not JSON: {line[:80]!r}") from error
        if not isinstance(rows[-1], dict):
            raise ValueError(f"{path}, line {number} is not a JSON object: {line[:80]!r}")
    return rows
