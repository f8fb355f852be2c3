"""Training has the same bits however it is cut (mirrors scalejax/training/loop.py)."""

import dataclasses

import jax
import numpy as np
import pytest

from scalejax.config import Measure, Placement
from scalejax.data.batches import batches
from scalejax.data.preparation import prepare
from scalejax.grids import run_id
from scalejax.model.flops import PEAK_FLOPS
from scalejax.optim.schedules import constant
from scalejax.training import checkpoint, loop
from scalejax.training.evaluate import bind_token_losses, evaluate
from scalejax.training.loop import Preempted, train, train_segment
from scalejax.training.result import Result
from scalejax.training.segment import Segment, TrainingJob
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state, make_train_step
from tests.training.runs import curve, reproducible_row, stop_after


def job_for(segment, measure):
    return TrainingJob(segment=segment, study="test@1", measure=measure, placement=Placement())


def train_trunk_and_leaf(run, measure, root, *, stop):
    """Train `run` as a trunk of `stop` steps and the branch after it; returns the
    branch.
    """
    trunk = Segment(run=run, start=0, stop=stop, final=False)
    leaf = Segment(run=run, start=stop, stop=run.steps, parent=trunk.folder)
    for segment, parent in ((trunk, None), (leaf, root / trunk.folder)):
        job = job_for(segment, measure)
        job.write(root / segment.folder)
        train_segment(job, root / segment.folder, parent)
    return trunk, leaf


def final_state(run, folder):
    """The arrays of the last checkpoint."""
    state = init_state(run, make_mesh(Placement()))
    restored = checkpoint.restore(folder / "checkpoints", state, run_id(run))
    assert restored is not None and restored.step == run.steps
    return [np.asarray(leaf) for leaf in jax.tree.leaves(restored.state)]


@pytest.fixture(scope="module")
def undisturbed(tiny_run, tiny_measure, tmp_path_factory):
    """The run trained in one call: (its folder, its result)."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, train(tiny_run, out=folder, measure=tiny_measure)


def test_the_loss_falls_and_the_row_is_complete(undisturbed, tiny_run):
    folder, result = undisturbed
    rows = curve(folder)
    losses = [row["train_loss"] for row in rows if "train_loss" in row]
    assert losses[-1] < losses[0] - 0.2
    assert result.row["step"] == tiny_run.steps and result.row["tokens"] == tiny_run.tokens
    assert [row["step"] for row in rows if "loss" in row] == [20, 40, 60]
    assert not result.row["code_changed"]
    assert result.row["run"] == run_id(tiny_run) and (folder / "DONE").exists()


def test_the_row_has_the_utilization_of_devices_with_a_known_peak(
    undisturbed, tiny_run, tiny_measure, tmp_path, monkeypatch
):
    monkeypatch.setitem(PEAK_FLOPS, jax.devices()[0].device_kind, 1e9)
    row = train(tiny_run, out=tmp_path, measure=tiny_measure).row
    assert row["mfu"] == pytest.approx(row["flops"] / row["wall_seconds"] / 1e9, rel=1e-12)
    if jax.default_backend() == "cpu":
        assert "mfu" not in undisturbed[1].row, "the peak of a CPU is not in the table"


@pytest.mark.parametrize("stops", [[1], [19, 3], [20], [45]])
def test_a_preempted_run_ends_as_if_undisturbed(
    stops, undisturbed, tiny_run, tiny_measure, tmp_path
):
    job = job_for(Segment(run=tiny_run, start=0, stop=tiny_run.steps), tiny_measure)
    job.write(tmp_path)
    for steps in stops:
        with pytest.raises(Preempted):
            train_segment(job, tmp_path, None, stopping=stop_after(steps))
        assert not (tmp_path / "DONE").exists()
    train_segment(job, tmp_path, None)

    folder, result = undisturbed
    assert reproducible_row(Result.load(tmp_path)) == reproducible_row(result)
    assert curve(tmp_path) == curve(folder)
    states = zip(final_state(tiny_run, tmp_path), final_state(tiny_run, folder), strict=True)
    assert all(np.array_equal(a, b) for a, b in states)


def test_a_branch_equals_the_run_trained_from_scratch(
    undisturbed, tiny_run, tiny_measure, tmp_path
):
    trunk, leaf = train_trunk_and_leaf(tiny_run, tiny_measure, tmp_path, stop=33)
    folder, result = undisturbed
    branch = Result.load(tmp_path / leaf.folder)
    assert reproducible_row(branch) == reproducible_row(result)
    assert curve(tmp_path / leaf.folder) == curve(folder)

    other = Segment(run=tiny_run.replace(seed=1), start=0, stop=33, final=False)
    assert other.id != trunk.id, "a run with another seed would use this trunk"


def test_when_the_batch_doubles_every_sequence_is_read_once_in_order(
    tiny_run, tiny_measure, tmp_path, monkeypatch
):
    run = tiny_run.replace(batch_doublings=(330,), tokens=30 * 64)
    batches_read = []

    def recording_step(*arguments):
        step = make_train_step(*arguments)

        def record_and_step(state, rows, rate):
            batches_read.append(rows)
            return step(state, rows, rate)

        return record_and_step

    monkeypatch.setattr(loop, "make_train_step", recording_step)
    _, leaf = train_trunk_and_leaf(run, tiny_measure, tmp_path, stop=17)

    # 11 steps x 32 tokens = 352 is the first batch boundary at or after 330.
    assert [len(rows) for rows in batches_read] == [2] * 11 + [4] * 25
    expected = batches(prepare(run.data), run).rows(0, sum(map(len, batches_read)))
    np.testing.assert_array_equal(np.concatenate(batches_read), expected)
    row = Result.load(tmp_path / leaf.folder).row
    assert (row["step"], row["tokens"], row["batch_doublings"]) == (36, 352 + 25 * 64, "330")
    evaluated = [row["tokens"] for row in curve(tmp_path / leaf.folder) if "loss" in row]
    assert evaluated == [1312, 1952]


def test_saving_all_the_time_changes_no_bit(undisturbed, tiny_run, tiny_measure, tmp_path):
    result = train(tiny_run, Placement(checkpoint_seconds=1e-9), tmp_path, measure=tiny_measure)
    assert reproducible_row(result) == reproducible_row(undisturbed[1])
    assert curve(tmp_path) == curve(undisturbed[0])
    # The last two checkpoints are kept; one of them was written during training.
    first, last = checkpoint.steps(tmp_path / "checkpoints")
    assert first < last == tiny_run.steps


def test_a_save_that_fails_ends_training_with_its_error(tiny_run, tmp_path):
    (tmp_path / "checkpoints").write_text("")
    steps = []
    with pytest.raises(OSError, match="checkpoints"):
        train_segment(
            job_for(Segment(run=tiny_run, start=0, stop=tiny_run.steps), Measure(items=0)),
            tmp_path,
            None,
            report=lambda step, loss: steps.append(step),
        )
    assert not (tmp_path / "DONE").exists()


def test_an_evaluation_takes_no_more_sequences_at_a_time_than_a_micro_batch(
    tiny_run, tmp_path, monkeypatch
):
    """The whole batch may not fit the memory: that is why it is divided."""
    rows_per_call: list[int] = []

    def bind(*arguments):
        token_losses = bind_token_losses(*arguments)
        return lambda rows: rows_per_call.append(len(rows)) or token_losses(rows)

    run = tiny_run.replace(schedule=constant(warmup=0), tokens=tiny_run.batch_tokens)
    measure = Measure(tokens=256, items=0)
    monkeypatch.setattr(loop, "bind_token_losses", bind)
    row = train(run, Placement(accumulate=2), tmp_path, measure=measure).row
    assert run.batch_sequences == 4 and rows_per_call == [2] * 8
    assert evaluate(tmp_path)["loss"] == row["loss"]


def test_a_finished_folder_is_not_trained_again(undisturbed, tiny_run, tiny_measure):
    folder, result = undisturbed
    before = (folder / "result.json").stat().st_mtime_ns
    assert train(tiny_run, out=folder, measure=tiny_measure).row == result.row
    assert (folder / "result.json").stat().st_mtime_ns == before


def test_another_measure_evaluates_again_without_training(undisturbed, tiny_run, tiny_measure):
    folder, result = undisturbed
    shorter = dataclasses.replace(tiny_measure, tokens=512)
    again = train(tiny_run, out=folder, measure=shorter)
    assert again.row["loss"] != result.row["loss"]
    back = train(tiny_run, out=folder, measure=tiny_measure)
    assert reproducible_row(back) == reproducible_row(result)
    assert evaluate(folder, tiny_measure)["loss"] == result.row["loss"]


def test_the_loss_of_the_last_incomplete_window_is_logged(tiny_run, tmp_path):
    run, measure = tiny_run.replace(tokens=35 * 64), Measure(tokens=1024, items=0)
    _, leaf = train_trunk_and_leaf(run, measure, tmp_path, stop=33)
    train(run, out=tmp_path / "alone", measure=measure)
    rows = curve(tmp_path / "alone")
    # A trunk that ends within a window logs nothing there.
    assert curve(tmp_path / leaf.folder) == rows
    assert [row["step"] for row in rows if "train_loss" in row] == [20, 35]

    train(run.replace(tokens=20 * 64), out=tmp_path / "short", measure=measure)
    assert [row["step"] for row in curve(tmp_path / "short") if "train_loss" in row] == [20]


def test_losses_along_a_finished_run_cannot_be_measured_any_more(
    undisturbed, tiny_run, tiny_measure, caplog
):
    folder, result = undisturbed
    denser = dataclasses.replace(tiny_measure, every=640)
    train(tiny_run, out=folder, measure=denser)
    assert "Measure.every is 640" in caplog.text and "cannot be measured any more" in caplog.text
    caplog.clear()
    back = train(tiny_run, out=folder, measure=tiny_measure)
    assert reproducible_row(back) == reproducible_row(result)
    # A measurement anew replaces the last one: no row is doubled.
    assert [row["step"] for row in curve(folder) if "loss" in row] == [20, 40, 60]


def test_a_run_of_two_versions_of_the_code_is_flagged(tiny_run, tmp_path, monkeypatch):
    measure = Measure(tokens=1024, items=0)
    job = job_for(Segment(run=tiny_run, start=0, stop=tiny_run.steps), measure)
    job.write(tmp_path)
    with monkeypatch.context() as earlier, pytest.raises(Preempted):
        earlier.setattr(loop, "code_version", lambda: "0.0.1+earlier")
        train_segment(job, tmp_path, None, stopping=stop_after(5))
    train_segment(job, tmp_path, None)
    assert Result.load(tmp_path).row["code_changed"]


def test_a_folder_of_another_run_is_refused(undisturbed, tiny_run):
    with pytest.raises(ValueError, match=r"holds another run: seed differ"):
        train(tiny_run.replace(seed=9), out=undisturbed[0])


def test_a_diverged_run_has_a_result_with_an_infinite_loss(tiny_run, tiny_measure, tmp_path):
    wild = dataclasses.replace(tiny_run.optimizer, learning_rate=1e30, clip=0.0)
    result = train(tiny_run.replace(optimizer=wild), out=tmp_path, measure=tiny_measure)
    assert result.row["status"] == "diverged" and result.loss == np.inf
    assert result.row["tokens_skipped"] > 0 and (tmp_path / "DONE").exists()
    assert Result.load(tmp_path).loss == np.inf


def test_data_with_more_token_ids_than_the_model_are_refused(tiny_run, tmp_path):
    small = dataclasses.replace(tiny_run.model, vocabulary=16)
    with pytest.raises(ValueError, match=r"Model\.vocabulary is 16"):
        train(tiny_run.replace(model=small), out=tmp_path / "run", measure=Measure(items=0))
