"""The training step: pure functions of (state, batch, learning rate), compiled once per shape.

Axes: b sequences, t positions, d width, v vocabulary.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jax.typing import ArrayLike

from scalejax.config import Average, Model, Parametrization, Run
from scalejax.data.packing import split_flags
from scalejax.model.parameters import Params, scalings
from scalejax.model.transformer import Transformer, abstract, initialize
from scalejax.optim import averaging
from scalejax.optim.optimizers import Hyperparameters, evaluation_params, hyperparameters, optimizer
from scalejax.training.sharding import (
    batch_sharding,
    like_parameters,
    parameter_shardings,
    replicated,
)

LOGITS_AT_ONCE = 2**24
"""Largest number of logits held at a time (64 MiB in float32); a batch with more is taken in chunks of positions."""


class TrainState(NamedTuple):
    """All that a run carries from step to step; nested dicts of arrays at heart."""

    params: Params
    optimizer_state: optax.OptState
    hyperparameters: Hyperparameters
    step: jax.Array
    """Steps taken, skipped ones too: the position in the data. int32."""
    skipped: jax.Array
    """Sequences of the steps whose loss or gradient was not finite. int32."""
    skipped_in_a_row: jax.Array
    """Such steps since the last one that was not skipped. int32."""
    averages: dict[str, Any]
    """Averages of the weights by name; empty unless `Measure.averages` asks for some."""


TokenLosses = Callable[[Params, ArrayLike], jax.Array]
SpanScores = Callable[[Params, ArrayLike, ArrayLike, ArrayLike, int], tuple[jax.Array, jax.Array]]
Head = Callable[[Transformer, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
Metrics = dict[str, jax.Array]
"""float32 scalars: loss (nats per token, without z-loss; NaN for a skipped step), grad_norm (before clipping), skipped,
skipped_in_a_row."""
Step = Callable[[TrainState, ArrayLike, ArrayLike], tuple[TrainState, Metrics]]


def init_state(run: Run, mesh: Mesh, averages: tuple[Average, ...] = ()) -> TrainState:
    """The state before the first step, laid out on the mesh; a function of the run's seed, not of the mesh."""
    start = _init(run.model, run.parametrization, run.optimizer.name, averages, mesh)
    return start(jax.random.key(run.seed), hyperparameters(run))


def make_train_step(
    run: Run, mesh: Mesh, accumulate: int = 1, averages: tuple[Average, ...] = ()
) -> Step:
    """The compiled step: (state, rows int32 [sequences, length + 1], learning_rate) -> (state, metrics).

    Row k holds the tokens of a sequence and the one that follows it, marked (data/packing.py) when the run packs documents. The
    loss is the mean over the batch's tokens, of marked rows over those that count, of cross-entropy + z_loss x log(Z)^2.
    `accumulate` micro-batches are summed, in less memory, to the same gradient. The state is donated. A step whose loss or
    gradient norm is not finite leaves parameters, moments and averages as they were and counts its sequences in `skipped`.

    Runs that differ in numbers alone (hyperparameters, schedule, tokens, seed) get the very same function, compiled once per
    size of batch. `averages` are taken by a program of their own, so that no bit of the weights depends on them.

    Raises ValueError when `accumulate` does not divide the smallest batch.
    """
    sequences = run.first_batch_sequences
    if sequences % accumulate:
        raise ValueError(
            f"Placement.accumulate {accumulate} does not divide the batch of {sequences} sequences"
        )
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if sequences // accumulate % shards:
        raise ValueError(
            f"Placement.data x fsdp = {shards} devices do not divide a micro-batch of {sequences // accumulate} sequences"
        )
    name = run.optimizer.name
    network = (run.model, run.parametrization, run.compute_dtype, run.data.packing)
    train_step = _train_step(*network, name, run.optimizer.decay, mesh, accumulate)
    if not averages:
        return train_step
    add = _add(
        run.model, run.parametrization, name, averages, sequences * run.data.sequence_length, mesh
    )

    def step(
        state: TrainState, rows: ArrayLike, learning_rate: ArrayLike
    ) -> tuple[TrainState, Metrics]:
        so_far = state.averages
        state, metrics = train_step(state._replace(averages={}), rows, learning_rate)
        return state._replace(averages=add(so_far, state, jnp.shape(rows))), metrics

    return step


def weights(run: Run, state: TrainState, averages: tuple[Average, ...] = ()) -> dict[str, Params]:
    """The weights to evaluate by name: `raw` (under schedule-free-adamw its average), then those of `averages`."""
    first_batch = run.first_batch_sequences * run.data.sequence_length
    found = {
        a.name: averaging.value(a, state.averages[a.name], first_batch=first_batch)
        for a in averages
    }
    return {"raw": evaluation_params(run.optimizer.name, state.params, state.optimizer_state), **found}


def make_token_losses(run: Run, mesh: Mesh) -> TokenLosses:
    """The compiled evaluation: (params, rows int32 [b, length + 1]) -> cross-entropy float32 [b, length], nats per token.

    Rows bear marks when the run packs documents; losses of tokens that do not count are given too.
    """
    return _token_losses(run.model, run.parametrization, run.compute_dtype, run.data.packing, mesh)


def make_span_scores(run: Run, mesh: Mesh) -> SpanScores:
    """The compiled scorer: (params, rows int32 [b, t + 1], starts and counts int32 [b, k], width) -> as `span_scores`."""
    return _span_scores(run.model, run.parametrization, run.compute_dtype, mesh)


def cross_entropy(
    model: Transformer, rows: jax.Array, segments_bt: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """(cross-entropy, log Z) of every token after the first, both float32 [b, t]; Z is the sum of exponentiated logits.

    Logits exist for LOGITS_AT_ONCE / v tokens at a time; the backward pass computes them again.
    """
    return _in_chunks(
        model, model.hidden(rows[:, :-1], segments_bt), rows[:, 1:], _cross_entropy_of
    )


def unpacked(rows: jax.Array, packing: str) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    """(ids [b, t + 1], segments of the inputs [b, t], which targets count [b, t]); None, None for documents laid end to end."""
    if packing == "concatenate":
        return rows, None, None
    ids, starts, counted = split_flags(rows)
    return ids, jnp.cumsum(starts[:, :-1], axis=1), counted[:, 1:]


def span_scores(
    model: Transformer, rows: jax.Array, starts_bk: jax.Array, counts_bk: jax.Array, width: int
) -> tuple[jax.Array, jax.Array]:
    """(float32 [b, k], bool [b, k]): minus the cross-entropy of tokens start .. start + count - 1 of every row, summed, for each
    of its k spans, and whether each of these tokens is the likeliest. The head is taken at k x `width` positions of a row alone.

    Rows of several spans bear marks (data/packing.py) where prompts start, and no prompt sees another.
    """
    ids, segments_bt, _ = unpacked(rows, "documents" if starts_bk.shape[1] > 1 else "concatenate")
    x_btd = model.hidden(ids[:, :-1], segments_bt)
    ahead_bkw = starts_bk[..., None] - 1 + jnp.arange(width)
    positions_bs = jnp.minimum(ahead_bkw, x_btd.shape[1] - 1).reshape(len(rows), -1)
    x_bsd = jnp.take_along_axis(x_btd, positions_bs[..., None], axis=1)
    targets_bs = jnp.take_along_axis(ids, positions_bs + 1, axis=1)
    losses_bs, greedy_bs = _in_chunks(model, x_bsd, targets_bs, _greedy_of)
    inside_bkw = jnp.arange(width) < counts_bk[..., None]
    losses_bkw, greedy_bkw = (
        losses_bs.reshape(inside_bkw.shape),
        greedy_bs.reshape(inside_bkw.shape),
    )
    return -jnp.sum(losses_bkw, axis=2, where=inside_bkw), jnp.all(
        greedy_bkw, axis=2, where=inside_bkw
    )


def _in_chunks(
    model: Transformer, x_btd: jax.Array, targets_bt: jax.Array, head: Head
) -> tuple[jax.Array, jax.Array]:
    b, t, d = x_btd.shape
    chunks = _chunks(t, logits_per_position=b * model.vocabulary)
    if chunks == 1:
        return head(model, x_btd, targets_bt)
    x_cbtd = x_btd.reshape(b, chunks, t // chunks, d).swapaxes(0, 1)
    targets_cbt = targets_bt.reshape(b, chunks, t // chunks).swapaxes(0, 1)
    graphdef, params = nnx.split(model)

    @jax.checkpoint
    def chunk(params, x_btd, targets_bt):
        return head(nnx.merge(graphdef, params), x_btd, targets_bt)

    _, (first, second) = jax.lax.scan(
        lambda _, xs: (None, chunk(params, *xs)), None, (x_cbtd, targets_cbt)
    )
    return first.swapaxes(0, 1).reshape(b, t), second.swapaxes(0, 1).reshape(b, t)


def _cross_entropy_of(
    model: Transformer, x_btd: jax.Array, targets_bt: jax.Array
) -> tuple[jax.Array, jax.Array]:
    logits_btv = model.logits(x_btd)
    log_z_bt = jax.nn.logsumexp(logits_btv, axis=-1)
    hit_btv = targets_bt[..., None] == jnp.arange(logits_btv.shape[-1])
    return log_z_bt - jnp.sum(logits_btv, axis=-1, where=hit_btv), log_z_bt


def _greedy_of(
    model: Transformer, x_btd: jax.Array, targets_bt: jax.Array
) -> tuple[jax.Array, jax.Array]:
    logits_btv = model.logits(x_btd)
    hit_btv = targets_bt[..., None] == jnp.arange(logits_btv.shape[-1])
    target_bt = jnp.sum(logits_btv, axis=-1, where=hit_btv)
    return jax.nn.logsumexp(logits_btv, axis=-1) - target_bt, target_bt >= logits_btv.max(axis=-1)


def _chunks(length: int, *, logits_per_position: int) -> int:
    """Fewest equal chunks of positions within LOGITS_AT_ONCE; at most one per position."""
    return next(
        (
            n
            for n in range(1, length)
            if length % n == 0 and length // n * logits_per_position <= LOGITS_AT_ONCE
        ),
        length,
    )


@functools.cache
def _init(
    model: Model,
    parametrization: Parametrization,
    name: str,
    averages: tuple[Average, ...],
    mesh: Mesh,
) -> Callable[[jax.Array, Hyperparameters], TrainState]:
    start = functools.partial(_start, model, parametrization, name, averages)
    return jax.jit(
        start, out_shardings=_state_shardings(model, parametrization, name, averages, mesh)
    )


def _start(
    model: Model,
    parametrization: Parametrization,
    name: str,
    averages: tuple[Average, ...],
    key: jax.Array,
    numbers: Hyperparameters,
) -> TrainState:
    params = initialize(model, parametrization, key)
    moments = _optimizer(model, parametrization, name, "independent", numbers, numbers.peak).init(
        params
    )
    zero = jnp.int32(0)
    started = {average.name: averaging.start(average, params) for average in averages}
    return TrainState(params, moments, numbers, zero, zero, zero, started)


def _optimizer(
    model: Model,
    parametrization: Parametrization,
    name: str,
    decay: str,
    numbers: Hyperparameters,
    learning_rate: jax.Array,
) -> optax.GradientTransformation:
    _, specs = abstract(model, parametrization)
    rows = scalings(specs, parametrization, model)
    return optimizer(name, numbers, learning_rate, specs=specs, scalings=rows, decay=decay)


@functools.cache
def _state_shardings(
    model: Model,
    parametrization: Parametrization,
    name: str,
    averages: tuple[Average, ...],
    mesh: Mesh,
) -> TrainState:
    _, specs = abstract(model, parametrization)
    numbers = Hyperparameters(*jnp.zeros(len(Hyperparameters._fields)))
    start = functools.partial(_start, model, parametrization, name, averages)
    state = jax.eval_shape(start, jax.random.key(0), numbers)
    return like_parameters(mesh, state, parameter_shardings(mesh, specs))


@functools.cache
def _train_step(
    model: Model,
    parametrization: Parametrization,
    compute_dtype: str,
    packing: str,
    name: str,
    decay: str,
    mesh: Mesh,
    accumulate: int,
) -> Step:
    graphdef, _ = abstract(model, parametrization, compute_dtype)

    def loss_share(
        params: Params, rows: jax.Array, z_loss: jax.Array, tokens: ArrayLike
    ) -> tuple[jax.Array, jax.Array]:
        """What these rows add to the mean over the batch's tokens: (with z-loss, without)."""
        ids, segments_bt, counted_bt = unpacked(rows, packing)
        losses_bt, log_z_bt = cross_entropy(nnx.merge(graphdef, params), ids, segments_bt)
        loss = jnp.sum(losses_bt, where=counted_bt) / tokens
        return loss + z_loss * jnp.sum(jnp.square(log_z_bt), where=counted_bt) / tokens, loss

    def loss_and_gradient(
        params: Params, rows: jax.Array, z_loss: jax.Array
    ) -> tuple[jax.Array, Params]:
        _, _, counted_bt = unpacked(rows, packing)
        tokens = rows.shape[0] * (rows.shape[1] - 1) if counted_bt is None else jnp.sum(counted_bt)
        gradient_of = jax.grad(loss_share, has_aux=True)

        def add(total, micro_rows):
            gradient, loss = gradient_of(params, micro_rows, z_loss, tokens)
            return jax.tree.map(jnp.add, total, (loss, gradient)), None

        if accumulate == 1:
            gradient, loss = gradient_of(params, rows, z_loss, tokens)
            return loss, gradient
        nothing = (jnp.float32(0), jax.tree.map(jnp.zeros_like, params))
        # Every accumulate-th row, so that a device's rows stay where they are.
        micro_batches = rows.reshape(-1, accumulate, rows.shape[1]).swapaxes(0, 1)
        return jax.lax.scan(add, nothing, micro_batches)[0]

    def train_step(
        state: TrainState, rows: jax.Array, learning_rate: jax.Array
    ) -> tuple[TrainState, Metrics]:
        numbers = state.hyperparameters
        loss, gradient = loss_and_gradient(state.params, rows, numbers.z_loss)
        grad_norm = optax.tree.norm(gradient)
        rule = _optimizer(model, parametrization, name, decay, numbers, learning_rate)
        updates, moments = rule.update(gradient, state.optimizer_state, state.params)
        updated = (optax.apply_updates(state.params, updates), moments)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        params, moments = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            updated,
            (state.params, state.optimizer_state),
        )
        skipped = state.skipped + jnp.where(finite, 0, rows.shape[0])
        in_a_row = jnp.where(finite, 0, state.skipped_in_a_row + 1)
        metrics = {
            "loss": jnp.where(finite, loss, jnp.nan),
            "grad_norm": grad_norm,
            "skipped": skipped,
            "skipped_in_a_row": in_a_row,
        }
        state = TrainState(
            params, moments, numbers, state.step + 1, skipped, in_a_row, state.averages
        )
        return state, {name: value.astype(jnp.float32) for name, value in metrics.items()}

    state_shardings = _state_shardings(model, parametrization, name, (), mesh)
    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(state_shardings, batch_sharding(mesh), replicated(mesh)),
        out_shardings=(state_shardings, replicated(mesh)),
    )


@functools.cache
def _add(
    model: Model,
    parametrization: Parametrization,
    name: str,
    averages: tuple[Average, ...],
    first_batch: int,
    mesh: Mesh,
) -> Callable[[dict[str, Any], TrainState, tuple[int, ...]], dict[str, Any]]:
    """The compiled averaging: (averages so far, the state after a step, the shape of its rows) -> averages."""

    def add(so_far: dict[str, Any], state: TrainState, shape: tuple[int, ...]) -> dict[str, Any]:
        new = evaluation_params(name, state.params, state.optimizer_state)
        tokens = {"batch_tokens": shape[0] * (shape[1] - 1), "first_batch": first_batch}
        added = {
            average.name: averaging.add(average, so_far[average.name], new, **tokens)
            for average in averages
        }
        return jax.tree.map(
            lambda new, old: jnp.where(state.skipped_in_a_row == 0, new, old), added, so_far
        )

    shardings = _state_shardings(model, parametrization, name, averages, mesh).averages
    return jax.jit(add, donate_argnums=0, static_argnums=2, out_shardings=shardings)


@functools.cache
def _token_losses(
    model: Model, parametrization: Parametrization, compute_dtype: str, packing: str, mesh: Mesh
) -> TokenLosses:
    graphdef, specs = abstract(model, parametrization, compute_dtype)

    def token_losses(params: Params, rows: jax.Array) -> jax.Array:
        ids, segments_bt, _ = unpacked(rows, packing)
        return cross_entropy(nnx.merge(graphdef, params), ids, segments_bt)[0]

    return jax.jit(
        token_losses,
        in_shardings=(parameter_shardings(mesh, specs), batch_sharding(mesh)),
        out_shardings=batch_sharding(mesh),
    )


@functools.cache
def _span_scores(
    model: Model, parametrization: Parametrization, compute_dtype: str, mesh: Mesh
) -> SpanScores:
    graphdef, specs = abstract(model, parametrization, compute_dtype)

    def scores(params: Params, rows: jax.Array, starts: jax.Array, counts: jax.Array, width: int):
        return span_scores(nnx.merge(graphdef, params), rows, starts, counts, width)

    batch = batch_sharding(mesh)
    return jax.jit(
        scores,
        static_argnums=4,
        in_shardings=(parameter_shardings(mesh, specs), batch, batch, batch),
        out_shardings=batch,
    )
