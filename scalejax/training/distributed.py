"""One run on many hosts: start-up, and what the processes of a job exchange.

Every process calls `connect` first, and then the same functions on the same folder,
which all of them must see. JAX spreads the arrays over the devices of all processes;
only process 0 writes files. With a single process, the other functions here do nothing
or return their argument.
"""

import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Sharding
from jax.typing import ArrayLike

# A process that has not been heard of for so long counts as dead, and the others end.
HEARTBEAT_SECONDS = 30

# Environment variables that name the processes where neither SLURM, TPU nor MPI does.
ADDRESS = "JAX_COORDINATOR_ADDRESS"
PROCESSES, PROCESS = "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def connect() -> None:
    """Join the processes of this job; every process calls it before it uses JAX.

    Under SLURM (`srun`), on a TPU pod and under Open MPI, JAX finds the processes by
    itself. Elsewhere, JAX_COORDINATOR_ADDRESS (host:port of process 0),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID (from 0) say what they are.

    When a process dies, JAX ends the others within about HEARTBEAT_SECONDS. Start them
    all again: training continues from the last checkpoint.

    Raises ValueError when nothing says which processes there are.
    """
    given = {name: os.environ.get(name) for name in (ADDRESS, PROCESSES, PROCESS)}
    missing = [name for name, value in given.items() if not value]
    explicit = {}
    if len(missing) < len(given):
        if missing:
            raise ValueError(
                f"{', '.join(given.keys() - set(missing))} is set, but {missing[0]} is not: set "
                f"{ADDRESS} (host:port of process 0), {PROCESSES} and {PROCESS} for every process"
            )
        explicit = {
            "coordinator_address": given[ADDRESS],
            "num_processes": _integer(PROCESSES),
            "process_id": _integer(PROCESS),
        }
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS, **explicit)
    except ValueError as error:
        raise ValueError(
            f"the processes of this job cannot be found ({error}): start them with srun or on a "
            f"TPU pod, or set {ADDRESS} (host:port of process 0), {PROCESSES} and {PROCESS}"
        ) from error


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


def spread(
    sharding: Sharding, shape: tuple[int, ...], read: Callable[[int, int], np.ndarray]
) -> ArrayLike:
    """An array of all processes whose first axis is split by `sharding`.

    `read(start, stop)` gives these rows; a process is asked only for those of its own
    devices.
    """
    # With a single process, jit splits a numpy array faster than we could here.
    if jax.process_count() == 1:
        return read(0, shape[0])

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None  # JAX always gives one to an array that has a shape.
        start, stop, _ = index[0].indices(shape[0])
        return read(start, stop)

    return jax.make_array_from_callback(shape, sharding, part)


def to_host(array: jax.Array) -> np.ndarray:
    """The whole array as numpy, also where other processes hold parts of it."""
    if array.is_fully_addressable:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(array, tiled=True)


class Agreement(NamedTuple):
    """What all processes do after the same step."""

    stop: bool
    """Save and stop."""
    save: bool
    """Save a checkpoint."""


def agree(step: int, *, stop: bool, save: bool, exchange: bool) -> Agreement:
    """Make one decision of what each process would do after `step`.

    All stop when one is to stop; process 0, by its clock, decides when to save. To
    exchange flags waits for the device, so that it is done only when `exchange` says
    so. SIGTERM on any host needs no exchange: JAX tells every process in the
    background, together with the step after which they can all stop.
    """
    if jax.process_count() == 1:
        return Agreement(stop, save)
    from jax.experimental import multihost_utils

    terminated = multihost_utils.reached_preemption_sync_point(step)
    if not exchange:
        return Agreement(terminated, save=False)
    flags = gather(np.array([stop, save]))
    return Agreement(terminated or bool(flags[:, 0].any()), bool(flags[0, 1]))


def _integer(variable: str) -> int:
    text = os.environ[variable]
    if not text.isdecimal():
        raise ValueError(f"{variable} must be a number of processes from 0; got {text!r}")
    return int(text)
