"""Every optimizer through the training loop, with averages of the weights.

A run ends with the same bits however it was cut, one program serves a sweep, and a step
that is not finite leaves no trace.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalejax.config import Optimizer, Placement
from scalejax.config.optimizer import OPTIMIZER_FIELDS
from scalejax.grids import run_id
from scalejax.optim.averaging import ema, window
from scalejax.training import checkpoint, loop
from scalejax.training.loop import Preempted, train, train_segment
from scalejax.training.result import Result
from scalejax.training.segment import Segment, TrainingJob
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state, make_train_step, weights_to_evaluate
from tests.training.runs import curve, programs_compiled, reproducible_row, stop_after

AVERAGES = (ema(half_life_tokens=640), window(tokens=1280))
OPTIMIZERS = {
    "adamw": Optimizer(learning_rate=0.01, weight_decay=0.1),
    "lion": Optimizer(name="lion", learning_rate=0.005, beta2=0.99, weight_decay=0.1),
    "muon": Optimizer(name="muon", learning_rate=0.01, weight_decay=0.1),
    "schedule-free-adamw": Optimizer(
        name="schedule-free-adamw", learning_rate=0.01, weight_decay=0.1
    ),
}
MESH = make_mesh(Placement())
RATE = np.float32(0.01)


@pytest.fixture(scope="module", params=OPTIMIZERS)
def run(request, tiny_run):
    return tiny_run.replace(optimizer=OPTIMIZERS[request.param])


@pytest.fixture(scope="module")
def measure(tiny_measure):
    return dataclasses.replace(tiny_measure, averages=AVERAGES)


@pytest.fixture(scope="module")
def undisturbed(run, measure, tmp_path_factory):
    """The run trained in one call: (its folder, its result)."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, train(run, out=folder, measure=measure)


@pytest.fixture
def faulty_step_25(monkeypatch):
    """Make step 25 not finite; returns the losses by step as the loop sees them."""
    losses = {}

    def faulty(*arguments):
        real = make_train_step(*arguments)

        def step(state, rows, rate):
            number, numbers = int(state.step), state.hyperparameters
            if number == 25:
                state = state._replace(hyperparameters=numbers._replace(z_loss=jnp.float32(np.nan)))
                # The step frees the arrays of the state that it is given.
                numbers = jax.device_put(jax.device_get(numbers))
            state, metrics = real(state, rows, rate)
            losses[number] = float(metrics["loss"])
            return state._replace(hyperparameters=numbers) if number == 25 else state, metrics

        return step

    monkeypatch.setattr(loop, "make_train_step", faulty)
    return losses


def final_state(run, folder, averages=AVERAGES):
    like = init_state(run, MESH, averages)
    restored = checkpoint.restore(folder / "checkpoints", like, run_id(run))
    assert restored is not None and restored.step == run.steps
    return restored.state


def random_rows():
    return np.random.default_rng(0).integers(0, 32, (4, 17)).astype(np.int32)


def assert_equal(actual, expected):
    pairs = zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True)
    for (path, a), b in pairs:
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def test_every_optimizer_is_tested_here():
    assert set(OPTIMIZERS) == set(OPTIMIZER_FIELDS)


def test_the_loss_falls_and_averages_are_evaluated_beside_the_weights(undisturbed):
    rows = curve(undisturbed[0])
    losses = [row["train_loss"] for row in rows if "train_loss" in row]
    assert losses[-1] < losses[0] - 0.2
    for step in (20, 40, 60):
        evaluated = [row for row in rows if row["step"] == step and "loss" in row]
        by_weights = {row["weights"]: row["loss"] for row in evaluated}
        assert set(by_weights) == {"raw", "ema-640", "window-1280"}
        assert len(set(by_weights.values())) == 3
        assert all(abs(loss - by_weights["raw"]) < 0.5 for loss in by_weights.values())


def test_a_preempted_branch_equals_the_run_trained_from_scratch(
    undisturbed, run, measure, tmp_path
):
    trunk = Segment(run=run, start=0, stop=33, final=False)
    leaf = Segment(run=run, start=33, stop=run.steps, parent=trunk.folder)
    for segment, parent in ((trunk, None), (leaf, tmp_path / trunk.folder)):
        job = TrainingJob(segment=segment, study="test@1", measure=measure, placement=Placement())
        folder = tmp_path / segment.folder
        job.write(folder)
        if segment.final:
            with pytest.raises(Preempted):
                train_segment(job, folder, parent, stopping=stop_after(11))
        train_segment(job, folder, parent)

    folder, result = undisturbed
    assert_equal(final_state(run, tmp_path / leaf.folder), final_state(run, folder))
    assert curve(tmp_path / leaf.folder) == curve(folder)
    branch = Result.load(tmp_path / leaf.folder)
    assert reproducible_row(branch) == reproducible_row(result)


def test_no_bit_of_the_weights_depends_on_the_averages(undisturbed, run, tiny_measure, tmp_path):
    folder, result = undisturbed
    plain = train(run, out=tmp_path, measure=tiny_measure)
    assert_equal(final_state(run, tmp_path, ()).params, final_state(run, folder, ()).params)
    assert plain.loss == result.loss


def test_a_step_that_is_not_finite_leaves_weights_moments_and_averages_as_they_were(run):
    state, step = init_state(run, MESH, AVERAGES), make_train_step(run, MESH, averages=AVERAGES)
    rows = random_rows()
    for _ in range(3):
        state, _ = step(state, rows, RATE)
    before = jax.device_get(state)

    nan = state.hyperparameters._replace(z_loss=jnp.float32(np.nan))
    poisoned, metrics = step(state._replace(hyperparameters=nan), rows, RATE)
    assert np.isnan(metrics["loss"]) and metrics["skipped"] == 4
    for name in ("params", "optimizer_state", "averages"):
        assert_equal(getattr(poisoned, name), getattr(before, name))

    healthy = poisoned._replace(hyperparameters=jax.device_put(before.hyperparameters))
    healthy, _ = step(healthy, rows, RATE)
    new, old = healthy.averages["ema-640"].mean["head"], before.averages["ema-640"].mean["head"]
    assert np.any(np.asarray(new) != old)


def test_runs_that_differ_only_in_numbers_share_one_compiled_step(run):
    numbers = {"learning_rate": 0.5, "weight_decay": 0.5, "clip": 0.0, "z_loss": 0.5}
    numbers |= {name: 0.4 for name in OPTIMIZER_FIELDS[run.optimizer.name]}
    other = run.replace(optimizer=dataclasses.replace(run.optimizer, **numbers), seed=7)
    step, rows = make_train_step(run, MESH), np.zeros((4, 17), np.int32)
    step(init_state(run, MESH), rows, RATE)
    compiled = programs_compiled(step)
    state, _ = make_train_step(other, MESH)(init_state(other, MESH), rows, np.float32(0.5))
    assert make_train_step(other, MESH) is step and programs_compiled(step) == compiled
    assert float(state.hyperparameters.beta2) == np.float32(0.4)


def test_schedule_free_is_evaluated_at_its_average_and_others_at_their_weights(run, undisturbed):
    state = final_state(run, undisturbed[0])
    raw = weights_to_evaluate(run, state)["raw"]
    if run.optimizer.name != "schedule-free-adamw":
        return assert_equal(raw, state.params)
    # The parameters are y = (1 - beta1) z + beta1 x; the evaluated weights are x.
    y, z = np.asarray(state.params["head"]), np.asarray(state.optimizer_state.z["head"])
    np.testing.assert_allclose(raw["head"], (y - 0.1 * z) / 0.9, rtol=1e-4, atol=1e-6)
    assert np.abs(raw["head"] - y).max() > 1e-4


def test_an_average_over_one_step_is_the_evaluated_weights(run):
    one = (window(tokens=64),)
    state, step = init_state(run, MESH, one), make_train_step(run, MESH, averages=one)
    rows = random_rows()
    for _ in range(4):
        state, _ = step(state, rows, RATE)
    weights = weights_to_evaluate(run, state, one)
    average = weights["window-64"]["head"]
    np.testing.assert_allclose(average, weights["raw"]["head"], rtol=1e-5, atol=1e-6)
    distance = np.abs(average - state.params["head"]).max()
    assert distance > 1e-4 if run.optimizer.name == "schedule-free-adamw" else distance < 1e-6


def test_a_skipped_step_is_left_out_of_the_mean_loss_and_its_tokens_are_reported(
    tiny_run, measure, tmp_path, faulty_step_25
):
    result = train(tiny_run, out=tmp_path, measure=measure)
    logged = {row["step"]: row["train_loss"] for row in curve(tmp_path) if "train_loss" in row}
    assert np.isnan(faulty_step_25[25])
    others = [faulty_step_25[step] for step in range(20, 40) if step != 25]
    assert logged[40] == pytest.approx(np.mean(others), rel=1e-12)
    assert result.row["tokens_skipped"] == 64 and result.row["status"] == "done"
    assert np.isfinite(result.loss)


def test_a_run_may_be_preempted_repeatedly_after_a_skipped_step(
    tiny_run, tiny_measure, tmp_path, faulty_step_25
):
    undisturbed = train(tiny_run, out=tmp_path / "undisturbed", measure=tiny_measure)
    segment = Segment(run=tiny_run, start=0, stop=tiny_run.steps)
    job = TrainingJob(segment=segment, study="", measure=tiny_measure, placement=Placement())
    job.write(tmp_path / "cut")
    # Both stops come after step 25 and before the metrics row of step 40: the second
    # checkpoint stores the loss of the skipped step that the first one restored.
    for steps in (28, 2):
        with pytest.raises(Preempted):
            train_segment(job, tmp_path / "cut", None, stopping=stop_after(steps))
    train_segment(job, tmp_path / "cut", None)
    cut = Result.load(tmp_path / "cut")
    assert reproducible_row(cut) == reproducible_row(undisturbed)
    assert curve(tmp_path / "cut") == curve(tmp_path / "undisturbed")


def test_a_missing_average_is_refused_and_the_finished_run_stays_finished(
    tiny_run, tiny_measure, measure, tmp_path
):
    train(tiny_run, out=tmp_path, measure=measure)
    fewer = dataclasses.replace(measure, averages=AVERAGES[1:])
    assert train(tiny_run, out=tmp_path, measure=fewer).measure == fewer

    other = dataclasses.replace(tiny_measure, averages=[ema(half_life_tokens=9)])
    message = r"asks for ema-9, which .* was trained without, and only training takes averages"
    with pytest.raises(ValueError, match=message):
        train(tiny_run, out=tmp_path, measure=other)
    assert (tmp_path / "DONE").exists()
    assert train(tiny_run, out=tmp_path, measure=fewer).measure == fewer
