"""Curves on a dashboard: metrics rows are copied to TensorBoard or Weights & Biases.

metrics.jsonl is the truth, and a dashboard is a copy of it that may be incomplete. A
thread of its own writes the copy, behind a queue of bounded length: a dashboard that is
down, slow or full never stops a run and never slows it. Rows that find the queue full
are dropped and counted.
"""

import contextlib
import json
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from scalejax.grids import flatten
from scalejax.model.flops import training_flops
from scalejax.training.segment import TrainingJob

# Rows that may wait for a slow dashboard: hours of training, and a few hundred kB.
QUEUE_ROWS = 1000
# How long the end of a run waits for the rows that are still in the queue.
CLOSE_SECONDS = 10.0

log = logging.getLogger("scalejax")

Row = Mapping[str, Any]
Write = Callable[[Row], None]


class Dashboard(Protocol):
    """Where the rows are copied to. Its methods are called by one thread."""

    def log(self, row: Row) -> None:
        """Add the numbers of a row, which has `step`, `tokens` and `flops`."""
        ...

    def finish(self) -> None:
        """Write what is left."""
        ...


class Tracker:
    """Copies rows to a dashboard, without ever waiting for it.

    open_dashboard: makes the dashboard, in the tracker's thread: this can be slow, too.
    name: what the dashboard is called in messages.
    """

    def __init__(self, open_dashboard: Callable[[], Dashboard], name: str):
        self.name, self.dropped, self.error = name, 0, ""
        self._open = open_dashboard
        self._rows: queue.Queue[Row | None] = queue.Queue(QUEUE_ROWS)
        # A daemon: a dashboard that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def write(self, row: Row) -> None:
        """Hand a row over, or drop it when the queue is full."""
        try:
            self._rows.put_nowait(row)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Wait a moment for the last rows, and say once what the dashboard lacks."""
        with contextlib.suppress(queue.Full):
            self._rows.put(None, timeout=CLOSE_SECONDS)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self.error = self.error or f"it has not answered for {CLOSE_SECONDS:g} s"
            self.dropped += self._rows.qsize()
        if self.error or self.dropped:
            reason = f" ({self.error})" if self.error else ""
            log.warning(
                "%s is incomplete%s: %d rows were not copied; metrics.jsonl has all of them",
                self.name,
                reason,
                self.dropped,
            )

    def _copy(self) -> None:
        dashboard: Dashboard | None = None
        while True:
            row = self._rows.get()
            # Whatever a dashboard raises, the run goes on, and so does this loop: it
            # empties the queue, and counts.
            try:
                if row is None:
                    if dashboard is not None:
                        dashboard.finish()
                    return
                if self.error:
                    self.dropped += 1
                    continue
                dashboard = dashboard or self._open()
                dashboard.log(row)
            except (Exception, SystemExit) as error:
                self.dropped += row is not None
                self.error = f"{type(error).__name__}: {error}".splitlines()[0]
                if row is None:
                    return


@contextlib.contextmanager
def open_tracker(job: TrainingJob, folder: Path, *, history: str) -> Iterator[Write]:
    """Return a function that copies a row of metrics.jsonl, as the placement asks.

    history: the rows up to the step from which training continues. A dashboard that
    does not know the run yet gets them first: those of a run's trunk, for example.
    """
    kind = job.placement.track
    if kind == "none":
        yield lambda row: None
        return
    target = _tensorboard_folder(job, folder) if kind == "tensorboard" else folder / "wandb"
    is_known = target.exists()
    open_dashboard = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}[kind]
    tokens = json.loads(history.splitlines()[-1])["tokens"] if history else 0
    tracker = Tracker(lambda: open_dashboard(job, folder, target, tokens), kind)

    def write(row: Row) -> None:
        tracker.write(_numbers(row, job))

    if not is_known:
        for line in history.splitlines():
            write(json.loads(line))
    try:
        yield write
    finally:
        tracker.close()


class TensorBoard:
    """Event files in the study's folder `tensorboard`, one folder per run.

    The horizontal axis is tokens, in which runs of different batch sizes compare.
    """

    def __init__(self, job: TrainingJob, folder: Path, target: Path, tokens: int):
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

        # Points behind the checkpoint are trained again; `purge_step` hides the old.
        purge = tokens + 1 if target.exists() and tokens else None
        # tensorboardX names a file after the second: a run that stops and continues
        # within one would overwrite what it wrote before.
        suffix = f".{time.time_ns()}"
        self._writer = SummaryWriter(
            str(target), purge_step=purge, flush_secs=10, filename_suffix=suffix
        )

    def log(self, row: Row) -> None:
        """Add one point per number of a row."""
        for name, value in row.items():
            if name != "tokens":
                self._writer.add_scalar(name, value, global_step=row["tokens"])

    def finish(self) -> None:
        """Write what is left."""
        self._writer.close()


class WeightsAndBiases:
    """A run of the project `scalejax`: its group is the study, its name the run's id.

    WANDB_PROJECT, WANDB_MODE and the other variables of wandb hold. A run that
    continues has the same id, and so continues on the dashboard.
    """

    def __init__(self, job: TrainingJob, folder: Path, target: Path, tokens: int):
        import wandb  # pyright: ignore[reportMissingImports]

        self._run = wandb.init(
            project=None if "WANDB_PROJECT" in os.environ else "scalejax",
            group=job.study or None,
            name=job.segment.id,
            id=f"{job.study.replace('@', '-') or 'run'}-{job.segment.id}",
            job_type="run" if job.segment.final else "trunk",
            resume="allow",
            # By default the members of a population would all get the first one's run.
            reinit="create_new",
            dir=str(folder),
            config=flatten(job.segment.run),
            # A worker's standard output carries its events: it must not be captured.
            settings=wandb.Settings(console="off", silent=True),
        )
        for axis in ("tokens", "flops", "step"):
            self._run.define_metric(axis, hidden=True)
        self._run.define_metric("*", step_metric="tokens")

    def log(self, row: Row) -> None:
        """Log a row; `tokens` and `flops` in it can be chosen as the axis."""
        self._run.log(dict(row))

    def finish(self) -> None:
        """Send or write what is left."""
        self._run.finish()


def _tensorboard_folder(job: TrainingJob, folder: Path) -> Path:
    """Where the event files of a run are; outside a study in the run's own folder."""
    if not job.study:
        return folder / "tensorboard"
    return folder.parent.parent / "tensorboard" / folder.name


def _numbers(row: Row, job: TrainingJob) -> Row:
    """The finite numbers of a row, with the FLOPs so far.

    The losses of an average of the weights are named after it, as in `loss/ema-2000`.
    """
    weights = row.get("weights", "raw")
    suffix = "" if weights == "raw" else f"/{weights}"
    run = job.segment.run
    flops = training_flops(run.model, run.data.sequence_length, row["tokens"])
    axes = {"step": row["step"], "tokens": row["tokens"], "flops": float(flops)}
    values = {
        f"{name}{suffix}": value
        for name, value in row.items()
        if isinstance(value, (int, float)) and name not in axes and math.isfinite(value)
    }
    return axes | values
