"""Train a run, or a segment of it, in one folder: the story from config to result.

    config.json    what is trained (segment.py)
    status.json    in which state it is, since when, on which machine (status.py)
    metrics.jsonl  the curves (metrics.py)
    checkpoints/   the states that training can continue from (checkpoint.py)
    result.json    the row of the results table (result.py)
    DONE           written last; a folder without it can be trained further

Training may be killed at any moment and started again. The same call on the same folder
continues from the last checkpoint, and ends with the same bits as an undisturbed run.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.typing import ArrayLike

from scalejax.config import Measure, Placement, Run
from scalejax.data import preparation
from scalejax.data.batches import Rows, batches, unique_tokens
from scalejax.data.locking import exclusive
from scalejax.data.preparation import prepare
from scalejax.data.shards import Shards
from scalejax.evaluation.run_metrics import check_measure, downstream_metrics, held_out_metrics
from scalejax.evaluation.suites import find_suite
from scalejax.evaluation.tasks import TaskMetrics
from scalejax.files import check_can_be_folder, read_json
from scalejax.optim.schedules import learning_rates
from scalejax.training import checkpoint, distributed
from scalejax.training.evaluate import bind_token_losses, scored_model
from scalejax.training.loops.step_loop import StepLoop
from scalejax.training.metrics import MetricsFile, open_metrics, spike_score
from scalejax.training.observation.profile import profiled
from scalejax.training.result import (
    Result,
    ResultRow,
    RunCounts,
    code_version,
    has_diverged,
    is_finished,
    result_row,
)
from scalejax.training.resume import starting_point, warn_of_missing_evaluations
from scalejax.training.segment import RUN_ID, Segment, TrainingJob
from scalejax.training.sharding import batch_sharding, make_mesh
from scalejax.training.start import check_path, initial_weights
from scalejax.training.status import (
    Status,
    check_data,
    close_folder,
    environment,
    open_folder,
    read_status,
    record_checkpoint,
)
from scalejax.training.step import Metrics, Step, init_state, make_train_step, weights_to_evaluate

# A run counts as diverged after this many skipped steps in a row: its weights have
# stopped changing, and nothing suggests that they would start again.
DIVERGED_AFTER = 20


def train(
    run: Run,
    placement: Placement | None = None,
    out: str | Path = "run",
    *,
    measure: Measure | None = None,
) -> Result:
    """Train `run` in the folder `out` and evaluate it.

    When an earlier call was killed, continues from its last checkpoint. When the folder
    holds the finished run, returns its Result without training.

    A run may span many hosts: every process makes the same call (see
    `scalejax.training.distributed`).

    Raises ValueError when the folder cannot be written, belongs to another run, is in
    use by another process or was trained on other data, when the data cannot be read,
    or when its vocabulary does not fit the model.
    """
    folder = Path(out)
    job = TrainingJob(
        segment=Segment(run=run, start=0, stop=run.steps),
        study="",
        measure=measure or Measure(),
        placement=placement or Placement(),
    )
    if not distributed.is_main():
        job.check(folder)
        train_segment(job, folder, parent=None)
        return Result.load(folder)
    check_can_be_folder(folder)
    # Two processes in one folder would overwrite each other's checkpoints and curves.
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder):
        job.write(folder)
        train_segment(job, folder, parent=None)
        return Result.load(folder)


def train_segment(
    job: TrainingJob,
    folder: Path,
    parent: Path | None,
    *,
    report: Callable[[int, float], None] = lambda step, loss: None,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Train a segment in `folder`, and evaluate it when its run ends there.

    Training starts from the end of the trunk in `parent`, or, when that is None, from
    step 0. Safe to call again after a kill at any moment. A folder with `DONE` is left
    alone, unless the job's Measure differs from the one it was evaluated with: then its
    last checkpoint is evaluated again.

    `report(step, loss)` is called with every metrics row. `stopping()` is called after
    every step, and between the tasks of the evaluation; when it returns True, the state
    is saved and Preempted is raised. The fence (see `scalejax.files.fenced`) is checked
    after every step and before every file.
    """
    with opened(job, folder, parent, report) as trainer:
        if trainer is not None:
            trainer.run_steps(stopping)
            if not trainer.is_complete:
                raise Preempted(
                    f"stopped at step {trainer.progress.step} of {job.segment.stop}; the state is "
                    f"saved in {folder}"
                )
            trainer.conclude(stopping)


class Preempted(Exception):
    """Training was asked to stop before its end.

    The state is saved: the same call continues from there and loses no step.
    """


@contextlib.contextmanager
def opened(
    job: TrainingJob,
    folder: Path,
    parent: Path | None,
    report: Callable[[int, float], None],
    *,
    population: int = 1,
) -> Iterator["Trainer | None"]:
    """Open a segment's folder where its training continues; None when it is finished.

    folder, parent, report: as for `train_segment`. population: the number of runs that
    are trained as one program, this one included.
    """
    # ---- Data ----------------------------------------------------------------
    # Whatever can be wrong with the input is found before the first step: a suite that
    # cannot be scored must not fail after hours of training.
    run = job.segment.run
    shards = prepare(run.data)
    previous = read_status(folder)
    check_data(folder, previous, shards.hash)
    if distributed.from_main(is_finished(job, folder)):
        yield None
        return
    check_vocabulary(run, shards)
    check_measure(shards, run, job.measure)

    # ---- State: this folder's last checkpoint, the trunk's, or step 0 ---------
    mesh = make_mesh(job.placement)
    weights = initial_weights(job, folder, parent, mesh, shards)
    initial = init_state(run, mesh, job.measure.averages, weights)
    start = starting_point(job, folder, parent, initial, shards.hash, previous)
    warn_of_missing_evaluations(job, folder, start.progress.step)
    progress = start.progress
    status = open_folder(
        folder,
        previous,
        shards.hash,
        environment(job.placement, population),
        trunk=None if parent is None else read_status(parent),
        is_trained=progress.diverged or progress.step >= job.segment.stop,
    )

    with open_metrics(job, folder, history=start.history) as metrics, checkpoint.Saver() as saver:
        yield Trainer(
            job=job,
            progress=progress,
            folder=folder,
            shards=shards,
            rows=batches(shards, run),
            mesh=mesh,
            metrics=metrics,
            saver=saver,
            status=status,
            report=report,
        )


@dataclass(frozen=True)
class Trainer(StepLoop):
    """A segment in training: what the steps read, and the progress that they make."""

    folder: Path
    shards: Shards
    rows: Rows
    mesh: jax.sharding.Mesh
    metrics: MetricsFile
    saver: checkpoint.Saver
    status: Status
    report: Callable[[int, float], None]
    """Called with the step and the loss of every metrics row."""

    def training_step(self) -> Step:
        """The compiled step; it is profiled when the Measure asks for that."""
        run, measure = self.job.segment.run, self.job.measure
        step = make_train_step(run, self.mesh, self.job.placement, measure.averages)
        return profiled(step, self.folder / "profile", measure.profile_steps)

    def rates(self) -> np.ndarray:
        """The learning rate of every step, float32 [steps]."""
        return learning_rates(self.job.segment.run)

    def read_batch(self, before: int, after: int) -> ArrayLike:
        """The rows of the step that reads the run's tokens from `before` to `after`.

        Each process reads only the rows of its own devices.
        """
        length = self.job.segment.run.data.sequence_length
        first, rows = before // length, (after - before) // length
        return distributed.spread(
            batch_sharding(self.mesh),
            (rows, length + 1),
            lambda start, stop: self.rows.rows(first + start, first + stop),
        )

    def log_losses(self, rate: np.ndarray, metrics: Metrics) -> None:
        """Write and report the mean loss of the steps since the last metrics row.

        Skipped steps are left out of the mean; it is NaN, and null in the file, when
        every step was skipped.
        """
        progress = self.progress
        # These two reads wait for the device: once per row, not once per step.
        losses = np.array([float(loss) for loss in jax.device_get(progress.losses)])
        last = jax.device_get(metrics)
        progress.diverged = int(last["skipped_in_a_row"]) >= DIVERGED_AFTER
        progress.losses = []
        grad_norm = float(last["grad_norm"])

        finite = losses[np.isfinite(losses)]
        loss = float(np.mean(finite)) if finite.size else math.nan
        row = self.row_head() | {
            "learning_rate": float(rate),
            "train_loss": loss if math.isfinite(loss) else None,
            "grad_norm": grad_norm if math.isfinite(grad_norm) else None,
            "seconds": round(progress.seconds, 3),
        }
        self.metrics.write(row)
        self.report(progress.step, loss)

    def evaluate_loss(self) -> dict[str, float | None]:
        """Evaluate the weights and every average, and log one row for each.

        Returns the losses of the weights: held-out loss, its standard error, and so on.
        After divergence nothing is evaluated, the logged row has no loss, and the
        result is empty.
        """
        run, measure = self.job.segment.run, self.job.measure
        losses: dict[str, dict[str, float | None]] = {"raw": {}}
        if not self.progress.diverged:
            weights = weights_to_evaluate(run, self.progress.state, measure.averages)
            for name, params in weights.items():
                token_losses = bind_token_losses(params, run, self.mesh)
                losses[name] = held_out_metrics(
                    token_losses,
                    self.shards,
                    run,
                    measure,
                    accumulate=self.job.placement.accumulate,
                )

        # Finite weights can have an infinite loss: this is divergence, too.
        loss = losses["raw"].get("loss")
        if loss is None or not math.isfinite(loss):
            losses = {"raw": {}}
        for name, row in losses.items():
            self.metrics.write(self.row_head() | {"weights": name} | row)
        return losses["raw"]

    def conclude(self, stopping: Callable[[], bool]) -> None:
        """Evaluate the run if the segment is its last, and close the folder.

        Raises Preempted when `stopping()` returns True between two tasks.
        """
        # Trunks are not evaluated.
        if self.job.segment.final:
            row = self.evaluate_run(stopping)
            if distributed.is_main():
                Result(row=row, measure=self.job.measure).save(self.folder)
        # A folder with DONE is never trained again: its curve must be complete.
        self.metrics.sync()
        progress = self.progress
        close_folder(self.folder, self.status, step=progress.step, diverged=progress.diverged)

    def evaluate_run(self, stopping: Callable[[], bool]) -> ResultRow:
        """Evaluate the finished run: its row of the results table."""
        run, progress = self.job.segment.run, self.progress
        scores = self.evaluate_loss()
        skipped = int(progress.state.skipped) * run.data.sequence_length
        tokens = run.batch_schedule.tokens_after(progress.step)
        if has_diverged(scores, self.shards, skipped / tokens):
            progress.diverged, scores = True, {}
        if scores:
            params = weights_to_evaluate(run, progress.state)["raw"]
            model = scored_model(
                self.folder, progress.step, run, self.mesh, self.shards, lambda: params
            )

            def go_on(task: str, metrics: TaskMetrics, remaining: int) -> None:
                # A large model takes minutes for its tasks, which is more than what is
                # left before a time limit. The weights and the scores so far are saved.
                # All processes stop, or none: each task is scored by all of them.
                if remaining and not distributed.all_true(not stopping()):
                    raise Preempted(f"stopped in {self.folder}; {remaining} task(s) are left")

            folder = self.folder / "evaluations"
            scores |= downstream_metrics(model, self.job.measure, folder, progress=go_on)
        run_counts = RunCounts(
            step=progress.step,
            skipped=int(progress.state.skipped),
            seconds=progress.seconds,
            epochs=self.rows.epochs(tokens / run.batch_tokens),
            unique_tokens=unique_tokens(self.rows, run, tokens),
            spike_score=spike_score(self.metrics.train_losses),
        )
        row = result_row(self.job, self.shards, scores, self.status, run_counts)
        if run.start:
            row["start_weights"] = read_json(self.folder / "start.json")["weights"]
        return row | {"code_changed": len(progress.code) > 1}

    @property
    def is_saving(self) -> bool:
        """Whether a save has begun that `finish_save` has not recorded yet."""
        return self.saver.is_busy

    def start_save(self) -> None:
        """Begin to save the progress; training can go on."""
        progress = self.progress
        losses = [float(loss) for loss in jax.device_get(progress.losses)]
        progress.code |= {code_version()}
        notes = {
            "seconds": progress.seconds,
            "losses": [loss if math.isfinite(loss) else None for loss in losses],
            "code": sorted(progress.code),
            "metrics": self.metrics.position,
        }
        origin = checkpoint.Origin(self.job.segment.id, self.shards.hash)
        # The rows must be on the disk before the checkpoint: a resume drops later rows,
        # and cannot bring back earlier ones.
        self.metrics.sync()
        folder = self.folder / "checkpoints"
        self.saver.start(folder, progress.step, progress.state, origin, notes)

    def finish_save(self, *, wait: bool) -> None:
        """Record a save that has ended, or with `wait` the one in flight."""
        try:
            step = self.saver.completed(wait_for_it=wait)
        except checkpoint.NotFinite:
            self.progress.diverged = True
        else:
            if step is not None:
                record_checkpoint(self.folder, self.status, step)

    def row_head(self) -> dict[str, float | str | None]:
        """The first fields of every metrics row."""
        step = self.progress.step
        return {"step": step, "tokens": self.job.segment.run.batch_schedule.tokens_after(step)}


def check_files(job: TrainingJob) -> None:
    """Raise ValueError unless the files that a job names are on this machine.

    What is in them is checked when it is trained.
    """
    run = job.segment.run
    preparation.check_files(run.data)
    for suite in job.measure.suites:
        find_suite(suite)
    if run.start and not RUN_ID.fullmatch(run.start):
        check_path(run.start, Path(run.start).expanduser())


def check_vocabulary(run: Run, shards: Shards) -> None:
    """Raise ValueError when the data have token ids beyond the model's embedding."""
    if shards.vocabulary > run.model.vocabulary:
        raise ValueError(
            f"{run.data.source} under {run.data.tokenizer} has {shards.vocabulary} token ids, but "
            f"Model.vocabulary is {run.model.vocabulary}: set it to {shards.vocabulary}"
        )
