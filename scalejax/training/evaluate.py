"""Evaluate a run's weights, in training or from its last checkpoint."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from scalejax.config import Measure, Placement, Run
from scalejax.data.preparation import prepare
from scalejax.data.shards import Shards
from scalejax.evaluation import likelihood
from scalejax.evaluation.run_metrics import downstream_metrics, held_out_metrics
from scalejax.evaluation.tasks import (
    Provenance,
    ScoredModel,
    SuiteResult,
    TaskMetrics,
    ignore_progress,
    score_suite,
)
from scalejax.files import sha256
from scalejax.grids import run_id
from scalejax.model.parameters import Params
from scalejax.training import checkpoint, distributed
from scalejax.training.segment import TrainingJob
from scalejax.training.sharding import batch_sharding, make_mesh
from scalejax.training.status import check_data, read_status
from scalejax.training.step import Network, init_state, weights_to_evaluate


def evaluate(out: str | Path, measure: Measure | None = None) -> dict[str, float | None]:
    """Measure the weights of the last checkpoint in a run's folder.

    Returns `loss` and `loss_se` (nats per token), `bits_per_byte`, the same for every
    domain, `top1_error`, `top1_error_se` and `error_<task>`. `measure` says what to
    measure; by default what the run was trained with. Nothing is written.

    Raises ValueError when the folder holds no sound checkpoint.
    """
    job, step, params, mesh = last_weights(Path(out))
    run, measure = job.segment.run, measure or job.measure
    shards = trained_on(Path(out), run)
    token_losses, accumulate = bind_token_losses(params, run, mesh), job.placement.accumulate
    losses = held_out_metrics(token_losses, shards, run, measure, accumulate=accumulate)
    # The weights are loaded already, but tasks expect a function that loads them.
    model = scored_model(Path(out), step, run, mesh, shards, lambda: params)
    return losses | downstream_metrics(model, measure, None)


def evaluate_suite(
    out: Path,
    suite: str,
    *,
    folder: Path | None = None,
    items: int = 256,
    window: int | None = None,
    progress: Callable[[str, TaskMetrics, int], None] = ignore_progress,
) -> SuiteResult:
    """Score the last checkpoint in a run's folder on a suite of tasks.

    Returns what `score_suite` does and stores it in `folder`, by default
    `out`/evaluations. Scores stored earlier are read; when none is missing, the model
    is not even loaded.

    `window` is the largest number of tokens of a prompt with its answer, by default the
    run's sequence length. `progress(task, metrics, remaining)` is called when a task is
    done.

    Raises ValueError when the folder holds no sound checkpoint, when the data are no
    longer those of the training, or when the suite cannot be scored.
    """
    job, step = _last_checkpoint(out)
    run, mesh = job.segment.run, _training_mesh(job.placement)
    shards = trained_on(out, run)
    model = scored_model(
        out, step, run, mesh, shards, lambda: _load_weights(job, out, step, mesh), window
    )
    folder = folder or out / "evaluations"
    # Otherwise the first task would be scored in vain.
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"the scores cannot be stored in {folder}, which is not a folder")
    return score_suite(suite, model, items=items, folder=folder, progress=progress)


class Weights(NamedTuple):
    """The weights of a run at its last checkpoint."""

    job: TrainingJob
    step: int
    params: Params
    mesh: jax.sharding.Mesh
    """The mesh that holds `params`."""

    @property
    def run(self) -> Run:
        """The run that was trained."""
        return self.job.segment.run


def last_weights(out: Path) -> Weights:
    """Load the weights of the last checkpoint in a run's folder.

    They are placed on the mesh of the training, or on one device when this process has
    fewer devices than that. Nothing is written.

    Raises ValueError when the folder is not a run's folder or holds no sound
    checkpoint.
    """
    job, step = _last_checkpoint(out)
    mesh = _training_mesh(job.placement)
    return Weights(job, step, _load_weights(job, out, step, mesh), mesh)


def trained_on(out: Path, run: Run) -> Shards:
    """The data that the run in a folder was trained on.

    Raises ValueError when the data at hand are others: a tokenizer that was trained on
    their text gives the ids another meaning.
    """
    shards = prepare(run.data)
    check_data(out, read_status(out), shards.hash)
    return shards


def bind_token_losses(
    params: Params, run: Run, mesh: jax.sharding.Mesh
) -> Callable[[np.ndarray], np.ndarray]:
    """Losses under these weights: rows int32 [b, t + 1] -> float32 [b, t]."""
    token_losses = make_token_losses(run, mesh)
    return lambda rows: distributed.to_host(token_losses(params, _spread(rows, mesh)))


def scored_model(
    folder: Path,
    step: int,
    run: Run,
    mesh: jax.sharding.Mesh,
    shards: Shards,
    params: Callable[[], Params],
    window: int | None = None,
) -> ScoredModel:
    """The model at checkpoint `step` of a run's folder, as tasks score it.

    `params()` is called once, when the first task needs the weights, and never when all
    scores are stored already.
    """

    # Cached, because every task of a suite asks for the function anew.
    @functools.cache
    def span_scores():
        scores, weights = make_span_scores(run, mesh), params()

        def scorer(
            rows: np.ndarray, starts: np.ndarray, counts: np.ndarray, width: int
        ) -> tuple[jax.Array | np.ndarray, jax.Array | np.ndarray]:
            arrays = [_spread(array, mesh) for array in (rows, starts, counts)]
            sums, greedy = scores(weights, *arrays, width)
            if sums.is_fully_addressable:
                # Nobody waits here, so that the host can prepare the next batch.
                return sums, greedy
            return distributed.to_host(sums), distributed.to_host(greedy)

        return scorer

    # Stored scores are valid for these weights only: the hash of the checkpoint's
    # record, which contains the hash of every array, identifies them.
    record = folder / "checkpoints" / f"{step}.json"
    provenance = Provenance(run=run_id(run), step=step, checkpoint=sha256(record)[:16])
    return ScoredModel(
        load=span_scores,
        shards=shards,
        window=window or run.data.sequence_length,
        batch_multiple=mesh.shape["data"] * mesh.shape["fsdp"],
        provenance=provenance,
    )


def make_token_losses(
    run: Run, mesh: jax.sharding.Mesh
) -> Callable[[Params, jax.typing.ArrayLike], jax.Array]:
    """Compile `token_losses`: (params, rows int32 [b, t + 1]) -> float32 [b, t]."""
    return _compiled_token_losses(Network.of(run, mesh))


def make_span_scores(
    run: Run, mesh: jax.sharding.Mesh
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Compile `likelihood.span_scores`.

    Called with (params, rows, starts, counts, width), it returns two arrays [b, k].
    `width` is static: every width is a program of its own.
    """
    return _compiled_span_scores(Network.of(run, mesh))


@functools.cache
def _compiled_token_losses(network: Network):
    def token_losses(params: Params, rows: jax.Array) -> jax.Array:
        return likelihood.token_losses(network.bind(params), rows, network.packing)

    # The sequences of a batch are independent: devices share them as they do in
    # training.
    batch = batch_sharding(network.mesh)
    return jax.jit(token_losses, in_shardings=(network.param_shardings, batch), out_shardings=batch)


@functools.cache
def _compiled_span_scores(network: Network):
    def scores(
        params: Params, rows: jax.Array, starts: jax.Array, counts: jax.Array, width: int
    ) -> tuple[jax.Array, jax.Array]:
        return likelihood.span_scores(network.bind(params), rows, starts, counts, width)

    batch = batch_sharding(network.mesh)
    return jax.jit(
        scores,
        static_argnums=4,
        in_shardings=(network.param_shardings, batch, batch, batch),
        out_shardings=batch,
    )


def _spread(array: np.ndarray, mesh: jax.sharding.Mesh) -> jax.typing.ArrayLike:
    """The array with its rows split over the devices of all processes."""
    rows = lambda start, stop: array[start:stop]  # noqa: E731
    return distributed.spread(batch_sharding(mesh), array.shape, rows)


def _last_checkpoint(out: Path) -> tuple[TrainingJob, int]:
    """The job of a run's folder, and the step of its last checkpoint."""
    if not (out / "config.json").is_file():
        raise ValueError(
            f"{out} is not a run's folder (it has no config.json); give OUT/<study>/runs/<id>, "
            "or the `out` of train()"
        )
    job, steps = TrainingJob.read(out), checkpoint.steps(out / "checkpoints")
    if not steps:
        raise checkpoint.CheckpointError(f"{out} has no checkpoint yet: nothing to evaluate")
    return job, steps[-1]


def _load_weights(job: TrainingJob, out: Path, step: int, mesh: jax.sharding.Mesh) -> Params:
    """The weights to evaluate from the checkpoint of `step`."""
    initial = init_state(job.segment.run, mesh)
    like = checkpoint.abstract(initial)
    restored = checkpoint.restore(out / "checkpoints", like, job.segment.id, step=step)
    # Training may have replaced the checkpoint since it was listed.
    if restored is None:
        raise checkpoint.CheckpointError(f"{out} has no checkpoint of step {step} any more")
    _, state, _ = restored
    return weights_to_evaluate(job.segment.run, state)["raw"]


def _training_mesh(placement: Placement) -> jax.sharding.Mesh:
    """The mesh of the training, or a single device when there are fewer devices."""
    return make_mesh(placement if placement.devices <= len(jax.devices()) else Placement())
