"""One step of several runs: the training step under `vmap`.

Runs with equal programs (see training/step.py) differ only in numbers. Their states are
stacked, and one compiled step trains them all. A small model leaves most of an
accelerator idle; several of them at a time do not.

The runs are split over the axis `run` of a mesh of their own. They exchange nothing:
each device takes the steps of its own runs, under `shard_map`.

Axes: r runs, b sequences, t input positions.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from scalejax.config import Average, Placement, Run
from scalejax.config.placement import check_placement
from scalejax.training.sharding import make_mesh, replicated
from scalejax.training.step import (
    ONE_DEVICE,
    Averages,
    Metrics,
    Program,
    Step,
    TrainState,
    add_to_averages,
    train_step,
)

# The mesh axis over which the runs are split.
RUN = "run"


def population_mesh(runs: int) -> Mesh:
    """Return the mesh of a population: as many devices as divide its runs evenly."""
    devices = jax.devices()
    parts = max(n for n in range(1, len(devices) + 1) if runs % n == 0)
    return Mesh(np.asarray(devices[:parts]), (RUN,), axis_types=(AxisType.Auto,))


def stack_states(states: Sequence[TrainState], mesh: Mesh) -> TrainState:
    """Return the states as one, whose arrays have a first axis [r] that `mesh` splits.

    The arrays may be on any devices, or NumPy arrays.
    """
    sharding = NamedSharding(mesh, PartitionSpec(RUN))

    # By way of the host: no device has room for all of the runs.
    def stack(*arrays: ArrayLike) -> jax.Array:
        return jax.device_put(np.stack([np.asarray(array) for array in arrays]), sharding)

    return jax.tree.map(stack, *states)


def state_of(states: TrainState, index: int) -> TrainState:
    """Return a copy of the state of one run, on the device of a run without a mesh."""
    # The index is an argument of the program: one compilation serves all runs.
    return jax.device_put(_take(states, index), replicated(make_mesh(ONE_DEVICE)))


def make_population_step(
    runs: Sequence[Run],
    mesh: Mesh,
    placement: Placement = ONE_DEVICE,
    averages: tuple[Average, ...] = (),
) -> Step:
    """Return the compiled step: (states, rows, learning_rates) -> (states, metrics).

    `states` are those of `stack_states`; they are donated. `rows` is int32 [r, b, t+1],
    or [b, t+1] when all runs read the same; the learning rates are float32 [r], and so
    is every metric. Each run takes the step that it would take alone, up to rounding.

    Raises ValueError when the runs cannot share a program, when the placement splits a
    single run, or when its micro-batches do not divide the batch.
    """
    one_device = make_mesh(ONE_DEVICE)
    program, *others = {Program.of(run, one_device, placement) for run in runs}
    batches = {run.first_batch_sequences for run in runs}
    if others or len(batches) > 1:
        raise ValueError(
            "the runs of a population must have the same model, parametrization, compute dtype, "
            "packing, optimizer and batch; these differ in more than numbers: train them one by one"
        )
    check_placement(runs[0], replace(placement, data=1, fsdp=1, tensor=1))
    first_batch = runs[0].first_batch_sequences * runs[0].data.sequence_length

    def step(
        states: TrainState, rows: ArrayLike, learning_rates: ArrayLike
    ) -> tuple[TrainState, Metrics]:
        shared = np.ndim(rows) == 2
        previous, states = states.averages, states._replace(averages={})
        states, metrics = _compiled_step(program, mesh, shared)(states, rows, learning_rates)
        if averages:
            average = _compiled_averaging(program, mesh, averages, first_batch, np.shape(rows)[-2:])
            states = states._replace(averages=average(previous, states))
        return states, metrics

    return step


@functools.cache
def _compiled_step(program: Program, mesh: Mesh, shared: bool) -> Step:
    """`train_step` of every run; `shared`: all of them read the same rows."""
    every_run, no_axis = PartitionSpec(RUN), PartitionSpec()
    step = jax.vmap(functools.partial(train_step, program), in_axes=(0, None if shared else 0, 0))
    split = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(every_run, no_axis if shared else every_run, every_run),
        out_specs=every_run,
        # It would refuse loops that start from constants, and guards only what several
        # devices compute together; here that is nothing.
        check_vma=False,
    )
    return jax.jit(split, donate_argnums=0)


@functools.cache
def _compiled_averaging(
    program: Program,
    mesh: Mesh,
    averages: tuple[Average, ...],
    first_batch: int,
    shape: tuple[int, ...],
) -> Callable[[Averages, TrainState], Averages]:
    """(averages before a step, states after it) -> averages after it."""

    def add(previous: Averages, state: TrainState) -> Averages:
        return add_to_averages(program, averages, first_batch, previous, state, shape)

    sharding = NamedSharding(mesh, PartitionSpec(RUN))
    return jax.jit(jax.vmap(add), donate_argnums=0, out_shardings=sharding)


@jax.jit
def _take(states: TrainState, index: jax.Array | int) -> TrainState:
    return jax.tree.map(lambda array: array[index], states)
