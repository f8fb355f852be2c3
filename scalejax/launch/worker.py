"""A worker: one process, on CPU pinned to one core, that trains the segments whose folders it is told on standard input.

`python -m scalejax.launch.worker LAUNCHER_PID CORE` (CORE -1: not pinned). Events go to standard output as JSON lines; the worker
dies with its launcher: by PR_SET_PDEATHSIG on Linux, elsewhere when its standard input closes.
"""

import contextlib
import ctypes
import json
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serves segments until standard input closes."""
    launcher, core = int(sys.argv[1]), int(sys.argv[2])
    die_with(launcher)
    if core >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(
            0, {core}
        )  # before jax starts its threads: its bits depend on their number
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the launcher decides
    halt = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: halt.set())
    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to the log
    folders: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(folders,), daemon=True).start()
    _warm_up()
    while not halt.is_set():
        with contextlib.suppress(queue.Empty):
            _serve(Path(folders.get(timeout=0.2)), events, halt)


def die_with(launcher: int) -> None:
    """Asks the kernel to kill this process when its launcher dies; leaves at once when it is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        os._exit(1)


def _listen(folders: queue.Queue[str]) -> None:
    for line in sys.stdin:
        folders.put(line.strip())
    os._exit(0)  # the launcher is gone, or done with us


def _warm_up() -> None:
    """The imports that the first segment needs, while the launcher still plans."""
    import orbax.checkpoint

    import scalejax.training.loop

    del orbax


def _serve(folder: Path, events: Any, halt: threading.Event) -> None:
    from scalejax.training.loop import Preempted, train_segment
    from scalejax.training.segment import TrainingJob

    def tell(event: str, **values: Any) -> None:
        print(
            json.dumps({"event": event, "folder": str(folder), **values}), file=events, flush=True
        )

    study = folder.parent.parent
    try:
        job = TrainingJob.read(folder)
        parent = study / job.segment.parent if job.segment.parent else None
        train_segment(
            job,
            folder,
            parent,
            report=lambda step, loss: tell("step", step=step, loss=loss),
            stopping=halt.is_set,
        )
    except Preempted:
        tell("preempted")
    except Exception as error:  # reported to the launcher, which goes on with the other runs
        traceback.print_exc()
        tell("failed", error=f"{type(error).__name__}: {error}")
    else:
        tell("done")


if __name__ == "__main__":
    main()
