"""Several segments as one program (mirrors scalejax/training/loops/population.py)."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import pytest

from scalejax.config import Measure, Model, Placement, Run
from scalejax.files import read_json
from scalejax.optim.averaging import ema
from scalejax.optim.schedules import constant
from scalejax.training.loop import Preempted, train, train_segment
from scalejax.training.loops.population import (
    Task,
    largest_population,
    program_key,
    train_population,
)
from scalejax.training.result import Result
from scalejax.training.segment import Segment, TrainingJob
from tests.training.runs import curve, reproducible_row, stop_after

# Two losses along the run, one average, and no downstream task.
MEASURE = Measure(every=1280, tokens=1024, items=0, averages=(ema(half_life_tokens=256),))


def with_rate(run: Run, rate: float, **changes) -> Run:
    optimizer = dataclasses.replace(run.optimizer, learning_rate=rate, **changes)
    return run.replace(optimizer=optimizer)


@pytest.fixture(scope="module")
def runs(tiny_run) -> list[Run]:
    """Two runs of different rates and seeds, and between them one that diverges."""
    run = tiny_run.replace(tokens=50 * tiny_run.batch_tokens)
    return [run, with_rate(run, 1e30, clip=0.0), with_rate(run, 0.03).replace(seed=1)]


def tasks(segments: list[Segment], root: Path) -> list[Task]:
    """Tasks in the folders that the segments have in a study."""
    tasks = []
    for segment in segments:
        job = TrainingJob(segment=segment, study="test@1", measure=MEASURE, placement=Placement())
        job.write(root / segment.folder)
        parent = root / segment.parent if segment.parent else None
        tasks.append(Task(job, root / segment.folder, parent))
    return tasks


def whole(runs: list[Run]) -> list[Segment]:
    return [Segment(run=run, start=0, stop=run.steps) for run in runs]


@pytest.fixture(scope="module")
def alone(runs, tmp_path_factory) -> list[Path]:
    """The folders of the runs, each trained by itself."""
    root = tmp_path_factory.mktemp("alone")
    for number, run in enumerate(runs):
        train(run, out=root / str(number), measure=MEASURE)
    return [root / str(number) for number in range(len(runs))]


def assert_close(row: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare numbers to 1e-5, tiny ones to 1e-6, and everything else exactly."""
    assert row.keys() == expected.keys()
    for name, value in row.items():
        is_float = isinstance(value, float)
        assert value == (
            pytest.approx(expected[name], rel=1e-5, abs=1e-6) if is_float else expected[name]
        )


def assert_same_run(folder: Path, expected: Path) -> None:
    """Compare the results and the curves of two folders."""
    rows = [reproducible_row(Result.load(path)) for path in (folder, expected)]
    # The bits of a population are its own, which is noted when it continues a run.
    for row in rows:
        del row["placement_changed"]
    assert_close(*rows)
    for row, expected_row in zip(curve(folder), curve(expected), strict=True):
        assert_close(row, expected_row)
    assert (folder / "DONE").exists()


def test_members_end_as_if_alone_and_a_diverged_one_does_not_stop_the_others(runs, alone, tmp_path):
    steps: dict[str, list[int]] = {}
    members = tasks(whole(runs), tmp_path)
    train_population(
        members, report=lambda segment, step, _: steps.setdefault(segment.id, []).append(step)
    )
    for (_, folder, _), expected in zip(members, alone, strict=True):
        assert_same_run(folder, expected)
    results = [Result.load(folder) for _, folder, _ in members]
    assert [result.row["status"] for result in results] == ["done", "diverged", "done"]
    assert abs(results[0].loss - results[2].loss) > 1e-3 and math.isinf(results[1].loss)
    # The wild run skips every step but the first, which is noticed at step 40.
    assert list(steps.values()) == [[20, 40, 50], [20, 40], [20, 40, 50]]
    assert read_json(members[0].folder / "status.json")["placement"]["population"] == 3


def test_members_go_on_alone_and_lone_runs_go_on_in_a_population(runs, alone, tmp_path):
    members = tasks(whole([runs[0], runs[2]]), tmp_path)
    # The first is 13 steps ahead: it waits until the other has caught up.
    with pytest.raises(Preempted):
        train_segment(members[0].job, members[0].folder, None, stopping=stop_after(13))
    with pytest.raises(Preempted):
        train_population(members, stopping=stop_after(13 + 12))
    for _, folder, _ in members:
        assert read_json(folder / "status.json")["saved"] == 25
        assert not (folder / "DONE").exists()

    train_segment(members[1].job, members[1].folder, None)
    assert_same_run(members[1].folder, alone[2])
    # What is finished is left as it is.
    result = (members[1].folder / "result.json").read_bytes()
    train_population(members)
    assert_same_run(members[0].folder, alone[0])
    assert (members[1].folder / "result.json").read_bytes() == result
    assert Result.load(members[0].folder).row["placement_changed"]


def test_trunks_and_their_branches_are_populations_too(tiny_run, tmp_path):
    base = tiny_run.replace(schedule=constant(warmup=640), tokens=25 * tiny_run.batch_tokens)
    runs = [base, with_rate(base, 0.03)]
    trunks = [
        Segment(run=base, start=0, stop=15, final=False),
        # A trunk can be cut from a longer run than its neighbor.
        Segment(run=runs[1].replace(tokens=2 * base.tokens), start=0, stop=15, final=False),
    ]
    branches = [
        Segment(run=run, start=15, stop=25, parent=trunk.folder)
        for run, trunk in zip(runs, trunks, strict=True)
    ]
    train_population(tasks(trunks, tmp_path))
    members = tasks(branches, tmp_path)
    train_population(members)
    for number, (run, member) in enumerate(zip(runs, members, strict=True)):
        train(run, out=tmp_path / str(number), measure=MEASURE)
        assert_same_run(member.folder, tmp_path / str(number))


def test_segments_that_differ_in_more_than_numbers_are_refused(tiny_run, tmp_path):
    longer = tiny_run.replace(tokens=2 * tiny_run.tokens)
    members = tasks(whole([tiny_run, longer]), tmp_path)
    with pytest.raises(ValueError, match="may differ in seed, schedule and the numbers"):
        train_population(members)
    other = with_rate(tiny_run, 0.5).replace(seed=3, schedule=constant(warmup=64))
    keys = [program_key(job) for job, _, _ in tasks(whole([tiny_run, other]), tmp_path)]
    assert keys[0] == keys[1] != program_key(members[1].job)


def test_on_cpu_runs_are_trained_together_only_when_asked(tiny_run, tmp_path):
    ((job, _, _),) = tasks(whole([tiny_run]), tmp_path)
    asked = dataclasses.replace(job, placement=Placement(population=5))
    assert largest_population(asked) == 5
    assert jax.default_backend() != "cpu" or largest_population(job) == 1
    profiled = dataclasses.replace(asked, measure=Measure(profile_steps=3))
    assert largest_population(profiled) == 1


def test_an_accelerator_gets_more_runs_the_smaller_they_are(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    model = Model.sized(width=1024, depth=24, head_size=64, vocabulary=50_304)
    large = tiny_run.replace(model=model, batch_tokens=1024 * 16, tokens=1024 * 160)
    jobs = [job for job, _, _ in tasks(whole([tiny_run, large]), tmp_path)]
    assert [largest_population(job) for job in jobs] == [8, 1]
    split = dataclasses.replace(jobs[0], placement=Placement(data=2))
    assert largest_population(split) == 1
