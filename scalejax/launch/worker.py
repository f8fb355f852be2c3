"""A worker: one process that trains one segment after the other.

    python -m scalejax.launch.worker LAUNCHER_PID CORE WORKERS

LAUNCHER_PID is the process that started the worker. CORE is the CPU core that the
worker is pinned to, or -1 if it is not pinned. WORKERS is the number of workers that
the launcher starts. Every line of standard input is the folder of a segment, with a
config.json that `TrainingJob.write` wrote. Standard output carries one `Event` per
line, as JSON. Standard error is the log.

A worker does not outlive its launcher. On Linux the kernel kills it when the launcher
dies; elsewhere it ends when its standard input closes.
"""

import contextlib
import ctypes
import os
import queue
import signal
import sys
import threading
from pathlib import Path

from scalejax.launch.attempt import Companions, attempt, import_training
from scalejax.launch.claims import Claims
from scalejax.launch.events import Event
from scalejax.launch.seats import pin

# The option of Linux's prctl that sends a signal to this process when its parent dies.
PR_SET_PDEATHSIG = 1
# A worker without a segment checks this often whether it was asked to stop.
POLL_SECONDS = 0.2


def main() -> None:
    """Train segments until standard input closes or SIGTERM arrives."""
    launcher, core, workers = (int(argument) for argument in sys.argv[1:4])
    die_with(launcher)
    pin(core)
    # Ctrl-C reaches every process of the terminal. The launcher decides what it means
    # and sends SIGTERM to its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    halt = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: halt.set())
    # Keep standard output for events only. What libraries print goes to the log.
    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    folders: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_folders, args=(folders,), daemon=True).start()
    import_training()

    def send(event: Event) -> None:
        print(event.to_line(), file=events, flush=True)

    def report(step: int, loss: float) -> None:
        send(Event(kind="step", step=step, loss=loss))

    claims: Claims | None = None
    companions: Companions | None = None
    while not halt.is_set():
        with contextlib.suppress(queue.Empty):
            folder = Path(folders.get(timeout=POLL_SECONDS))
            # A segment lies in STUDY/runs/ID or STUDY/trunks/ID, and a worker trains
            # those of one study.
            study = folder.parent.parent
            claims = claims or Claims(study)
            companions = companions or Companions(claims, study, workers)
            event = attempt(
                claims, folder, report=report, stopping=halt.is_set, companions=companions
            )
            send(event)


def die_with(launcher: int) -> None:
    """End this process when its launcher dies, or now if the launcher is dead."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # A launcher that died before the call above sends no signal any more. Then this
    # process has been adopted by another one.
    if os.getppid() != launcher:
        os._exit(1)


def _read_folders(folders: queue.Queue[str]) -> None:
    for line in sys.stdin:
        folders.put(line.strip())
    # Standard input has closed: the launcher is gone, or it has no more work. A segment
    # in training can be resumed, so nothing is lost by leaving at once.
    os._exit(0)


if __name__ == "__main__":
    main()
