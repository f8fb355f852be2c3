"""Measure a run after its training, from the last checkpoint in its folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from scalejax.config import Measure, Placement, Run
from scalejax.data.preparation import prepare
from scalejax.evaluation.run_metrics import downstream, held_out_loss
from scalejax.evaluation.tasks import score_suite
from scalejax.model.parameters import Params
from scalejax.training import checkpoint
from scalejax.training.loop import losses_under, subject
from scalejax.training.segment import Job
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state, weights


def evaluate(out: str | Path, measure: Measure | None = None) -> dict[str, float]:
    """Measures the weights of the last checkpoint in a run's folder: loss, loss_se, bits_per_byte (of every domain, too),
    top1_error, top1_error_se, error_<task>.

    Nothing is written. Raises ValueError when the folder has no sound checkpoint.
    """
    job, step, params, mesh = last_weights(Path(out))
    run, measure = job.segment.run, measure or job.measure
    shards = prepare(run.data)
    found = held_out_loss(losses_under(params, run, mesh), shards, run, measure)
    return found | downstream(
        subject(Path(out), step, run, mesh, shards, lambda: params), measure, None
    )


def evaluate_suite(
    out: Path,
    suite: str,
    *,
    folder: Path | None = None,
    items: int = 256,
    window: int | None = None,
    report: Callable[[str, dict[str, Any], int], None] = lambda task, outcome, remaining: None,
) -> dict[str, Any]:
    """Scores the last checkpoint in a run's folder on a suite; gives and keeps what `score_suite` does, below `folder` (out's
    `evaluations` when not given).

    `window`: tokens of a prompt with its answer, the run's sequence length when not given. `report(task, outcome, remaining)` is
    called when a task is done. What was scored before is read, and the model is not even loaded. Raises ValueError when the
    folder has no sound checkpoint, or the suite cannot be scored.
    """
    job, step = _found(out)
    run, mesh = job.segment.run, _mesh(job.placement)
    asked = subject(
        out, step, run, mesh, prepare(run.data), lambda: _restored(job, out, step, mesh), window
    )
    return score_suite(
        suite, asked, items=items, folder=folder or out / "evaluations", report=report
    )


class Weights(NamedTuple):
    """A run at its last checkpoint."""

    job: Job
    step: int
    params: Params
    mesh: jax.sharding.Mesh
    """Where `params` lie."""

    @property
    def run(self) -> Run:
        """What was trained."""
        return self.job.segment.run


def last_weights(out: Path) -> Weights:
    """What a run's folder holds, on the mesh of its training, or on one device where there are fewer.

    Raises ValueError when the folder is no run's, or has no sound checkpoint. Nothing is written.
    """
    job, step = _found(out)
    mesh = _mesh(job.placement)
    return Weights(job, step, _restored(job, out, step, mesh), mesh)


def _found(out: Path) -> tuple[Job, int]:
    """The job of a run's folder and the step of its last checkpoint."""
    if not (out / "config.json").is_file():
        raise ValueError(
            f"{out} is no run's folder (it has no config.json); give OUT/<study>/runs/<id>, or `out` of train()"
        )
    job, steps = Job.read(out), checkpoint.steps(out / "checkpoints")
    if not steps:
        raise checkpoint.CheckpointError(f"{out} has no checkpoint yet: nothing to evaluate")
    return job, steps[-1]


def _restored(job: Job, out: Path, step: int, mesh: jax.sharding.Mesh) -> Params:
    """The weights to evaluate."""
    initial = init_state(job.segment.run, mesh)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), initial
    )
    found = checkpoint.restore(out / "checkpoints", like, step=step)
    if found is None:  # removed since it was listed
        raise checkpoint.CheckpointError(f"{out} has no checkpoint of step {step} any more")
    return weights(job.segment.run, found[1])["raw"]


def _mesh(placement: Placement) -> jax.sharding.Mesh:
    """The mesh of the training, or a single device where there are fewer."""
    fits = placement.data * placement.fsdp * placement.tensor <= len(jax.devices())
    return make_mesh(placement if fits else Placement())
