"""One run on many hosts: what the processes of a job exchange.

Every process runs the same program on the same folder, and JAX spreads the arrays over
the devices of all of them. Process 0 alone writes files. With a single process, every
function here does nothing or returns its argument.
"""

import json
from typing import Any

import jax
import numpy as np


def is_main() -> bool:
    """Whether this is process 0, which writes the files."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Wait until every process has come here; `name` must be the same on all."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def gather(values: np.ndarray) -> np.ndarray:
    """The array of every process, [processes, ...]; their shapes must be equal."""
    if jax.process_count() == 1:
        return values[np.newaxis]
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(values)


def all_true(flag: bool) -> bool:
    """Whether the flag is true on every process."""
    return bool(gather(np.array(flag)).all())


def from_main(value: Any) -> Any:
    """The value of process 0 on every process; any JSON value."""
    if jax.process_count() == 1:
        return value
    # Only arrays of a known shape can be exchanged: first the length, then the text.
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(gather(np.array(len(text)))[0])
    padded = np.zeros(length, np.uint8)
    padded[: len(text)] = text[:length]
    return json.loads(gather(padded)[0].tobytes())
