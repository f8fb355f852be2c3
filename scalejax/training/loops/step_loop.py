"""The loop over training steps: when to log, to evaluate, to save and to stop."""

import abc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from scalejax.files import check_fence
from scalejax.training import distributed
from scalejax.training.resume import Progress
from scalejax.training.segment import TrainingJob
from scalejax.training.step import Metrics, Step

# Steps between two rows of metrics.jsonl; a row's training loss is the mean over them.
LOG_EVERY = 20


@dataclass(frozen=True)
class StepLoop(abc.ABC):
    """The loop over training steps: of one segment, or of several at a time."""

    job: TrainingJob
    progress: Progress

    def run_steps(self, stopping: Callable[[], bool]) -> None:
        """Train to the end of the segment, or until `stopping()` returns True.

        It is called after every step; before stopping, the state is saved. Writes a
        metrics row every LOG_EVERY steps, evaluates every `Measure.every` tokens and
        saves a checkpoint every `Placement.checkpoint_seconds`.
        """
        run, stop = self.job.segment.run, self.job.segment.stop
        progress, placement = self.progress, self.job.placement
        train_step = self.training_step()
        # The schedule is computed once, in float64 on the host, and each step gets its
        # rate as an argument. One executable serves every schedule, and the array that
        # a whole-curve law reads is the array that was trained.
        rates = self.rates()

        resumed = saved = time.monotonic()
        while progress.step < stop and not progress.diverged:
            # ---- Step --------------------------------------------------------
            before = run.batch_schedule.tokens_after(progress.step)
            after = run.batch_schedule.tokens_after(progress.step + 1)
            batch = self.read_batch(before, after)
            rate = rates[progress.step]
            progress.state, metrics = train_step(progress.state, batch, rate)
            # The loss stays on the device until the next metrics row. Reading it here
            # would wait for the step to end, and the device would then wait for the
            # next batch.
            progress.losses.append(metrics["loss"])
            progress.step += 1

            # ---- Metrics row: every LOG_EVERY steps, and at the run's end ------
            logged = progress.step % LOG_EVERY == 0 or progress.step == run.steps
            if logged:
                now = time.monotonic()
                progress.seconds, resumed = progress.seconds + now - resumed, now
                self.log_losses(rate, metrics)

            # ---- Evaluation, except at the run's end, which is evaluated anyway
            if self.evaluation_is_due(before, after) and progress.step < run.steps:
                self.evaluate_loss()

            # ---- Checkpoint: by the clock, before stopping, and at the end ----
            check_fence()
            late = time.monotonic() - saved > placement.checkpoint_seconds
            agreed = distributed.agree(progress.step, stop=stopping(), save=late, exchange=logged)
            last = agreed.stop or progress.step == stop
            self.finish_save(wait=last)
            if last or (agreed.save and not self.is_saving):
                self.start_save()
                saved = time.monotonic()
            if last:
                break
        self.finish_save(wait=True)

    @property
    def is_complete(self) -> bool:
        """Whether training has come to the end of the segment, or diverged before."""
        return self.progress.diverged or self.progress.step >= self.job.segment.stop

    def evaluation_is_due(self, before: int, after: int) -> bool:
        """Whether the step from `before` to `after` tokens completes an interval.

        The intervals are `Measure.every` tokens long, rounded to whole batches; 0 means
        that the loss is not evaluated during training.
        """
        every, batch = self.job.measure.every, self.job.segment.run.batch_tokens
        interval = max(1, round(every / batch)) * batch
        return every > 0 and after // interval > before // interval

    @abc.abstractmethod
    def training_step(self) -> Step:
        """The compiled step."""

    @abc.abstractmethod
    def rates(self) -> np.ndarray:
        """The learning rate of every step, [steps, ...]."""

    @abc.abstractmethod
    def read_batch(self, before: int, after: int) -> ArrayLike:
        """The rows of the step that reads the tokens from `before` to `after`."""

    @abc.abstractmethod
    def log_losses(self, rate: np.ndarray, metrics: Metrics) -> None:
        """Write a metrics row of the steps since the last one, and report it.

        The learning rate and the metrics are those of the last step.
        """

    @abc.abstractmethod
    def evaluate_loss(self) -> Any:
        """Evaluate the weights and every average, and log one row for each."""

    @property
    @abc.abstractmethod
    def is_saving(self) -> bool:
        """Whether a save has begun that `finish_save` has not recorded yet."""

    @abc.abstractmethod
    def start_save(self) -> None:
        """Begin to save the progress; training can go on."""

    @abc.abstractmethod
    def finish_save(self, *, wait: bool) -> None:
        """Record a save that has ended, or with `wait` the one in flight.

        If the weights were not finite, the run has diverged. Raises the error of a save
        that failed.
        """
