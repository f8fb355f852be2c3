"""One step of several runs (mirrors scalejax/training/loops/stacked_step.py)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from scalejax.config import Average, Placement, Run
from scalejax.optim.averaging import ema, window
from scalejax.optim.schedules import learning_rates
from scalejax.training.loops.stacked_step import (
    RUN,
    make_population_step,
    population_mesh,
    stack_states,
    state_of,
)
from scalejax.training.sharding import make_mesh
from scalejax.training.step import ONE_DEVICE, TrainState, init_state, make_train_step

STEPS = 4

# What runs of a population may differ in, besides seed and schedule.
NUMBERS: list[dict[str, Any]] = [
    {},
    {"learning_rate": 0.03},
    {"beta1": 0.8},
    {"beta2": 0.5},
    {"epsilon": 1e-3},
    {"weight_decay": 0.2},
    {"z_loss": 1e-1},
    {"clip": 0.1},
]


@pytest.fixture(scope="module")
def runs(tiny_run: Run) -> list[Run]:
    """Eight runs that differ in one number each, and read the same rows."""
    return [
        tiny_run.replace(optimizer=dataclasses.replace(tiny_run.optimizer, **numbers))
        for numbers in NUMBERS
    ]


def rows_of(run: Run, step: int) -> np.ndarray:
    """The rows [b, t+1] of a step, which depend on the seed of the run."""
    shape = (run.batch_sequences, run.data.sequence_length + 1)
    return np.random.default_rng((run.seed, step)).integers(0, 32, shape).astype(np.int32)


def alone(
    run: Run, placement: Placement = ONE_DEVICE, averages: tuple[Average, ...] = ()
) -> tuple[TrainState, np.ndarray]:
    """The state of a run after STEPS steps on its own, and the loss of each step."""
    mesh = make_mesh(ONE_DEVICE)
    state, step = init_state(run, mesh, averages), make_train_step(run, mesh, placement, averages)
    losses = []
    for number in range(STEPS):
        state, metrics = step(state, rows_of(run, number), learning_rates(run)[number])
        losses.append(float(metrics["loss"]))
    return jax.device_get(state), np.array(losses)


def together(
    runs: Sequence[Run],
    devices: int,
    placement: Placement = ONE_DEVICE,
    averages: tuple[Average, ...] = (),
) -> tuple[list[TrainState], np.ndarray]:
    """What `alone` returns for each of the runs, trained as a population."""
    one, mesh = make_mesh(ONE_DEVICE), population_mesh(len(runs))
    if devices == 1:
        mesh = Mesh(mesh.devices[:1], (RUN,), axis_types=mesh.axis_types)
    states = stack_states([init_state(run, one, averages) for run in runs], mesh)
    step = make_population_step(runs, mesh, placement, averages)
    rates, losses = np.stack([learning_rates(run) for run in runs], axis=1), []
    same_rows = len({run.seed for run in runs}) == 1
    for number in range(STEPS):
        rows = [rows_of(run, number) for run in runs]
        states, metrics = step(states, rows[0] if same_rows else np.stack(rows), rates[number])
        losses.append(np.asarray(metrics["loss"]))
    assert len(states.step.sharding.device_set) == devices
    members = [jax.device_get(state_of(states, index)) for index in range(len(runs))]
    return members, np.stack(losses, axis=1)


def assert_equal_to_separate_runs(runs: Sequence[Run], devices: int, *options: Any) -> None:
    states, losses = together(runs, devices, *options)
    for run, state, losses_of_run in zip(runs, states, losses, strict=True):
        expected, expected_losses = alone(run, *options)
        np.testing.assert_allclose(losses_of_run, expected_losses, rtol=1e-5)
        pairs = zip(jax.tree.leaves_with_path(state), jax.tree.leaves(expected), strict=True)
        for (path, a), b in pairs:
            name = jax.tree_util.keystr(path)
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=name)


def test_runs_that_read_the_same_rows_train_as_they_do_alone(runs):
    assert_equal_to_separate_runs(runs, 1)
    # Every number has an effect that is well above the tolerance.
    heads = [alone(run)[0].params["head"] for run in runs]
    assert min(np.abs(head - heads[0]).max() for head in heads[1:]) > 1e-4


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices, virtual ones will do")
def test_eight_devices_train_eight_runs_with_rows_and_schedules_of_their_own(runs):
    runs = [run.replace(seed=seed) for seed, run in enumerate(runs)]
    longer = dataclasses.replace(runs[1].schedule, warmup=2 * runs[1].schedule.warmup)
    runs[1] = runs[1].replace(schedule=longer)
    averages = (ema(half_life_tokens=128), window(tokens=128))
    assert_equal_to_separate_runs(runs, 8, Placement(accumulate=2), averages)


@pytest.mark.parametrize("optimizer", ["muon", "schedule-free-adamw"])
def test_other_optimizers_can_be_stacked(tiny_run, optimizer):
    runs = [
        tiny_run.replace(
            optimizer=dataclasses.replace(tiny_run.optimizer, name=optimizer, learning_rate=rate)
        )
        for rate in (0.003, 0.03)
    ]
    _, losses = together(runs, 1)
    np.testing.assert_allclose(losses, [alone(run)[1] for run in runs], rtol=1e-5)
    assert abs(losses[0, -1] - losses[1, -1]) > 1e-3


def test_a_run_that_meets_a_bad_batch_skips_it_and_the_others_do_not(runs):
    run, wild = runs[0], runs[1]
    mesh = population_mesh(2)
    states = [init_state(one, make_mesh(ONE_DEVICE)) for one in (run, wild)]
    states[1] = states[1]._replace(params=jax.tree.map(lambda w: w * np.inf, states[1].params))
    step = make_population_step([run, wild], mesh)
    _, metrics = step(stack_states(states, mesh), rows_of(run, 0), np.full(2, 0.01, np.float32))
    assert metrics["skipped"].tolist() == [0, run.batch_sequences]
    assert np.isfinite(metrics["loss"]).tolist() == [True, False]


def test_runs_of_other_programs_are_refused(runs):
    other = runs[0].replace(batch_tokens=2 * runs[0].batch_tokens)
    with pytest.raises(ValueError, match=r"must have the same model.* batch; these differ"):
        make_population_step([runs[0], other], population_mesh(2))


def test_a_population_uses_as_many_devices_as_divide_it():
    devices = len(jax.devices())
    assert population_mesh(devices).shape == {RUN: devices}
    assert population_mesh(2 * devices).shape == {RUN: devices}
    assert population_mesh(1).shape == {RUN: 1}
