"""Claims: which process trains which segment of a study, as files in its folder.

Any number of processes, on any machines that see the folder, can train a study
together. Before it trains a segment, a process creates `claims/<id>.json`, which only
one can do. While it trains, a thread counts up a number in the file. A process that
sees the number stand still for STALE_SECONDS takes the claim over: its owner is dead,
or as good as dead. An owner that comes back to life finds the claim lost before it
writes.

No clock is compared with that of another machine: a process measures with its own how
long it has seen the number unchanged. Only the claim of a process that has died on this
very machine is taken over at once.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from scalejax.files import FORMAT, make_folder

# Seconds between two counts of an owner, and how long a count may stand still. A busy
# machine or a slow network drive delays counts, so that several must be missing.
HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0

# An owner does not read its claim again within this time. A process that was paused
# for longer than STALE_SECONDS always reads it.
FRESH_SECONDS = 1.0


class ClaimLost(Exception):
    """Another process has taken the segment over; this one must not write any more."""


class Claim:
    """A segment that this process trains; see `Claims.take`.

    A context manager: at its end, the segment is given back.
    """

    def __init__(self, path: Path, owner: dict[str, Any]):
        self._path, self._owner, self._count = path, owner, 0
        self._seen_at = time.monotonic()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._count_up, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def check(self) -> None:
        """Raise ClaimLost unless this process still owns the claim."""
        # After a pause of the process, more than this has passed, and the file is read.
        if time.monotonic() - self._seen_at < FRESH_SECONDS:
            return
        if not self._is_ours():
            raise ClaimLost(f"another process has taken over {self._path.stem}")
        self._seen_at = time.monotonic()

    def release(self) -> None:
        """Give the segment back. The next process that asks can take it at once."""
        self._closing.set()
        self._thread.join()
        if self._is_ours():
            self._path.unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        return _read(self._path).get("token") == self._owner["token"]

    def _count_up(self) -> None:
        while not self._closing.wait(HEARTBEAT_SECONDS):
            # A disk that is full or away for a moment must not end the count for good,
            # because a claim that stands still is taken over. `check` finds out when it
            # is lost.
            with contextlib.suppress(OSError):
                if self._is_ours():
                    _replace(self._path, self._owner | {"heartbeat": self._count + 1})
                    self._count += 1


class _Sight(NamedTuple):
    """A claim of another process as it was last seen."""

    content: dict[str, Any]
    at: float
    """When this content was first seen, by this process's monotonic clock."""


class Claims:
    """The claims of a study's folder, as one process sees them."""

    def __init__(self, study: Path):
        self.folder = study / "claims"
        self._owner = {
            "format": FORMAT,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "born": _born(os.getpid()),
            "machine": _machine(),
            "token": uuid.uuid4().hex,
        }
        self._sights: dict[str, _Sight] = {}

    def take(self, segment: str) -> Claim | None:
        """Claim a segment, given by its id; None while another process owns it."""
        path = self.folder / f"{segment}.json"
        # A link to nothing does not exist, but is in the way of a claim.
        if os.path.lexists(path) and self._is_stale(segment, path):
            self._remove(path, self._sights[segment].content)
        make_folder(self.folder)
        if not _create(path, self._owner | {"heartbeat": 0}):
            return None
        self._sights.pop(segment, None)
        return Claim(path, self._owner)

    def _is_stale(self, segment: str, path: Path) -> bool:
        """Whether the owner has died here, or has not counted for STALE_SECONDS."""
        content, now = _read(path), time.monotonic()
        seen = self._sights.get(segment)
        if seen is None or seen.content != content:
            seen = self._sights[segment] = _Sight(content, now)
        return _has_died_here(content) or now - seen.at > STALE_SECONDS

    def _remove(self, path: Path, stale: dict[str, Any]) -> None:
        """Remove a stale claim, unless somebody else was faster.

        Two processes may find the same claim stale. The second one must not remove the
        new claim of the first: it moves the file aside, and puts it back when its
        content is another one.
        """
        aside = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.stale")
        with contextlib.suppress(FileNotFoundError):
            path.rename(aside)
            if _read(aside) != stale:
                with contextlib.suppress(FileExistsError):
                    os.link(aside, path)
            aside.unlink()


class Owners:
    """Who trains what in a study, as seen by somebody who only looks.

    A file alone does not say whether its owner is alive. An owner on this machine is
    looked up among its processes. That of another machine is alive when its number has
    been seen to change, which takes two looks at least HEARTBEAT_SECONDS apart.
    """

    def __init__(self, study: Path):
        self.folder = study / "claims"
        self.silent: dict[str, str] = {}
        """Claims of other machines that have not been seen to count, as `alive`."""
        self._sights: dict[str, _Sight] = {}
        self._counting: set[str] = set()

    def alive(self) -> dict[str, str]:
        """Look once; return `host:process` by the id of the segment that it trains."""
        found: dict[str, str] = {}
        self.silent = {}
        for path in sorted(self.folder.glob("*.json")):
            segment, content, now = path.stem, _read(path), time.monotonic()
            name = f"{content.get('host', '?')}:{content.get('process', '?')}"
            if _is_of_this_machine(content):
                if not _has_died_here(content):
                    found[segment] = name
                continue
            seen = self._sights.get(segment)
            if seen is None or seen.content != content:
                # The first sight of a file shows nothing; a later change does.
                if seen is not None:
                    self._counting.add(segment)
                seen = self._sights[segment] = _Sight(content, now)
            if segment in self._counting and now - seen.at < STALE_SECONDS:
                found[segment] = name
            else:
                self.silent[segment] = name
        return found


def _machine() -> str:
    """What tells apart machines, restarts of a machine, and containers on it.

    Empty where the system does not say, as outside Linux.
    """
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _is_of_this_machine(claim: dict[str, Any]) -> bool:
    is_number = isinstance(claim.get("process"), int)
    return is_number and bool(_machine()) and claim.get("machine") == _machine()


def _has_died_here(claim: dict[str, Any]) -> bool:
    """Whether a claim is of a process of this machine that does not run any more."""
    if not _is_of_this_machine(claim):
        return False
    born = _born(claim["process"])
    return not born or born != claim.get("born", born)


def _born(process: int) -> str:
    """When a process of this machine began, in the kernel's ticks; "" for a dead one.

    Process numbers are used again, but not together with the same beginning.
    """
    with contextlib.suppress(OSError):
        # The name, in brackets, may hold spaces. The state is the first field behind it
        # and the beginning the twentieth.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        # A zombie runs no more; in a container it may never be collected.
        return "" if fields[0] in "ZX" else fields[19]
    return ""


def _create(path: Path, content: dict[str, Any]) -> bool:
    """Create a file with its content, or return False when there is one."""
    try:
        # O_EXCL lets exactly one of several processes succeed, over NFS as well.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(content))
    return True


def _replace(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    # In a folder from somebody else, this could be a link.
    temporary.unlink(missing_ok=True)
    temporary.write_text(json.dumps(content))
    os.replace(temporary, path)


def _read(path: Path) -> dict[str, Any]:
    """Read a claim. One that is being written, or was cut by a crash, is empty."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
