"""An executor: the machines that train the segments of a study."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scalejax.config import Placement
from scalejax.launch.pool import Pool, PoolResult
from scalejax.launch.seats import Seat, worker_seats
from scalejax.training.segment import Segment, TrainingJob


class Observer(Protocol):
    """Whoever is told how the training goes."""

    def step(self, segment: Segment, step: int, loss: float) -> None:
        """Note that a segment has reached `step`, with its last training loss."""

    def done(self, segment: Segment) -> None:
        """Note that a segment is finished, by this call or an earlier one."""

    def say(self, text: str) -> None:
        """Tell the user a line of text."""


class Engine(Protocol):
    """An executor at work on one study."""

    def train(self, jobs: Iterable[TrainingJob]) -> PoolResult:
        """Train `jobs`, every trunk before its branches; see `Pool.train`."""
        ...

    def close(self) -> None:
        """Free what the engine holds on this machine."""


class Executor(Protocol):
    """Where the segments of a study are trained."""

    def check(self, placement: Placement) -> None:
        """Raise ValueError when it cannot train here. Nothing is written before."""

    def start(
        self,
        folder: Path,
        *,
        placement: Placement,
        lock: int,
        priority: Mapping[str, float],
        observer: Observer,
    ) -> Engine:
        """Return an engine for the study in `folder`.

        placement: that of all runs. lock: file descriptor of the folder's lock.
        priority: see `Pool`.
        """
        ...


def observed_pool(
    folder: Path,
    seats: Sequence[Seat],
    *,
    lock: int,
    priority: Mapping[str, float],
    observer: Observer,
    watch: Callable[[], str] = lambda: "",
) -> Pool:
    """Return a pool that tells an observer how the training goes; see `Pool`."""
    return Pool(
        folder,
        seats=seats,
        lock=lock,
        priority=priority,
        on_step=observer.step,
        on_done=observer.done,
        watch=watch,
    )


@dataclass(frozen=True)
class Local:
    """Workers on this machine."""

    devices: int | None = None
    """The largest number of accelerators or CPU cores to use; None for all. With 0, the
    study waits for `scalejax work`."""

    def check(self, placement: Placement) -> None:
        """Raise ValueError when `devices` is more than the machine has."""
        worker_seats(self.devices, placement)

    def start(
        self,
        folder: Path,
        *,
        placement: Placement,
        lock: int,
        priority: Mapping[str, float],
        observer: Observer,
    ) -> Pool:
        """Return a pool of workers."""
        seats = worker_seats(self.devices, placement)
        if not seats:
            observer.say(f"waiting for workers: scalejax work {folder}")
        return observed_pool(folder, seats, lock=lock, priority=priority, observer=observer)
