"""A worker process, as its launcher sees it."""

import contextlib
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

from scalejax.config import Model
from scalejax.files import make_folder, replace_link
from scalejax.launch import allocator
from scalejax.launch.events import Event
from scalejax.launch.seats import Seat
from scalejax.training.segment import TrainingJob


class WorkerProcess:
    """A running worker, with the job that it trains."""

    job: TrainingJob | None
    """What it is training; None while it is idle."""
    model: Model | None
    """The model that it compiled last."""

    def __init__(self, folder: Path, seat: Seat, lock: int, workers: int):
        """Start the process.

        folder: the study's folder; the worker's log goes into its `logs`.
        seat: what it uses of the machine.
        lock: the descriptor of the folder's lock, which the worker keeps open.
        workers: the number of workers that the launcher starts.
        """
        self.seat, self.job, self.model = seat, None, None
        self.log = folder / "logs" / f"worker-{seat.name}.log"
        make_folder(self.log.parent)
        replace_link(self.log)
        arguments = [str(os.getpid()), str(seat.core), str(workers)]
        command = [sys.executable, "-m", "scalejax.launch.worker", *arguments]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                pass_fds=[lock],
                # The user's own settings win.
                env=allocator.settings() | os.environ | dict(seat.environment),
            )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._commands, self._events = self.process.stdin, self.process.stdout

    def listen(self, events: "queue.Queue[tuple[WorkerProcess, Event]]") -> None:
        """Forward the worker's events to a queue until the worker ends."""
        # One thread per worker: the launcher can then wait for the next event of any
        # worker by reading a single queue.
        threading.Thread(target=self._forward, args=(events,), daemon=True).start()

    def train(self, job: TrainingJob, folder: Path) -> None:
        """Tell the worker to train the job whose config.json is in `folder`."""
        self.job, self.model = job, job.segment.run.model
        # A worker that has just died is reported by `listen`, with this job.
        with contextlib.suppress(BrokenPipeError):
            self._commands.write(f"{folder.absolute()}\n")
            self._commands.flush()

    def stop(self) -> None:
        """Ask the worker to save its state and stop."""
        self.process.terminate()

    def kill(self) -> None:
        """End the worker at once."""
        self.process.kill()
        self.process.wait()
        # Closing writes what `train` could not.
        with contextlib.suppress(BrokenPipeError):
            self._commands.close()
        self._events.close()

    def _forward(self, events: "queue.Queue[tuple[WorkerProcess, Event]]") -> None:
        # `kill` closes the stream while this thread reads it, which raises ValueError.
        with contextlib.suppress(ValueError):
            for line in self._events:
                events.put((self, Event.from_line(line)))
        error = f"the worker died; its log is {self.log}"
        events.put((self, Event(kind="died", error=error)))
