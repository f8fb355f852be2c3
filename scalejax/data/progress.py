"""Progress of the preparation, on standard error."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

# Seconds between two lines of progress where there is no terminal.
INTERVAL = 10.0


def say(line: str) -> None:
    """Print one line."""
    print(line, file=sys.stderr, flush=True)


def with_progress(items: Iterable[T], task: str, total: int | None = None) -> Iterator[T]:
    """Yield the items, and show how many have gone by.

    A terminal gets a progress bar. Anything else, such as a log file, gets a line every
    INTERVAL seconds.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        yield from track(items, task, total, console=console, transient=True)
        return
    last_line = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last_line > INTERVAL:
            last_line = time.monotonic()
            say(f"{task}: {count:,} documents" + (f" of {total:,}" if total else ""))
