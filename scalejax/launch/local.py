"""Local workers over one study folder: idempotent, one per core on CPU, one per device elsewhere; they die with the launcher."""

import contextlib
import fcntl
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from scalejax.config import Model
from scalejax.study.plan import Plan, segment_flops
from scalejax.training.result import is_finished
from scalejax.training.segment import Segment, TrainingJob

TRIES = 2
"""Times a segment is handed out when its worker dies under it (killed for memory, say); an error it reports is final."""
LOCK_SECONDS = 20
"""How long a launcher waits for the study's lock: the workers of a killed launcher take a moment to die."""

MALLOC = {
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TOP_PAD_": "67108864",
}
"""For glibc: keep freed memory. Handing it back after every step costs 433 page faults a step at width 32, and 15-20% of the step
at width 112."""


class Busy(ValueError):
    """Another launcher holds the study's folder."""


@dataclass(eq=False)
class Worker:
    """A worker process, its core, its log, and what it trains."""

    process: subprocess.Popen[str]
    core: int
    log: Path
    segment: Segment | None = None
    model: Model | None = None
    """Shape compiled last: its segments come to this worker first."""

    @property
    def orders(self) -> IO[str]:
        """Where it reads folders from."""
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def events(self) -> IO[str]:
        """Where it tells of its work."""
        assert self.process.stdout is not None
        return self.process.stdout


@dataclass
class Outcome:
    """What became of the segments."""

    failed: dict[str, str] = field(default_factory=dict)
    """Folder -> error."""
    preempted: bool = False
    """Whether work was asked to stop before its end."""
    found: int = 0
    """Runs that were done before this call."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Holds the study's lock; workers inherit the descriptor, so the lock lasts as long as any of them lives.

    Raises Busy when another launcher keeps it for LOCK_SECONDS.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise Busy(
                    f"another `scalejax run` is at work in {folder}: wait for it to end, or give another --out"
                )
            time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)


class Pool:
    """Trains the segments of a plan with one worker per entry of `cores` (-1: not pinned).

    `on_step(segment, step, loss)` follows training, `on_end(segment)` tells of every segment that is done.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        lock: int,
        cores: list[int],
        *,
        on_step: Callable[[Segment, int, float], None],
        on_end: Callable[[Segment], None],
    ):
        self.plan, self.folder, self.lock, self.cores = plan, folder, lock, cores
        self.on_step, self.on_end = on_step, on_end
        self.cost = _costs(plan)
        self.events: queue.Queue[tuple[Worker, dict[str, Any]]] = queue.Queue()
        self.workers: list[Worker] = []
        self.waiting: dict[str, Segment] = {}
        self.tries: dict[str, int] = {}
        self.outcome = Outcome()

    def train(self, segments: list[Segment]) -> Outcome:
        """Trains `segments` (trunks before what stands on them); returns when every one is done, failed, or saved for later.

        SIGTERM or Ctrl-C lets every worker save and stop (`preempted`); a second one stops at once.
        """
        for segment in segments:
            if is_finished(self._job(segment), self.folder / segment.folder):
                self.outcome.found += segment.final
                self.on_end(segment)
            else:
                self.waiting[segment.folder] = segment
        with self._until_stopped():
            for core in self.cores[len(self.workers) : len(self.waiting)]:
                self._spawn(core)
            while self._hand_out():
                self._follow(*self.events.get())
        return self.outcome

    def close(self) -> None:
        """Ends the workers."""
        for worker in self.workers:
            worker.process.kill()
            worker.process.wait()
            worker.orders.close()
            worker.events.close()
        self.workers = []

    def _spawn(self, core: int) -> None:
        log = self.folder / "logs" / f"worker-{len(self.workers) if core < 0 else core}.log"
        log.parent.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "scalejax.launch.worker", str(os.getpid()), str(core)]
        with open(log, "a") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                pass_fds=[self.lock],
                env=MALLOC | os.environ,
            )
        worker = Worker(process=process, core=core, log=log)
        self.workers.append(worker)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()

    def _listen(self, worker: Worker) -> None:
        with contextlib.suppress(ValueError):  # closed while reading: the pool is done with it
            for line in worker.events:
                self.events.put((worker, json.loads(line)))
        self.events.put(
            (worker, {"event": "died", "error": f"the worker died; its log is {worker.log}"})
        )

    def _hand_out(self) -> bool:
        """Gives idle workers their next segments; says whether any worker is at work."""
        for worker in self.workers:
            if (
                worker.segment is None
                and not self.outcome.preempted
                and (segment := self._next(worker))
            ):
                del self.waiting[segment.folder]
                self._job(segment).write(self.folder / segment.folder)
                worker.segment = segment
                worker.model = segment.run.model
                worker.orders.write(f"{(self.folder / segment.folder).absolute()}\n")
                worker.orders.flush()
        return any(worker.segment for worker in self.workers)

    def _next(self, worker: Worker) -> Segment | None:
        """Of the segments whose trunk is done: one of the shape this worker compiled, else of a shape no other is at, else any;
        among those, the one with the most work behind it."""
        taken = {other.model for other in self.workers if other.segment and other is not worker}
        busy = {other.segment.folder for other in self.workers if other.segment}
        ready = [
            s
            for s in self.waiting.values()
            if s.parent not in self.waiting and s.parent not in busy
        ]
        order = {True: 0, False: 1}
        return min(
            ready,
            key=lambda s: (
                order[s.run.model == worker.model],
                order[s.run.model not in taken],
                -self.cost[s.folder],
            ),
            default=None,
        )

    def _follow(self, worker: Worker, event: dict[str, Any]) -> None:
        segment = worker.segment
        if event["event"] == "step" and segment:
            self.on_step(segment, event["step"], event["loss"])
            return
        worker.segment = None
        if event["event"] == "done" and segment:
            self.on_end(segment)
        elif event["event"] == "failed" and segment:
            self._fail(segment, event["error"])
        elif event["event"] == "died":
            self.workers.remove(worker)
            self._bury(worker, segment, event["error"])

    def _bury(self, worker: Worker, segment: Segment | None, error: str) -> None:
        """A worker died: another takes its place, and its segment is tried again."""
        if self.outcome.preempted or segment is None:
            return
        self.tries[segment.folder] = self.tries.get(segment.folder, 0) + 1
        if self.tries[segment.folder] < TRIES:
            self.waiting[segment.folder] = segment
        else:
            self._fail(segment, error)
        if self.waiting:
            self._spawn(worker.core)

    def _fail(self, segment: Segment, error: str) -> None:
        """The segment failed, and with it all that stands on it."""
        self.outcome.failed[segment.folder] = error
        for other in [s for s in self.waiting.values() if s.parent == segment.folder]:
            del self.waiting[other.folder]
            self._fail(other, f"its trunk {segment.folder} failed")

    def _job(self, segment: Segment) -> TrainingJob:
        study = self.plan.study
        return TrainingJob(
            segment=segment, study=study.name, measure=study.measure, placement=study.placement
        )

    @contextlib.contextmanager
    def _until_stopped(self) -> Iterator[None]:
        def stop(number: int, _: object) -> None:
            if self.outcome.preempted and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.outcome.preempted = True
            for worker in self.workers:
                worker.process.terminate()

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _costs(plan: Plan) -> dict[str, int]:
    """FLOPs of the longest chain that begins with each segment: what must start first."""
    below: dict[str, int] = {}
    for segment in reversed(plan.segments):
        cost = segment_flops(segment) + below.get(segment.folder, 0)
        below[segment.folder] = cost
        if segment.parent:
            below[segment.parent] = max(below.get(segment.parent, 0), cost)
    return below


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
