"""With every optimizer a run is the same however it was cut, one program serves a sweep, and a bad step leaves no trace."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalejax.config import Optimizer, Placement
from scalejax.config.optimizer import OPTIMIZER_FIELDS
from scalejax.files import read_lines
from scalejax.optim.averaging import ema, window
from scalejax.training import checkpoint, loop
from scalejax.training.loop import Preempted, train, train_segment
from scalejax.training.result import Result
from scalejax.training.segment import Segment, TrainingJob
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state, make_train_step, weights_to_evaluate

AVERAGES = (ema(half_life_tokens=640), window(tokens=1280))
OPTIMIZERS = {
    "adamw": Optimizer(learning_rate=0.01, weight_decay=0.1),
    "lion": Optimizer(name="lion", learning_rate=0.005, beta2=0.99, weight_decay=0.1),
    "muon": Optimizer(name="muon", learning_rate=0.01, weight_decay=0.1),
    "schedule-free-adamw": Optimizer(
        name="schedule-free-adamw", learning_rate=0.01, weight_decay=0.1
    ),
}
TIMES = {"wall_seconds", "tokens_per_second", "mfu", "started", "finished", "study"}
MESH = make_mesh(Placement())


def test_every_optimizer_is_here():
    assert set(OPTIMIZERS) == set(OPTIMIZER_FIELDS)


@pytest.fixture(scope="module", params=OPTIMIZERS)
def run(request, tiny_run):
    return tiny_run.replace(optimizer=OPTIMIZERS[request.param])


@pytest.fixture(scope="module")
def measure(tiny_measure):
    return dataclasses.replace(tiny_measure, averages=AVERAGES)


@pytest.fixture(scope="module")
def straight(run, measure, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    return folder, train(run, out=folder, measure=measure)


def final_state(run, folder, averages=AVERAGES):
    step, state, _ = checkpoint.restore(folder / "checkpoints", init_state(run, MESH, averages))
    assert step == run.steps
    return state


def assert_equal(found, expected):
    for (path, a), b in zip(
        jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def curve(folder):
    return [
        {k: v for k, v in row.items() if k != "seconds"}
        for row in read_lines(folder / "metrics.jsonl")
    ]


def test_the_loss_falls_and_averages_are_measured_beside_the_weights(straight):
    rows = curve(straight[0])
    losses = [row["train_loss"] for row in rows if "train_loss" in row]
    assert losses[-1] < losses[0] - 0.2
    for step in (20, 40, 60):
        found = {
            row["weights"]: row["loss"] for row in rows if row["step"] == step and "loss" in row
        }
        assert set(found) == {"raw", "ema-640", "window-1280"} and len(set(found.values())) == 3
        assert all(abs(loss - found["raw"]) < 0.5 for loss in found.values())


def test_a_branch_that_was_preempted_equals_the_run_trained_from_scratch(
    straight, run, measure, tmp_path
):
    trunk = Segment(run=run, start=0, stop=33, final=False)
    leaf = Segment(run=run, start=33, stop=run.steps, parent=trunk.folder)
    calls = iter(range(1, 100))
    for segment in (trunk, leaf):
        job = TrainingJob(segment=segment, study="test@1", measure=measure, placement=Placement())
        folder, parent = (
            tmp_path / segment.folder,
            tmp_path / segment.parent if segment.parent else None,
        )
        job.write(folder)
        if segment.final:
            with pytest.raises(Preempted):
                train_segment(job, folder, parent, stopping=lambda: next(calls) == 11)
        train_segment(job, folder, parent)
    folder, result = straight
    assert_equal(final_state(run, tmp_path / leaf.folder), final_state(run, folder))
    assert curve(tmp_path / leaf.folder) == curve(folder)
    branch = Result.load(tmp_path / leaf.folder).row
    assert {k: v for k, v in branch.items() if k not in TIMES} == {
        k: v for k, v in result.row.items() if k not in TIMES
    }


def test_no_bit_of_the_weights_depends_on_the_averages(straight, run, tiny_measure, tmp_path):
    folder, result = straight
    plain = train(run, out=tmp_path, measure=tiny_measure)
    assert_equal(final_state(run, tmp_path, ()).params, final_state(run, folder, ()).params)
    assert plain.loss == result.loss


def test_a_step_that_is_not_finite_leaves_weights_moments_and_averages_as_they_were(run):
    state, step = init_state(run, MESH, AVERAGES), make_train_step(run, MESH, averages=AVERAGES)
    rows = np.random.default_rng(0).integers(0, 32, (4, 17)).astype(np.int32)
    for _ in range(3):
        state, _ = step(state, rows, np.float32(0.01))
    before = jax.device_get(state)
    poisoned = state._replace(
        hyperparameters=state.hyperparameters._replace(z_loss=jnp.float32(np.nan))
    )
    poisoned, metrics = step(poisoned, rows, np.float32(0.01))
    assert np.isnan(metrics["loss"]) and metrics["skipped"] == 4
    for name in ("params", "optimizer_state", "averages"):
        assert_equal(getattr(poisoned, name), getattr(before, name))
    healthy, _ = step(
        poisoned._replace(hyperparameters=jax.device_put(before.hyperparameters)),
        rows,
        np.float32(0.01),
    )
    assert np.any(
        np.asarray(healthy.averages["ema-640"].mean["head"])
        != before.averages["ema-640"].mean["head"]
    )


def test_runs_that_differ_in_numbers_alone_share_one_compiled_step(run):
    numbers = {"learning_rate": 0.5, "weight_decay": 0.5, "clip": 0.0, "z_loss": 0.5}
    numbers |= {name: 0.4 for name in OPTIMIZER_FIELDS[run.optimizer.name]}
    other = run.replace(optimizer=dataclasses.replace(run.optimizer, **numbers), seed=7)
    step, rows = make_train_step(run, MESH), np.zeros((4, 17), np.int32)
    step(init_state(run, MESH), rows, np.float32(0.01))
    compiled = step._cache_size()
    state, _ = make_train_step(other, MESH)(init_state(other, MESH), rows, np.float32(0.5))
    assert make_train_step(other, MESH) is step and step._cache_size() == compiled
    assert float(state.hyperparameters.beta2) == np.float32(0.4)


def test_schedule_free_is_evaluated_at_its_average_and_others_at_their_weights(run, straight):
    state = final_state(run, straight[0])
    raw = weights_to_evaluate(run, state)["raw"]
    if run.optimizer.name != "schedule-free-adamw":
        return assert_equal(raw, state.params)
    expected = (
        np.asarray(state.params["head"]) - 0.1 * np.asarray(state.optimizer_state.z["head"])
    ) / 0.9
    np.testing.assert_allclose(raw["head"], expected, rtol=1e-4, atol=1e-6)
    assert np.abs(raw["head"] - state.params["head"]).max() > 1e-4


def test_an_average_over_one_step_is_the_weights_that_are_evaluated(run):
    one = (window(tokens=64),)
    state, step = init_state(run, MESH, one), make_train_step(run, MESH, averages=one)
    rows = np.random.default_rng(0).integers(0, 32, (4, 17)).astype(np.int32)
    for _ in range(4):
        state, _ = step(state, rows, np.float32(0.01))
    found = weights_to_evaluate(run, state, one)
    np.testing.assert_allclose(
        found["window-64"]["head"], found["raw"]["head"], rtol=1e-5, atol=1e-6
    )
    beside = np.abs(found["window-64"]["head"] - state.params["head"]).max()
    assert beside > 1e-4 if run.optimizer.name == "schedule-free-adamw" else beside < 1e-6


def test_a_skipped_step_counts_in_no_mean_of_losses_and_its_tokens_are_told(
    tiny_run, measure, tmp_path, monkeypatch
):
    """The fault: at step 25 the weight of the z-loss is NaN, and with it every gradient."""
    seen = {}

    def faulty(*arguments):
        real = make_train_step(*arguments)

        def step(state, rows, rate):
            at, numbers = int(state.step), state.hyperparameters
            if at == 25:
                state = state._replace(hyperparameters=numbers._replace(z_loss=jnp.float32(np.nan)))
                numbers = jax.device_put(jax.device_get(numbers))  # the step frees what it is given
            state, metrics = real(state, rows, rate)
            seen[at] = float(metrics["loss"])
            return state._replace(hyperparameters=numbers) if at == 25 else state, metrics

        return step

    monkeypatch.setattr(loop, "make_train_step", faulty)
    result = train(tiny_run, out=tmp_path, measure=measure)
    logged = {row["step"]: row["train_loss"] for row in curve(tmp_path) if "train_loss" in row}
    assert np.isnan(seen[25])
    assert logged[40] == pytest.approx(
        np.mean([seen[step] for step in range(20, 40) if step != 25]), rel=1e-12
    )
    assert (
        result.row["tokens_skipped"] == 64
        and result.row["status"] == "done"
        and np.isfinite(result.loss)
    )


def test_an_average_that_was_not_taken_is_refused_and_the_finished_run_stays_so(
    tiny_run, tiny_measure, measure, tmp_path
):
    train(tiny_run, out=tmp_path, measure=measure)
    fewer = dataclasses.replace(measure, averages=AVERAGES[1:])
    assert train(tiny_run, out=tmp_path, measure=fewer).measure == fewer
    other = dataclasses.replace(tiny_measure, averages=[ema(half_life_tokens=9)])
    with pytest.raises(
        ValueError,
        match=r"asks for ema-9, which .* was trained without, and only training takes averages",
    ):
        train(tiny_run, out=tmp_path, measure=other)
    assert (tmp_path / "DONE").exists() and train(
        tiny_run, out=tmp_path, measure=fewer
    ).measure == fewer
