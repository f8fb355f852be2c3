"""SIGTERM and Ctrl-C as a request to save and stop."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM or Ctrl-C has arrived.

    A second Ctrl-C raises KeyboardInterrupt.
    """
    halt = threading.Event()

    def stop(number: int, _: object) -> None:
        if halt.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        halt.set()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield halt.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
