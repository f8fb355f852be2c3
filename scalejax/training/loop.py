"""Train a run, or a segment of it, in one folder: the story from config to result."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from scalejax.config import Measure, Placement, Run
from scalejax.data.batches import Rows, batches
from scalejax.data.preparation import prepare
from scalejax.data.shards import Shards
from scalejax.evaluation.run_metrics import check_measure, downstream_metrics, held_out_metrics
from scalejax.files import read_json, write_json
from scalejax.optim.schedules import learning_rates
from scalejax.training import checkpoint
from scalejax.training.evaluate import bind_token_losses, scored_model
from scalejax.training.metrics import Metrics
from scalejax.training.result import Result, here, mark_done, now, result_row
from scalejax.training.segment import Job, Segment
from scalejax.training.sharding import make_mesh
from scalejax.training.step import TrainState, init_state, make_train_step, weights_to_evaluate

LOG_EVERY = 20
"""Steps between metrics rows; the training loss of a row is the mean over them."""
DIVERGED_AFTER = 20
"""Skipped steps in a row after which a run counts as diverged: its weights have stopped changing."""


def train(
    run: Run,
    placement: Placement | None = None,
    out: str | Path = "run",
    *,
    measure: Measure | None = None,
) -> Result:
    """Trains `run` in the folder `out` and measures it; goes on where a killed call stopped.

    A folder that holds the finished run gives its Result at once. Raises ValueError when the folder belongs to another run,
    when the data cannot be read, or when its vocabulary does not fit the model.
    """
    segment = Segment(run=run, start=0, stop=run.steps)
    job = Job(
        segment=segment, study="", measure=measure or Measure(), placement=placement or Placement()
    )
    job.write(Path(out))
    train_segment(job, Path(out), parent=None)
    return Result.load(Path(out))


class Preempted(Exception):
    """Training was asked to stop: the state is saved, and the same call goes on from there."""


@dataclass
class Position:
    """Where training stands: all that changes from step to step."""

    state: TrainState
    step: int = 0
    seconds: float = 0.0
    """Time in the training loop so far, that of the trunks included."""
    losses: list[Any] = field(default_factory=list)
    """Training losses since the last metrics row."""
    diverged: bool = False


def train_segment(
    job: Job,
    folder: Path,
    parent: Path | None,
    *,
    report: Callable[[int, float], None] = lambda step, loss: None,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Trains the segment in `folder`, from the end of the trunk in `parent`, and measures it when it is final.

    Safe to call again after a kill at any moment. `report(step, loss)` is called with every metrics row; `stopping()` is asked
    after every step: when it says yes, the state is saved and Preempted is raised. A folder whose `DONE` is there is left
    alone, unless it was measured by another Measure: then it is measured again from its last checkpoint.
    """
    if is_finished(job, folder):
        return
    run = job.segment.run
    shards = prepare(run.data)
    check_vocabulary(run, shards)
    check_measure(shards, run, job.measure)
    mesh = make_mesh(job.placement)
    position, history = begin(folder, parent, init_state(run, mesh, job.measure.averages))
    status = open_folder(folder)
    rows = batches(shards, run)
    with Metrics(folder / "metrics.jsonl", history=history, step=position.step) as metrics:
        training = Training(job, folder, position, shards, rows, mesh, metrics)
        training.advance(report, stopping)
        if job.segment.final:
            Result(row=training.measured(status), measure=job.measure).save(folder)
    write_json(
        folder / "status.json",
        status | {"status": "diverged" if position.diverged else "done", "step": position.step},
    )
    mark_done(folder)


@dataclass(frozen=True)
class Training:
    """A segment in training: what the steps read, and the position that they move."""

    job: Job
    folder: Path
    position: Position
    shards: Shards
    rows: Rows
    mesh: jax.sharding.Mesh
    metrics: Metrics

    def advance(self, report: Callable[[int, float], None], stopping: Callable[[], bool]) -> None:
        """Trains to the segment's end: metrics rows every LOG_EVERY steps, evaluations by tokens, checkpoints by the clock."""
        run, stop, position, placement = (
            self.job.segment.run,
            self.job.segment.stop,
            self.position,
            self.job.placement,
        )
        train_step = make_train_step(
            run, self.mesh, placement.accumulate, self.job.measure.averages
        )
        rates = learning_rates(run)
        clock = saved = time.monotonic()
        while position.step < stop and not position.diverged:
            before, after = (
                run.batch_schedule.tokens_after(step) for step in (position.step, position.step + 1)
            )
            rows = self.rows.rows(
                before // run.data.sequence_length, after // run.data.sequence_length
            )
            position.state, seen = train_step(position.state, rows, rates[position.step])
            position.losses.append(seen["loss"])
            position.step += 1
            if position.step % LOG_EVERY == 0:
                position.seconds, clock = (
                    position.seconds + time.monotonic() - clock,
                    time.monotonic(),
                )
                report(position.step, self.log(float(rates[position.step - 1])))
            if self.is_due(before, after) and position.step < run.steps:
                self.measure()
            halt = stopping() and position.step < stop
            if (
                halt
                or position.step == stop
                or time.monotonic() - saved > placement.checkpoint_seconds
            ):
                self.save()
                saved = time.monotonic()
            if halt:
                raise Preempted(
                    f"stopped at step {position.step} of {stop}; the state is saved in {self.folder}"
                )

    def log(self, learning_rate: float) -> float:
        """Writes the metrics row of the last LOG_EVERY steps and gives their mean loss; skipped steps do not count in it."""
        position = self.position
        losses = np.array(
            [math.nan if x is None else float(x) for x in jax.device_get(position.losses)]
        )
        kept = losses[np.isfinite(losses)]
        loss = float(np.mean(kept)) if kept.size else math.nan
        position.losses = []
        position.diverged = int(position.state.skipped_in_a_row) >= DIVERGED_AFTER
        row = {"learning_rate": learning_rate, "train_loss": loss if math.isfinite(loss) else None}
        self.metrics.write(self.row() | row | {"seconds": round(position.seconds, 3)})
        return loss

    def save(self) -> None:
        """A checkpoint of the position; weights that are not finite are not saved: the run has diverged."""
        losses = [float(x) for x in jax.device_get(self.position.losses)]
        notes = {
            "seconds": self.position.seconds,
            "losses": [x if math.isfinite(x) else None for x in losses],
        }
        self.metrics.sync()
        try:
            checkpoint.save(
                self.folder / "checkpoints", self.position.step, self.position.state, notes
            )
        except checkpoint.NotFinite:
            self.position.diverged = True

    def is_due(self, before: int, after: int) -> bool:
        """Whether a step from `before` to `after` tokens completes a stretch of `Measure.every`, in whole batches."""
        batch = self.job.segment.run.batch_tokens
        every = max(1, round(self.job.measure.every / batch)) * batch
        return self.job.measure.every > 0 and after // every > before // every

    def measure(self) -> dict[str, float | None]:
        """Writes a row with the held-out loss of the weights, and one of each average, and gives that of the weights.

        Nothing is measured once the run has diverged: the row and what is given are empty then.
        """
        run, measure = self.job.segment.run, self.job.measure
        found: dict[str, dict[str, float | None]] = {"raw": {}}
        if not self.position.diverged:
            for name, params in weights_to_evaluate(run, self.position.state, measure.averages).items():
                found[name] = held_out_metrics(
                    bind_token_losses(params, run, self.mesh), self.shards, run, measure
                )
        loss = found["raw"].get("loss")
        if loss is None or not math.isfinite(loss):
            found = {"raw": {}}
        for name, losses in found.items():
            self.metrics.write(self.row() | {"weights": name} | losses)
        return found["raw"]

    def measured(self, status: dict[str, Any]) -> dict[str, Any]:
        """The run's row of the results table, at its last step."""
        run, position = self.job.segment.run, self.position
        found = self.measure()
        if found:
            params = weights_to_evaluate(run, position.state)["raw"]
            asked = scored_model(self.folder, position.step, run, self.mesh, self.shards, lambda: params)
            found |= downstream_metrics(asked, self.job.measure, self.folder / "evaluations")
        epochs = self.rows.epochs(run.batch_schedule.tokens_after(position.step) / run.batch_tokens)
        counted = {
            "step": position.step,
            "skipped": int(position.state.skipped),
            "seconds": position.seconds,
        }
        return result_row(self.job, self.shards, found, status, epochs=epochs, **counted)

    def row(self) -> dict[str, Any]:
        """The head of a metrics row."""
        return {
            "step": self.position.step,
            "tokens": self.job.segment.run.batch_schedule.tokens_after(self.position.step),
        }


def begin(folder: Path, parent: Path | None, initial: TrainState) -> tuple[Position, Path]:
    """The position to go on from, and the metrics file with its history: this folder's checkpoint, the trunk's end, or step 0.

    What stands on a trunk that diverged has diverged with it. Raises ValueError when a checkpoint was trained without an average
    that is asked for: only training takes them.
    """
    like = checkpoint.abstract(initial)
    checkpoint.clean(folder / "checkpoints")
    if parent is not None and (end := read_json(parent / "status.json"))["status"] == "diverged":
        return Position(state=initial, step=end["step"], diverged=True), parent / "metrics.jsonl"
    for source in [folder] if parent is None else [folder, parent]:
        kept = checkpoint.kept(source / "checkpoints")
        lacking = [
            name
            for name in initial.averages
            if not any(array.startswith(f".averages['{name}']") for array in kept)
        ]
        if kept and lacking:
            raise ValueError(
                f"Measure.averages asks for {', '.join(lacking)}, which {source} was trained without, and only training takes "
                "averages: train in another folder (a study: under another version), or leave them out"
            )
        if found := checkpoint.restore(source / "checkpoints", like):
            step, state, notes = found
            return Position(state=state, step=step, **notes), source / "metrics.jsonl"
    if parent is not None:
        raise checkpoint.CheckpointError(
            f"the trunk in {parent} has no checkpoint; delete that folder and run again"
        )
    return Position(state=initial), folder / "metrics.jsonl"


def is_finished(job: Job, folder: Path) -> bool:
    """Whether the folder is done, and measured as the job asks."""
    if not (folder / "DONE").exists():
        return False
    return not job.segment.final or Result.load(folder).measure == job.measure


def open_folder(folder: Path) -> dict[str, Any]:
    """Writes status.json for a start or a resume; keeps the first start and notes a change of machine, threads or versions."""
    (folder / "DONE").unlink(missing_ok=True)
    path = folder / "status.json"
    before = (
        read_json(path)
        if path.exists()
        else {"started": now(), "placement": here(), "placement_changed": False}
    )
    changed = before["placement_changed"] or before["placement"] != here()
    status = {
        "status": "running",
        "started": before["started"],
        "placement": here(),
        "placement_changed": changed,
    }
    write_json(path, status)
    return status


def check_vocabulary(run: Run, shards: Shards) -> None:
    """Raises ValueError when the data has token ids that the model has no row for."""
    if shards.vocabulary > run.model.vocabulary:
        raise ValueError(
            f"{run.data.source} under {run.data.tokenizer} has {shards.vocabulary} token ids, "
            f"Model.vocabulary is {run.model.vocabulary}: set it to {shards.vocabulary}"
        )
