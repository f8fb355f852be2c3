"""SIGTERM and Ctrl-C as a request to save and stop."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stopping_on_signals(
    on_stop: Callable[[], None] = lambda: None,
) -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM or Ctrl-C has arrived.

    `on_stop()` is called when one arrives. A Ctrl-C after that raises
    KeyboardInterrupt.
    """
    halt = threading.Event()

    def stop(number: int, _: object) -> None:
        if halt.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        halt.set()
        on_stop()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield halt.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
