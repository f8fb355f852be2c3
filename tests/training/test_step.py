"""The training step (mirrors scalejax/training/step.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalejax.config import Model, Optimizer, Placement, Run
from scalejax.model.parametrization import mup
from scalejax.optim.schedules import constant
from scalejax.training import loss
from scalejax.training import step as step_module
from scalejax.training.evaluate import make_token_losses
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state, make_train_step
from tests.training.runs import programs_compiled

ONE_DEVICE = Placement()
EIGHT_DEVICES = Placement(data=2, fsdp=2, tensor=2)
RATE = np.float32(0.01)


@pytest.fixture(scope="module")
def run(tiny_run) -> Run:
    """Eight sequences of 16 tokens, with every option of model and optimizer in use."""
    model = Model(
        width=32,
        depth=2,
        heads=4,
        kv_heads=2,
        head_size=8,
        mlp_width=64,
        vocabulary=64,
        qk_norm=True,
    )
    return tiny_run.replace(
        model=model,
        optimizer=Optimizer(learning_rate=0.02, weight_decay=0.1, z_loss=1e-2, clip=0.5),
        parametrization=mup(base_width=16),
        batch_tokens=128,
    )


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 64, (8, 17)).astype(np.int32)


def take_steps(run: Run, rows: np.ndarray, placement: Placement = ONE_DEVICE, steps: int = 1):
    """(state, metrics) on the host after steps on the same rows."""
    mesh = make_mesh(placement)
    state, step = init_state(run, mesh), make_train_step(run, mesh, placement)
    metrics = {}
    for _ in range(steps):
        state, metrics = step(state, rows, RATE)
    return jax.device_get((state, metrics))


def assert_close(actual, expected, tolerance: float = 1e-5):
    pairs = zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True)
    for (path, a), b in pairs:
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=name)


def test_accumulated_micro_batches_take_the_step_of_the_whole_batch(run, rows):
    whole, whole_metrics = take_steps(run, rows)
    split, split_metrics = take_steps(run, rows, Placement(accumulate=4))
    assert_close(split_metrics, whole_metrics)
    assert_close(split.optimizer_state["adam"].mu, whole.optimizer_state["adam"].mu, 1e-6)

    # The order of the rows makes no difference, but the rows themselves do.
    assert_close(take_steps(run, rows[::-1])[1], whole_metrics)
    _, other_metrics = take_steps(run, np.concatenate([rows[:4]] * 2))
    assert abs(other_metrics["loss"] - whole_metrics["loss"]) > 1e-4


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices, virtual ones will do")
def test_eight_devices_take_the_steps_of_one(run, rows):
    one, one_metrics = take_steps(run, rows, steps=3)
    eight, eight_metrics = take_steps(run, rows, EIGHT_DEVICES, steps=3)
    assert_close(eight_metrics, one_metrics)
    assert_close(eight.optimizer_state["adam"].mu, one.optimizer_state["adam"].mu, 1e-5)
    # Adam divides by gradients of any size, and so magnifies rounding errors.
    assert_close(eight.params, one.params, 1e-4)


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices, virtual ones will do")
def test_initial_values_do_not_depend_on_the_mesh(run):
    one = init_state(run, make_mesh(ONE_DEVICE))
    eight = init_state(run, make_mesh(EIGHT_DEVICES))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(eight), jax.device_get(one))


def test_a_step_that_is_not_finite_changes_nothing_but_the_counters(run, rows):
    mesh = make_mesh(ONE_DEVICE)
    state, step = init_state(run, mesh), make_train_step(run, mesh)
    state, _ = step(state, rows, RATE)
    before = jax.device_get(state)

    infinite = state.hyperparameters._replace(z_loss=jnp.float32(np.inf))
    poisoned = state._replace(hyperparameters=infinite)
    poisoned, _ = step(poisoned, rows, RATE)
    poisoned, metrics = step(poisoned, rows, RATE)
    assert not np.isfinite(metrics["grad_norm"]) and np.isnan(metrics["loss"])
    jax.tree.map(np.testing.assert_array_equal, poisoned.params, before.params)
    jax.tree.map(np.testing.assert_array_equal, poisoned.optimizer_state, before.optimizer_state)
    assert (poisoned.step, poisoned.skipped, poisoned.skipped_in_a_row) == (3, 16, 2)

    healthy = poisoned._replace(hyperparameters=jax.device_put(before.hyperparameters))
    healthy, metrics = step(healthy, rows, RATE)
    assert (metrics["skipped"], metrics["skipped_in_a_row"]) == (16, 0)
    assert np.any(np.asarray(healthy.params["head"]) != before.params["head"])


def test_runs_that_differ_only_in_numbers_share_one_compiled_step(run, rows):
    mesh = make_mesh(ONE_DEVICE)
    step = make_train_step(run, mesh)
    step(init_state(run, mesh), rows, RATE)
    compiled = programs_compiled(step)
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
    assert programs_compiled(step) == compiled
    assert float(state.hyperparameters.beta2) == np.float32(0.7)


def test_chunks_of_logits_change_neither_losses_nor_gradients(run, rows, monkeypatch):
    whole, whole_metrics = take_steps(run, rows)
    # Four positions of eight rows at a time.
    monkeypatch.setattr(loss, "CACHED_LOGITS", 8 * 64 * 4)
    step_module._compiled_step.cache_clear()
    chunked, chunked_metrics = take_steps(run, rows)
    step_module._compiled_step.cache_clear()
    assert_close(chunked_metrics, whole_metrics)
    assert_close(chunked.optimizer_state["adam"].mu, whole.optimizer_state["adam"].mu, 1e-6)


def test_the_loss_of_a_step_is_the_mean_of_the_token_losses(run, rows):
    mesh = make_mesh(ONE_DEVICE)
    losses = make_token_losses(run, mesh)(init_state(run, mesh).params, rows)
    assert losses.shape == (8, 16) and losses.dtype == jnp.float32
    np.testing.assert_allclose(take_steps(run, rows)[1]["loss"], np.mean(losses), rtol=1e-6)


def test_training_memorizes_a_row(run, rows):
    _, metrics = take_steps(run, np.tile(rows[:1], (8, 1)), steps=150)
    assert metrics["loss"] < 0.25


# Otherwise adding a transformation to a chain would rename the arrays of old
# checkpoints.
def test_arrays_of_the_state_are_named_and_never_numbered(run):
    state = init_state(run, make_mesh(ONE_DEVICE))
    paths = [path for path, _ in jax.tree.leaves_with_path(state)]
    assert not any(isinstance(entry, jax.tree_util.SequenceKey) for path in paths for entry in path)
    names = {jax.tree_util.keystr(path, simple=True, separator="/") for path in paths}
    assert {
        "params/blocks/0/attention/query",
        "optimizer_state/adam/mu/head",
        "hyperparameters/beta2",
        "skipped",
    } <= names


def test_equal_seeds_give_equal_initial_values_and_others_do_not(run):
    mesh = make_mesh(ONE_DEVICE)
    first, again, other = (
        init_state(run.replace(seed=seed), mesh).params["head"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.all(np.asarray(first) != np.asarray(other))


@pytest.mark.skipif(len(jax.devices()) < 4, reason="needs 4 devices, virtual ones will do")
def test_a_mesh_and_micro_batches_that_do_not_divide_the_batch_are_refused(run):
    with pytest.raises(ValueError, match=r"accumulate 3 = 3 .* batch of 8 sequences"):
        make_train_step(run, make_mesh(ONE_DEVICE), Placement(accumulate=3))
    # The mesh counts, not the placement's number of devices.
    with pytest.raises(ValueError, match=r"data 4 x fsdp 1 x accumulate 4 = 16"):
        make_train_step(run, make_mesh(Placement(data=4)), Placement(accumulate=4))
