"""The training step: from a state, a batch and a learning rate to the next state.

`train_step` is the algorithm. `Program` describes everything that is compiled into it:
runs that differ only in numbers (hyperparameters, schedule, tokens, seed) have equal
programs and share one executable.

Shape suffixes: b sequences, t input positions. `rows` are int32 [b, t + 1]: the inputs
are rows[:, :-1], the targets rows[:, 1:].
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jax.typing import ArrayLike

from scalejax.config import Average, Model, Parametrization, Placement, Run
from scalejax.config.placement import check_placement
from scalejax.evaluation.likelihood import unpack_rows
from scalejax.model.layout import Layout
from scalejax.model.parameters import Params, scalings
from scalejax.model.transformer import Transformer, abstract, initialize
from scalejax.optim import averaging
from scalejax.optim.averaging import Exponential, Window
from scalejax.optim.optimizers import Hyperparameters, evaluation_params, hyperparameters, optimizer
from scalejax.training.loss import summed_loss
from scalejax.training.sharding import (
    batch_sharding,
    parameter_shardings,
    replicated,
    state_shardings,
)

# Nested arrays whose structure depends on the optimizer.
OptimizerState = Any

# The placement that saves no memory.
ONE_DEVICE = Placement()

# By the name of the average.
Averages = dict[str, Exponential | Window]


class TrainState(NamedTuple):
    """All that a run carries from one step to the next, as nested dicts of arrays."""

    params: Params
    optimizer_state: OptimizerState
    hyperparameters: Hyperparameters
    step: jax.Array
    """Steps taken, including skipped ones: the position in the data. int32."""
    skipped: jax.Array
    """Sequences in steps that were skipped (see `train_step`). int32."""
    skipped_in_a_row: jax.Array
    """Steps skipped since the last step that was not. int32."""
    averages: Averages
    """Averages of the weights by name, as `Measure.averages` requests them."""


# float32 scalars: `loss` (nats per token, without z-loss; NaN for a skipped step),
# `grad_norm` (before clipping), `skipped` and `skipped_in_a_row`.
Metrics = dict[str, jax.Array]
Step = Callable[[TrainState, ArrayLike, ArrayLike], tuple[TrainState, Metrics]]


@dataclass(frozen=True, kw_only=True)
class Network:
    """What a compiled forward pass depends on besides its arguments."""

    model: Model
    parametrization: Parametrization
    compute_dtype: str
    packing: str
    """`Data.packing`: whether rows carry document starts and loss masks."""
    mesh: Mesh
    remat: str = "none"
    """`Placement.remat`."""
    scan_layers: bool = False
    """`Placement.scan_layers`."""

    @classmethod
    def of(cls, run: Run, mesh: Mesh, placement: Placement = ONE_DEVICE) -> "Network":
        """The network of `run` on `mesh`, with the memory options of the placement."""
        return cls(
            model=run.model,
            parametrization=run.parametrization,
            compute_dtype=run.compute_dtype,
            packing=run.data.packing,
            mesh=mesh,
            remat=placement.remat,
            scan_layers=placement.scan_layers,
        )

    @property
    def specs(self) -> Params:
        """The declaration of every parameter: shape, logical axes, role, fan-in."""
        _, specs = abstract(self.model, self.parametrization, self.compute_dtype)
        return specs

    @property
    def param_shardings(self) -> Params:
        """The sharding of every parameter on the mesh."""
        return parameter_shardings(self.mesh, self.specs)

    def bind(self, params: Params) -> Transformer:
        """The network with these parameters, ready to be called."""
        layout = Layout(self.mesh, self.remat, self.scan_layers)
        graphdef, _ = abstract(self.model, self.parametrization, self.compute_dtype, layout)
        return nnx.merge(graphdef, params)


@dataclass(frozen=True, kw_only=True)
class Program:
    """What the compiled step depends on besides its arguments: the key of its cache."""

    network: Network
    optimizer: str
    decay: str
    """How weight decay depends on the parametrization: `independent` or `standard`."""
    accumulate: int = 1
    """Micro-batches per step."""

    @classmethod
    def of(cls, run: Run, mesh: Mesh, placement: Placement = ONE_DEVICE) -> "Program":
        """The program of `run` on `mesh`, which need not be the placement's mesh."""
        return cls(
            network=Network.of(run, mesh, placement),
            optimizer=run.optimizer.name,
            decay=run.optimizer.decay,
            accumulate=placement.accumulate,
        )

    def update_rule(
        self, numbers: Hyperparameters, learning_rate: jax.Array
    ) -> optax.GradientTransformation:
        """The optimizer with these numbers and the parametrization's multipliers."""
        network = self.network
        multipliers = scalings(network.specs, network.parametrization, network.model)
        return optimizer(
            self.optimizer,
            numbers,
            learning_rate,
            specs=network.specs,
            scalings=multipliers,
            decay=self.decay,
        )


def train_step(
    program: Program, state: TrainState, rows: jax.Array, learning_rate: jax.Array
) -> tuple[TrainState, Metrics]:
    """Take one optimizer step on a batch.

    The learning rate is an argument and the other hyperparameters are arrays in the
    state, so that neither a schedule nor a sweep compiles anything new.
    """
    numbers = state.hyperparameters
    loss, gradient = loss_and_gradient(program, state.params, rows, numbers.z_loss)
    with jax.named_scope("update"):
        grad_norm = optax.tree.norm(gradient)
        rule = program.update_rule(numbers, learning_rate)
        updates, moments = rule.update(gradient, state.optimizer_state, state.params)
        updated = (optax.apply_updates(state.params, updates), moments)

    # One bad batch must not destroy the weights: a step whose loss or gradient is not
    # finite is skipped, leaving parameters and optimizer state as they were. The choice
    # is made on the device, because reading `finite` on the host would wait for every
    # step to end.
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    previous = (state.params, state.optimizer_state)
    params, moments = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, previous)
    skipped = state.skipped + jnp.where(finite, 0, rows.shape[0])
    skipped_in_a_row = jnp.where(finite, 0, state.skipped_in_a_row + 1)

    metrics = {
        "loss": jnp.where(finite, loss, jnp.nan),
        "grad_norm": grad_norm,
        "skipped": skipped,
        "skipped_in_a_row": skipped_in_a_row,
    }
    # A skipped step advances `step` too: the run goes on with the next batch.
    state = TrainState(
        params, moments, numbers, state.step + 1, skipped, skipped_in_a_row, state.averages
    )
    return state, {name: value.astype(jnp.float32) for name, value in metrics.items()}


def loss_and_gradient(
    program: Program, params: Params, rows: jax.Array, z_loss: jax.Array
) -> tuple[jax.Array, Params]:
    """Mean loss over the tokens that count, without z-loss, and the gradient, with it.

    Micro-batches are summed to the same gradient in less memory.
    """
    # Every micro-batch divides by the tokens of the whole batch: packed rows differ in
    # how many tokens count, so that a mean of micro-batch means would weight tokens
    # unequally.
    loss_mask_bt = unpack_rows(rows, program.network.packing).loss_mask_bt
    all_tokens = rows.shape[0] * (rows.shape[1] - 1)
    tokens = all_tokens if loss_mask_bt is None else jnp.sum(loss_mask_bt)
    gradient_of = jax.grad(functools.partial(loss_share, program.network), has_aux=True)

    def add(total: tuple[jax.Array, Params], micro_rows: jax.Array):
        gradient, loss = gradient_of(params, micro_rows, z_loss, tokens)
        return jax.tree.map(jnp.add, total, (loss, gradient)), None

    if program.accumulate == 1:
        gradient, loss = gradient_of(params, rows, z_loss, tokens)
        return loss, gradient
    zeros = (jnp.float32(0), jax.tree.map(jnp.zeros_like, params))
    # A micro-batch takes every accumulate-th row. Rows are split over devices in
    # contiguous blocks, so that contiguous micro-batches would have to move rows
    # between devices.
    micro_batches = rows.reshape(-1, program.accumulate, rows.shape[1]).swapaxes(0, 1)
    return jax.lax.scan(add, zeros, micro_batches)[0]


def loss_share(
    network: Network, params: Params, rows: jax.Array, z_loss: jax.Array, tokens: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """What these rows add to the mean loss of the batch: (with z-loss, without).

    `tokens` is the number of tokens of the whole batch that count in the mean.
    """
    ids, segments_bt, loss_mask_bt = unpack_rows(rows, network.packing)
    model = network.bind(params)
    x_btd = model.hidden(ids[:, :-1], segments_bt)
    counts_bt = jnp.ones(x_btd.shape[:2]) if loss_mask_bt is None else loss_mask_bt
    with_z_loss, without = summed_loss(
        model, x_btd, ids[:, 1:], counts_bt.astype(jnp.float32), z_loss
    )
    return with_z_loss / tokens, without / tokens


def init_state(
    run: Run, mesh: Mesh, averages: tuple[Average, ...] = (), params: Params | None = None
) -> TrainState:
    """The state before the first step, on the mesh.

    Its values depend on the run's seed, not on the mesh. With `params` training begins
    from these instead.
    """
    init = _compiled_init(Program.of(run, mesh), averages)
    return init(jax.random.key(run.seed), hyperparameters(run), params)


def abstract_state(run: Run, mesh: Mesh) -> TrainState:
    """Return the shapes, dtypes and shardings of `init_state(run, mesh)`."""
    program = Program.of(run, mesh)
    numbers = hyperparameters(run)
    shapes = jax.eval_shape(
        functools.partial(_initial_state, program, ()), jax.random.key(run.seed), numbers
    )
    return jax.tree.map(
        lambda array, sharding: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding),
        shapes,
        _state_shardings(program, ()),
    )


def make_train_step(
    run: Run,
    mesh: Mesh,
    placement: Placement = ONE_DEVICE,
    averages: tuple[Average, ...] = (),
) -> Step:
    """The compiled step: (state, rows, learning_rate) -> (state, metrics).

    Row k of `rows`, int32 [b, t + 1], holds the inputs of a sequence and one token
    more, the last target. When the run packs documents, the high bits of each token
    carry document starts and loss masks (data/packing.py). The state is donated: its
    buffers are reused, and the caller must not read them again. A skipped step leaves
    the averages as they were, too.

    Runs with equal programs get the same function, compiled once per batch size.
    Averages are computed by a program of their own, so that the weights do not depend
    on them by a bit.

    `placement` says how to save memory: micro-batches, remat and scanned layers.

    Raises ValueError when the mesh does not divide the model, or when the mesh and the
    micro-batches do not divide the smallest batch.
    """
    check_placement(run, replace(placement, **mesh.shape))
    program = Program.of(run, mesh, placement)
    compiled = _compiled_step(program)
    if not averages:
        return compiled
    first_batch = run.first_batch_sequences * run.data.sequence_length
    average = _compiled_averaging(program, averages, first_batch)

    def step(
        state: TrainState, rows: ArrayLike, learning_rate: ArrayLike
    ) -> tuple[TrainState, Metrics]:
        previous = state.averages
        state, metrics = compiled(state._replace(averages={}), rows, learning_rate)
        return state._replace(averages=average(previous, state, jnp.shape(rows))), metrics

    return step


def weights_to_evaluate(
    run: Run, state: TrainState, averages: tuple[Average, ...] = ()
) -> dict[str, Params]:
    """The weights to evaluate by name: `raw`, then those of `averages`.

    `raw` are the parameters; for schedule-free AdamW they are its own average instead.
    """
    first_batch = run.first_batch_sequences * run.data.sequence_length
    raw = evaluation_params(run.optimizer.name, state.params, state.optimizer_state)
    averaged = {
        average.name: averaging.value(
            average, state.averages[average.name], first_batch=first_batch
        )
        for average in averages
    }
    return {"raw": raw, **averaged}


@functools.cache
def _compiled_step(program: Program) -> Step:
    state = _state_shardings(program, ())
    mesh = program.network.mesh
    return jax.jit(
        functools.partial(train_step, program),
        donate_argnums=0,
        in_shardings=(state, batch_sharding(mesh), replicated(mesh)),
        out_shardings=(state, replicated(mesh)),
    )


@functools.cache
def _compiled_init(
    program: Program, averages: tuple[Average, ...]
) -> Callable[[jax.Array, Hyperparameters, Params | None], TrainState]:
    return jax.jit(
        functools.partial(_initial_state, program, averages),
        out_shardings=_state_shardings(program, averages),
    )


@functools.cache
def _compiled_averaging(
    program: Program, averages: tuple[Average, ...], first_batch: int
) -> Callable[[Averages, TrainState, tuple[int, ...]], Averages]:
    """(averages before a step, state after it, shape of rows) -> averages after it."""
    add = functools.partial(add_to_averages, program, averages, first_batch)
    shardings = _state_shardings(program, averages).averages
    return jax.jit(add, donate_argnums=0, static_argnums=2, out_shardings=shardings)


def add_to_averages(
    program: Program,
    averages: tuple[Average, ...],
    first_batch: int,
    previous: Averages,
    state: TrainState,
    shape: tuple[int, ...],
) -> Averages:
    """Return the averages of the weights after a step.

    previous: those before it. state: the state after it, whose own averages are not
    read. shape: that of the step's rows. first_batch: tokens of the run's first step.
    A skipped step leaves the averages as they were.
    """
    new = evaluation_params(program.optimizer, state.params, state.optimizer_state)
    batch_tokens = shape[0] * (shape[1] - 1)
    updated: Averages = {
        average.name: averaging.add(
            average,
            previous[average.name],
            new,
            batch_tokens=batch_tokens,
            first_batch=first_batch,
        )
        for average in averages
    }
    return jax.tree.map(
        lambda new, old: jnp.where(state.skipped_in_a_row == 0, new, old), updated, previous
    )


def _initial_state(
    program: Program,
    averages: tuple[Average, ...],
    key: jax.Array,
    numbers: Hyperparameters,
    params: Params | None = None,
) -> TrainState:
    network = program.network
    if params is None:
        params = initialize(network.model, network.parametrization, key)
    moments = program.update_rule(numbers, numbers.peak).init(params)
    zero = jnp.int32(0)
    empty: Averages = {average.name: averaging.start(average, params) for average in averages}
    return TrainState(params, moments, numbers, zero, zero, zero, empty)


@functools.cache
def _state_shardings(program: Program, averages: tuple[Average, ...]) -> TrainState:
    """The sharding of every array of the state, by evaluating its shapes only."""
    numbers = Hyperparameters(*jnp.zeros(len(Hyperparameters._fields)))
    init = functools.partial(_initial_state, program, averages)
    state = jax.eval_shape(init, jax.random.key(0), numbers)
    network = program.network
    return state_shardings(network.mesh, state, network.param_shardings)
