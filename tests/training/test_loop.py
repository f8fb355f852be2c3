"""Training is the same to the last bit however it was cut: resumed, branched, preempted, or killed."""

import dataclasses

import jax
import numpy as np
import pytest

from scalejax.config import Measure, Placement
from scalejax.data.batches import batches
from scalejax.data.preparation import prepare
from scalejax.files import read_lines
from scalejax.grids import run_id
from scalejax.model.flops import PEAK_FLOPS
from scalejax.training import checkpoint, loop
from scalejax.training.evaluate import evaluate
from scalejax.training.loop import Preempted, train, train_segment
from scalejax.training.result import Result
from scalejax.training.segment import Segment, TrainingJob
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state, make_train_step

TIMES = {"wall_seconds", "tokens_per_second", "mfu", "started", "finished", "study"}


def job_for(segment, measure, **placement):
    return TrainingJob(segment=segment, study="test@1", measure=measure, placement=Placement(**placement))


def numbers(result):
    return {name: value for name, value in result.row.items() if name not in TIMES}


def curve(folder):
    return [
        {k: v for k, v in row.items() if k != "seconds"}
        for row in read_lines(folder / "metrics.jsonl")
    ]


def weights(run, folder):
    step, state, _ = checkpoint.restore(
        folder / "checkpoints", init_state(run, make_mesh(Placement()))
    )
    assert step == run.steps
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


@pytest.fixture(scope="module")
def straight(tiny_run, tiny_measure, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    return folder, train(tiny_run, out=folder, measure=tiny_measure)


def test_the_loss_falls_and_the_row_is_complete(straight, tiny_run):
    folder, result = straight
    rows = curve(folder)
    losses = [row["train_loss"] for row in rows if "train_loss" in row]
    assert losses[-1] < losses[0] - 0.2
    assert result.row["step"] == tiny_run.steps and result.row["tokens"] == tiny_run.tokens
    assert [row["step"] for row in rows if "loss" in row] == [20, 40, 60]
    assert result.row["run"] == run_id(tiny_run) and (folder / "DONE").exists()


def test_utilization_is_in_the_row_where_the_devices_peak_is_known(
    straight, tiny_run, tiny_measure, tmp_path, monkeypatch
):
    monkeypatch.setitem(PEAK_FLOPS, jax.devices()[0].device_kind, 1e9)
    row = train(tiny_run, out=tmp_path, measure=tiny_measure).row
    assert row["mfu"] == pytest.approx(row["flops"] / row["wall_seconds"] / 1e9, rel=1e-12)
    if jax.default_backend() == "cpu":
        assert "mfu" not in straight[1].row, "a CPU's peak is not in the table"


def stop_after(steps):
    calls = iter(range(1, 10_000))
    return lambda: next(calls) >= steps


@pytest.mark.parametrize("stops", [[1], [19, 3], [20], [45]])
def test_a_preempted_run_ends_as_if_undisturbed(stops, straight, tiny_run, tiny_measure, tmp_path):
    job = job_for(Segment(run=tiny_run, start=0, stop=tiny_run.steps), tiny_measure)
    job.write(tmp_path)
    for steps in stops:
        with pytest.raises(Preempted):
            train_segment(job, tmp_path, None, stopping=stop_after(steps))
        assert not (tmp_path / "DONE").exists()
    train_segment(job, tmp_path, None)
    folder, result = straight
    assert numbers(Result.load(tmp_path)) == numbers(result)
    assert curve(tmp_path) == curve(folder)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(weights(tiny_run, tmp_path), weights(tiny_run, folder), strict=True)
    )


def test_a_branch_equals_the_run_trained_from_scratch(straight, tiny_run, tiny_measure, tmp_path):
    trunk = Segment(run=tiny_run, start=0, stop=33, final=False)
    leaf = Segment(run=tiny_run, start=33, stop=tiny_run.steps, parent=trunk.folder)
    for segment in (trunk, leaf):
        job = job_for(segment, tiny_measure)
        job.write(tmp_path / segment.folder)
        train_segment(
            job, tmp_path / segment.folder, tmp_path / segment.parent if segment.parent else None
        )
    folder, result = straight
    assert numbers(Result.load(tmp_path / leaf.folder)) == numbers(result)
    assert curve(tmp_path / leaf.folder) == curve(folder)
    other = tiny_run.replace(seed=1)
    assert Segment(run=other, start=0, stop=33, final=False).id != trunk.id, (
        "another seed would use this trunk"
    )


def test_when_the_batch_doubles_every_sequence_is_read_once_in_order(
    tiny_run, tiny_measure, tmp_path, monkeypatch
):
    run = tiny_run.replace(batch_doublings=(330,), tokens=30 * 64)
    seen = []

    def recorded(*arguments):
        real = make_train_step(*arguments)
        return lambda state, rows, rate: (seen.append(rows), real(state, rows, rate))[1]

    monkeypatch.setattr(loop, "make_train_step", recorded)
    trunk = Segment(run=run, start=0, stop=17, final=False)
    leaf = Segment(run=run, start=17, stop=run.steps, parent=trunk.folder)
    for segment in (trunk, leaf):
        job = job_for(segment, tiny_measure)
        job.write(tmp_path / segment.folder)
        train_segment(
            job, tmp_path / segment.folder, tmp_path / segment.parent if segment.parent else None
        )
    assert [len(rows) for rows in seen] == [2] * 11 + [
        4
    ] * 25  # 11 x 32 = 352 is the first boundary at or after 330
    there = batches(prepare(run.data), run).rows(0, sum(map(len, seen)))
    np.testing.assert_array_equal(np.concatenate(seen), there)
    row = Result.load(tmp_path / leaf.folder).row
    assert (row["step"], row["tokens"], row["batch_doublings"]) == (36, 352 + 25 * 64, "330")
    assert [row["tokens"] for row in curve(tmp_path / leaf.folder) if "loss" in row] == [1312, 1952]


def test_a_finished_folder_is_not_trained_again(straight, tiny_run, tiny_measure):
    folder, result = straight
    before = (folder / "result.json").stat().st_mtime_ns
    assert train(tiny_run, out=folder, measure=tiny_measure).row == result.row
    assert (folder / "result.json").stat().st_mtime_ns == before


def test_another_measure_measures_again_without_training(straight, tiny_run, tiny_measure):
    folder, result = straight
    again = train(tiny_run, out=folder, measure=dataclasses.replace(tiny_measure, tokens=512))
    assert again.row["loss"] != result.row["loss"]
    back = train(tiny_run, out=folder, measure=tiny_measure)
    assert numbers(back) == numbers(result)
    assert evaluate(folder, tiny_measure)["loss"] == result.row["loss"]


def test_another_run_may_not_use_the_folder(straight, tiny_run):
    with pytest.raises(ValueError, match=r"holds another run: seed differ"):
        train(tiny_run.replace(seed=9), out=straight[0])


def test_a_diverged_run_is_stored_as_such(tiny_run, tiny_measure, tmp_path):
    wild = dataclasses.replace(tiny_run.optimizer, learning_rate=1e30, clip=0.0)
    result = train(tiny_run.replace(optimizer=wild), out=tmp_path, measure=tiny_measure)
    assert result.row["status"] == "diverged" and result.loss == np.inf
    assert result.row["tokens_skipped"] > 0 and (tmp_path / "DONE").exists()
    assert Result.load(tmp_path).loss == np.inf


def test_a_vocabulary_that_does_not_fit_is_refused(tiny_run, tmp_path):
    small = dataclasses.replace(tiny_run.model, vocabulary=16)
    with pytest.raises(ValueError, match=r"Model\.vocabulary is 16"):
        train(tiny_run.replace(model=small), out=tmp_path / "run", measure=Measure(items=0))
