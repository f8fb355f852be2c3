"""The training step: accumulation, meshes, skipped steps, one program for a sweep (mirrors scalejax/training/step.py)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalejax.config import Model, Optimizer, Placement, Run
from scalejax.evaluation import likelihood
from scalejax.model.parametrization import mup
from scalejax.optim.schedules import constant
from scalejax.training import step as step_module
from scalejax.training.evaluate import make_token_losses
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state, make_train_step

ONE = Placement()
RATE = np.float32(0.01)


@pytest.fixture(scope="module")
def run(tiny_run) -> Run:
    """Eight sequences of 16 tokens, every switch of the model and the optimizer on."""
    return tiny_run.replace(
        model=Model(
            width=32,
            depth=2,
            heads=4,
            kv_heads=2,
            head_size=8,
            mlp_width=64,
            vocabulary=64,
            qk_norm=True,
        ),
        optimizer=Optimizer(learning_rate=0.02, weight_decay=0.1, z_loss=1e-2, clip=0.5),
        parametrization=mup(base_width=16),
        batch_tokens=128,
    )


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 64, (8, 17)).astype(np.int32)


def after(run: Run, rows: np.ndarray, placement: Placement = ONE, steps: int = 1):
    """(state, metrics) on the host after steps on the same rows."""
    mesh = make_mesh(placement)
    state, step = init_state(run, mesh), make_train_step(run, mesh, placement.accumulate)
    for _ in range(steps):
        state, metrics = step(state, rows, RATE)
    return jax.device_get((state, metrics))


def assert_close(found, expected, tolerance: float = 1e-5):
    for (path, a), b in zip(
        jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(
            a, b, rtol=tolerance, atol=tolerance, err_msg=jax.tree_util.keystr(path)
        )


def test_micro_batches_make_the_step_of_the_big_batch(run, rows):
    (whole, of_whole), (split, of_split) = (
        after(run, rows),
        after(run, rows, Placement(accumulate=4)),
    )
    assert_close(of_split, of_whole)
    assert_close(split.optimizer_state["adam"].mu, whole.optimizer_state["adam"].mu, 1e-6)
    assert_close(after(run, rows[::-1])[1], of_whole)
    assert abs(after(run, np.concatenate([rows[:4]] * 2))[1]["loss"] - of_whole["loss"]) > 1e-4, (
        "rows do not matter here"
    )


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices, virtual ones will do")
def test_eight_devices_make_the_steps_of_one(run, rows):
    (one, of_one), (eight, of_eight) = (
        after(run, rows, steps=3),
        after(run, rows, Placement(data=2, fsdp=2, tensor=2), steps=3),
    )
    assert_close(of_eight, of_one)
    assert_close(eight.optimizer_state["adam"].mu, one.optimizer_state["adam"].mu, 1e-5)
    assert_close(
        eight.params, one.params, 1e-4
    )  # Adam divides by gradients of any size: rounding grows


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices, virtual ones will do")
def test_initial_values_do_not_depend_on_the_mesh(run):
    one, eight = (
        init_state(run, make_mesh(placement))
        for placement in (ONE, Placement(data=2, fsdp=2, tensor=2))
    )
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(eight), jax.device_get(one))


def test_a_step_that_is_not_finite_leaves_everything_as_it_was_and_is_counted(run, rows):
    mesh = make_mesh(ONE)
    state, step = init_state(run, mesh), make_train_step(run, mesh)
    state, _ = step(state, rows, RATE)
    before = jax.device_get(state)
    poisoned = state._replace(
        hyperparameters=state.hyperparameters._replace(z_loss=jnp.float32(np.inf))
    )
    poisoned, metrics = step(poisoned, rows, RATE)
    poisoned, metrics = step(poisoned, rows, RATE)
    assert not np.isfinite(metrics["grad_norm"]) and np.isnan(metrics["loss"])
    jax.tree.map(np.testing.assert_array_equal, poisoned.params, before.params)
    jax.tree.map(np.testing.assert_array_equal, poisoned.optimizer_state, before.optimizer_state)
    assert (poisoned.step, poisoned.skipped, poisoned.skipped_in_a_row) == (3, 16, 2)
    healthy, metrics = step(
        poisoned._replace(hyperparameters=jax.device_put(before.hyperparameters)), rows, RATE
    )
    assert (metrics["skipped"], metrics["skipped_in_a_row"]) == (16, 0)
    assert np.any(np.asarray(healthy.params["head"]) != before.params["head"])


def test_runs_that_differ_in_numbers_alone_share_one_compiled_step(run, rows):
    mesh = make_mesh(ONE)
    step = make_train_step(run, mesh)
    step(init_state(run, mesh), rows, RATE)
    compiled = step._cache_size()
    optimizer = Optimizer(
        learning_rate=0.5,
        beta1=0.5,
        beta2=0.7,
        epsilon=1e-3,
        weight_decay=0.5,
        clip=0.0,
        z_loss=0.5,
    )
    other = run.replace(optimizer=optimizer, seed=7, schedule=constant(warmup=128), tokens=12_800)
    assert make_train_step(other, mesh) is step
    state, _ = step(init_state(other, mesh), rows, np.float32(0.5))
    assert step._cache_size() == compiled
    assert float(state.hyperparameters.beta2) == np.float32(0.7)


def test_chunks_of_logits_change_neither_losses_nor_gradients(run, rows, monkeypatch):
    whole, whole_metrics = after(run, rows)
    # Four positions of eight rows at a time.
    monkeypatch.setattr(likelihood, "MAX_LOGITS", 8 * 64 * 4)
    step_module._compiled_step.cache_clear()
    chunked, chunked_metrics = after(run, rows)
    step_module._compiled_step.cache_clear()
    assert_close(chunked_metrics, whole_metrics)
    assert_close(chunked.optimizer_state["adam"].mu, whole.optimizer_state["adam"].mu, 1e-6)


def test_the_loss_of_a_step_is_the_mean_of_the_token_losses(run, rows):
    mesh = make_mesh(ONE)
    losses = make_token_losses(run, mesh)(init_state(run, mesh).params, rows)
    assert losses.shape == (8, 16) and losses.dtype == jnp.float32
    np.testing.assert_allclose(after(run, rows)[1]["loss"], np.mean(losses), rtol=1e-6)


def test_training_learns_a_row_by_heart(run, rows):
    _, metrics = after(run, np.tile(rows[:1], (8, 1)), steps=150)
    assert metrics["loss"] < 0.25


def test_every_array_of_the_state_has_a_path_of_names_that_no_order_of_a_chain_changes(run):
    paths = [path for path, _ in jax.tree.leaves_with_path(init_state(run, make_mesh(ONE)))]
    assert not any(isinstance(entry, jax.tree_util.SequenceKey) for path in paths for entry in path)
    names = {jax.tree_util.keystr(path, simple=True, separator="/") for path in paths}
    assert {
        "params/blocks/0/attention/query",
        "optimizer_state/adam/mu/head",
        "hyperparameters/beta2",
        "skipped",
    } <= names


def test_seeds_differ_and_equal_seeds_agree(run):
    mesh = make_mesh(ONE)
    first, again, other = (
        init_state(run.replace(seed=seed), mesh).params["head"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.all(np.asarray(first) != np.asarray(other))


def test_batches_that_do_not_divide_are_refused(run):
    mesh = make_mesh(ONE)
    with pytest.raises(ValueError, match="accumulate 3 does not divide the batch of 8 sequences"):
        make_train_step(run, mesh, 3)


@pytest.mark.skipif(len(jax.devices()) < 4, reason="needs 4 devices, virtual ones will do")
def test_micro_batches_that_do_not_split_over_devices_are_refused(run):
    mesh = make_mesh(Placement(data=4))
    with pytest.raises(ValueError, match="4 devices do not divide a micro-batch of 2 sequences"):
        make_train_step(run, mesh, 4)
    small = dataclasses.replace(run, batch_tokens=32)
    with pytest.raises(ValueError, match="micro-batch of 2"):
        make_train_step(small, mesh)
