"""What preparation tells: a bar on a terminal, a line every few seconds elsewhere; on standard error."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
SECONDS = 10.0  # between two lines


def say(line: str) -> None:
    """One line."""
    print(line, file=sys.stderr, flush=True)


def watched(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items, with their count shown while they go by; nothing is shown of what takes less than SECONDS."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, what, total, console=Console(stderr=True), transient=True)
        return
    told, count = time.monotonic(), 0
    for count, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - told > SECONDS:
            told = time.monotonic()
            say(f"{what}: {count:,} documents" + (f" of {total:,}" if total else ""))
