"""A pool of local worker processes that train the segments of one study folder."""

import contextlib
import math
import queue
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scalejax.config import Model
from scalejax.launch.attempt import failure, forget_failure
from scalejax.launch.claims import Owners
from scalejax.launch.events import Event
from scalejax.launch.jobs import in_order
from scalejax.launch.seats import Seat
from scalejax.launch.signals import stopping_on_signals
from scalejax.launch.worker_process import WorkerProcess
from scalejax.training.metrics import last_rows
from scalejax.training.result import is_finished
from scalejax.training.segment import Segment, TrainingJob

# How long to wait before a segment that another process trains is tried again.
LOOK_AGAIN_SECONDS = 2.0

# How many times a segment is handed out if its worker dies while training it, for
# example because the kernel ran out of memory. An error that the worker reports is
# final: the same segment would raise it again.
MAX_ATTEMPTS = 2


class WorkersGone(OSError):
    """Nobody is left to train the segments that are left."""


@dataclass
class PoolResult:
    """What became of the segments that a pool was asked to train."""

    failed: dict[str, str] = field(default_factory=dict)
    """Error message of every segment that failed, by the segment's folder."""
    preempted: bool = False
    """Whether a signal stopped the pool before everything was trained."""
    runs_already_done: int = 0
    """Number of runs that were finished before the pool looked at them."""


class Pool:
    """Trains segments with one worker process for every seat.

    folder: the study's folder.
    seats: what `worker_seats` returned; empty to wait for what other processes train.
    lock: file descriptor of the folder's lock, which every worker keeps open.
    priority: a number for every segment's folder; of the segments that are ready, the
        one with the highest number is trained first.
    on_step: called as `on_step(segment, step, loss)` while a segment trains.
    on_done: called as `on_done(segment)` for every finished segment, old or new.
    watch: called now and then while other processes train; returns a reason once none
        of them is left.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seats: Sequence[Seat],
        lock: int,
        priority: Mapping[str, float],
        on_step: Callable[[Segment, int, float], None],
        on_done: Callable[[Segment], None],
        watch: Callable[[], str] = lambda: "",
    ):
        self.folder, self.seats, self.lock, self.priority = folder, seats, lock, priority
        self.on_step, self.on_done, self.watch = on_step, on_done, watch
        self.workers: list[WorkerProcess] = []
        self.events: queue.Queue[tuple[WorkerProcess, Event]] = queue.Queue()
        self.waiting: dict[str, TrainingJob] = {}
        """Jobs that no worker has yet, by the folder of their segment. Those of the
        highest priority come first."""
        self.elsewhere: dict[str, TrainingJob] = {}
        """Jobs whose segments other processes train (see launch/claims.py)."""
        self.owners = Owners(folder)
        self.looked_at = time.monotonic()
        self.attempts: dict[str, int] = {}
        """Number of workers that died training a segment, by the segment's folder."""
        self.result = PoolResult()

    def train(self, jobs: Iterable[TrainingJob], *, retry: bool = True) -> PoolResult:
        """Train `jobs`; return when all of them are done, failed or saved for later.

        jobs: every trunk comes before its branches. retry: whether segments that have
        failed are tried again.

        SIGTERM or the first Ctrl-C lets every worker save its state and stop; the
        result is then `preempted`. A second Ctrl-C raises KeyboardInterrupt. Raises
        WorkersGone when `watch` says that nobody is left to train what is left.
        """
        # Sorted once: sorting at every hand-out would take minutes for thousands
        # of runs.
        for job in in_order(jobs, self.priority):
            if is_finished(job, self.folder / job.segment.folder):
                self.result.runs_already_done += job.segment.final
                self.on_done(job.segment)
            else:
                self.waiting[job.segment.folder] = job
                if retry:
                    forget_failure(self.folder / job.segment.folder)
        if not self.seats:
            self.waiting, self.elsewhere = {}, self.waiting
        with stopping_on_signals(self._stop):
            # Workers of an earlier call are still there: start only the missing ones.
            for seat in self.seats[len(self.workers) : len(self.waiting)]:
                self._start_worker(seat)
            while self._hand_out() or (self.elsewhere and not self.result.preempted):
                with contextlib.suppress(queue.Empty):
                    timeout = LOOK_AGAIN_SECONDS if self.elsewhere else None
                    self._handle(*self.events.get(timeout=timeout))
                self._look_elsewhere()
        return self.result

    def close(self) -> None:
        """End all workers at once."""
        for worker in self.workers:
            worker.kill()
        self.workers = []

    def _start_worker(self, seat: Seat) -> None:
        worker = WorkerProcess(self.folder, seat, self.lock, len(self.seats))
        worker.listen(self.events)
        self.workers.append(worker)

    def _hand_out(self) -> bool:
        """Give every idle worker its next job; return whether any worker is busy.

        A worker stays idle if no segment is ready: all that are left wait for a trunk
        that another worker trains. `train` calls this again after every event, and the
        event that finishes the trunk makes its branches ready. So when no worker is
        busy, nothing is left to train.
        """
        for worker in self.workers:
            # After a signal, the workers finish their step, save and stop: no new work.
            if worker.job is not None or self.result.preempted:
                continue
            busy = [other.job for other in self.workers if other.job is not None]
            busy += self.elsewhere.values()
            job = next_job(worker.model, self.waiting, busy)
            if job is None:
                continue
            del self.waiting[job.segment.folder]
            folder = self.folder / job.segment.folder
            # The worker is told only the folder; it reads the job from its config.json.
            job.write(folder)
            worker.train(job, folder)
        return any(worker.job is not None for worker in self.workers)

    def _look_elsewhere(self) -> None:
        """See, now and then, what has become of segments that other processes train.

        What they have not finished is offered to the workers again: they take it over
        when its process has died.
        """
        if time.monotonic() - self.looked_at < LOOK_AGAIN_SECONDS:
            return
        self.looked_at = time.monotonic()
        # Asked before the files are read: the last worker may end in between.
        gone = self.watch()
        training = self.owners.alive()
        for folder, job in list(self.elsewhere.items()):
            if folder not in self.elsewhere:
                continue
            if is_finished(job, self.folder / folder):
                self.on_done(job.segment)
            elif error := failure(self.folder / folder):
                self._fail(job.segment, error)
            else:
                if job.segment.id in training:
                    self._show_step(job.segment)
                if not self.seats:
                    continue
                self.waiting[folder] = job
            del self.elsewhere[folder]
        if gone and self.elsewhere:
            raise WorkersGone(gone)

    def _show_step(self, segment: Segment) -> None:
        """Report how far another process has trained a segment."""
        # Whoever trains a segment with damaged metrics says what is wrong.
        with contextlib.suppress(ValueError):
            if rows := last_rows(self.folder / segment.folder):
                self.on_step(segment, rows[-1]["step"], rows[-1]["train_loss"] or math.nan)

    def _handle(self, worker: WorkerProcess, event: Event) -> None:
        # The last event of a worker that has been replaced is of no interest.
        if worker not in self.workers:
            return
        job = worker.job
        if event.kind == "step":
            if job is not None:
                self.on_step(job.segment, event.step, event.loss)
            return
        # Every other event ends the worker's job.
        worker.job = None
        if event.kind == "died":
            self._replace(worker, job, event.error)
        elif event.kind == "done" and job is not None:
            self.on_done(job.segment)
            for folder in event.others:
                # Another worker may have been offered it, and have found it claimed.
                other = self.waiting.pop(folder, None) or self.elsewhere.pop(folder, None)
                if other is not None:
                    self.on_done(other.segment)
        elif event.kind == "preempted" and job is not None and not self.result.preempted:
            # Somebody has sent SIGTERM to this worker only. It has saved its state.
            self.waiting = {job.segment.folder: job, **self.waiting}
            self._replace(worker, None, "")
        elif event.kind == "claimed" and job is not None:
            self.elsewhere[job.segment.folder] = job
        elif event.kind == "failed" and job is not None:
            self._fail(job.segment, event.error)

    def _replace(self, worker: WorkerProcess, job: TrainingJob | None, error: str) -> None:
        """Try the job of a dead worker again, with a new worker on the same seat.

        A worker dies without a report if it is killed from outside: by the kernel for
        its memory, or by a user. Such a death often does not repeat, and the segment
        resumes from its last checkpoint. But a segment that needs more memory than the
        machine has kills every worker, so it counts as failed after MAX_ATTEMPTS.
        """
        self.workers.remove(worker)
        # The process has ended; this collects its exit status and closes its pipes.
        worker.kill()
        # After a signal, workers are meant to end.
        if self.result.preempted:
            return
        # An idle worker takes no job with it.
        if job is not None:
            folder = job.segment.folder
            self.attempts[folder] = self.attempts.get(folder, 0) + 1
            if self.attempts[folder] < MAX_ATTEMPTS:
                # It goes first: it had the highest priority when it was handed out.
                self.waiting = {folder: job, **self.waiting}
            else:
                self._fail(job.segment, error)
        if self.waiting:
            self._start_worker(worker.seat)

    def _fail(self, segment: Segment, error: str) -> None:
        """Record that a segment failed, and with it all segments that need it."""
        self.result.failed[segment.folder] = error
        left = [*self.waiting.values(), *self.elsewhere.values()]
        for branch in [job.segment for job in left if job.segment.needs == segment.folder]:
            self.waiting.pop(branch.folder, None)
            self.elsewhere.pop(branch.folder, None)
            self._fail(branch, f"{segment.folder}, from which it begins, failed")

    def _stop(self) -> None:
        self.result.preempted = True
        for worker in self.workers:
            worker.stop()


def next_job(
    model: Model | None, waiting: Mapping[str, TrainingJob], busy: Sequence[TrainingJob]
) -> TrainingJob | None:
    """The job that an idle worker should train next, or None if none is ready.

    model: the model that the worker compiled last; None for a new worker.
    waiting: jobs that no worker has, by the folder of their segment, those of the
        highest priority first.
    busy: jobs that the other workers are training.

    A segment is ready when its trunk, or the run that it begins from, is done. Among
    those, the order of preference is:

    1. A segment of the model that the worker has compiled. Compiling the training step
       takes seconds, and the learning rate, the seed and the other hyperparameters are
       arguments of the compiled step, so one compilation serves all runs of a model.
    2. A segment of a model that no other worker is training, so that two workers do not
       both compile it while there are other models.
    3. The segment of the highest priority. Studies give a high priority to the start of
       an expensive chain of segments. If such a chain started last, one worker would
       train it alone while the others have nothing left to do.
    """
    in_training = {job.segment.folder for job in busy}
    models_in_training = [job.segment.run.model for job in busy]
    other_model = last_resort = None
    for job in waiting.values():
        segment = job.segment
        if segment.needs in waiting or segment.needs in in_training:
            continue
        if segment.run.model == model:
            return job
        if other_model is None and segment.run.model not in models_in_training:
            other_model = job
        last_resort = last_resort or job
    return other_model or last_resort
