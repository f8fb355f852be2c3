"""The plan shares exactly the steps whose learning rates agree, and nothing else.

Mirrors scalejax/study/plan.py.
"""

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalejax.config import Data, Measure, Model, Optimizer, Run, Schedule
from scalejax.grids import cooldowns, grid, run_id
from scalejax.launch.pool import next_job
from scalejax.optim.schedules import cosine, learning_rates
from scalejax.study.cost import segment_flops
from scalejax.study.plan import plan
from scalejax.study.study import Study
from scalejax.training.segment import Segment

BASE = Run(
    model=Model.sized(width=16, depth=1, head_size=8, vocabulary=32),
    data=Data(source="synthetic:32", tokenizer="own", sequence_length=16),
    optimizer=Optimizer(learning_rate=0.01),
    schedule=Schedule(shape="constant", warmup=640),
    tokens=64_000,
    batch_tokens=64,
)


def chain(planned, run):
    """The segments of a run, first to last."""
    segments, folder = [], f"runs/{run_id(run)}"
    while folder:
        segments.append(planned.by_folder[folder])
        folder = segments[-1].parent
    return segments[::-1]


def test_cooldowns_share_their_trunk_and_the_saving_is_the_papers():
    """Cost ratio (F_max + c sum of the shorter) / sum F (Hägele et al. 2024)."""
    horizons = [16_000, 32_000, 64_000]
    planned = plan(Study("s@1", cooldowns(BASE, at=horizons, fraction=0.2)))
    assert sum(segment.final for segment in planned.segments) == 3
    expected = (64_000 + 0.2 * (16_000 + 32_000)) / sum(horizons)
    assert 1 - planned.saved_fraction == pytest.approx(expected, abs=0.003)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(20, 60), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from([0.1, 0.25, 0.5]), min_size=1, max_size=2, unique=True),
    st.booleans(),
)
def test_every_run_is_covered_step_by_step_at_its_own_rates(budgets, fractions, with_cosine):
    runs = [
        run
        for fraction in fractions
        for run in cooldowns(BASE, at=[b * 640 for b in budgets], fraction=fraction)
    ]
    runs += (
        grid(BASE, tokens=[b * 640 for b in budgets], schedule=cosine(warmup=640))
        if with_cosine
        else []
    )
    planned = plan(Study("s@1", runs))
    for run in runs:
        segments = chain(planned, run)
        assert [s.start for s in segments] == [0] + [s.stop for s in segments[:-1]]
        assert segments[-1].stop == run.steps and segments[-1].final
        for segment in segments:
            mine, its = learning_rates(run), learning_rates(segment.run)
            assert np.array_equal(mine[: segment.stop], its[: segment.stop])
    folders = [segment.folder for segment in planned.segments]
    assert len(set(folders)) == len(folders)
    assert all(
        not s.parent or folders.index(s.parent) < folders.index(s.folder) for s in planned.segments
    )
    assert planned.flops <= planned.flops_separate


def test_runs_that_differ_in_seed_or_size_or_rate_share_nothing():
    runs = [
        BASE,
        BASE.replace(seed=1),
        *grid(BASE, learning_rate=0.02),
        *grid(BASE, batch_tokens=128),
    ]
    assert all(
        segment.start == 0 and segment.final for segment in plan(Study("s@1", runs)).segments
    )


def test_a_run_that_is_listed_twice_is_planned_once():
    assert len(plan(Study("s@1", [BASE, BASE])).segments) == 1


def test_different_runs_or_trunks_with_one_id_are_refused_by_name(monkeypatch):
    runs = [BASE, BASE.replace(seed=1)]
    monkeypatch.setattr("scalejax.study.plan.run_id", lambda run: "0123456789abcdef")
    assert len(plan(Study("tiny@1", [BASE, BASE.replace()])).segments) == 1
    with pytest.raises(
        ValueError, match=r'id 0123456789abcdef.*"seed":0.*"seed":1.*change the seed'
    ):
        plan(Study("tiny@1", runs))
    monkeypatch.undo()

    branches = cooldowns(runs, at=[32_000, 64_000], fraction=0.2)
    assert len(plan(Study("tiny@1", branches)).segments) == 6
    monkeypatch.setattr(Segment, "folder", property(lambda self: f"{self.final} {self.stop}"))
    with pytest.raises(ValueError, match="two trunks of the study tiny@1 have one id"):
        plan(Study("tiny@1", branches))


def test_a_trunk_depends_on_its_rates_not_on_who_shares_it():
    def first_trunk(at, fraction):
        planned = plan(Study("s@1", cooldowns(BASE, at=at, fraction=fraction)))
        return next(segment.id for segment in planned.segments if not segment.final)

    assert first_trunk([16_000, 64_000], 0.2) == first_trunk([16_000, 48_000], 0.2)
    assert first_trunk([16_000, 64_000], 0.2) != first_trunk([16_000, 64_000], 0.3)


def test_forecast_runs_wait_for_the_fitted_ones():
    big = BASE.replace(seed=5)
    planned = plan(Study("s@1", cooldowns(BASE, at=[16_000, 32_000], fraction=0.2), forecast=[big]))
    fitted = {segment.folder for segment in planned.needed(planned.study.runs)}
    assert f"runs/{run_id(big)}" not in fitted
    assert sum(segment_flops(s) for s in planned.needed([big])) == segment_flops(
        planned.by_folder[f"runs/{run_id(big)}"]
    )


def test_the_jobs_of_runs_are_their_segments_with_the_trunks_first():
    runs = cooldowns(BASE, at=[16_000, 32_000], fraction=0.2)
    planned = plan(Study("s@1", runs, measure=Measure(every=6400)))
    jobs = planned.jobs(runs[:1])
    assert [job.segment for job in jobs] == chain(planned, runs[0])
    assert [job.segment.final for job in jobs] == [False, True]
    assert all(job.study == "s@1" and job.measure.every == 6400 for job in jobs)


def test_the_trunk_of_a_run_is_the_first_segment_that_it_shares():
    seeds = [BASE, BASE.replace(seed=1)]
    branches = cooldowns(seeds, at=[16_000, 32_000, 64_000], fraction=0.2)
    single = BASE.replace(seed=2)
    planned = plan(Study("s@1", [*branches, single]))
    trunks = [planned.trunk_of(run) for run in branches]
    assert len(set(trunks)) == 2 and {trunks.count(trunk) for trunk in trunks} == {3}
    assert planned.trunk_of(single) == run_id(single)


def test_runs_that_share_little_more_than_a_warmup_are_trunks_of_their_own():
    cosines = grid(BASE.replace(schedule=cosine(warmup=640)), tokens=[16_000, 32_000, 64_000])
    branches = cooldowns(BASE, at=[3_200, 64_000], fraction=0.2)
    planned = plan(Study("s@1", [*cosines, *branches]))
    roots = {segment.id for segment in planned.segments if not segment.parent}
    assert len(roots) == 1, "the warmup is not shared, and this test could not fail"
    assert [planned.trunk_of(run) for run in cosines] == [run_id(run) for run in cosines]
    # The second branch shares a twentieth of itself, but most of the first one.
    assert len({planned.trunk_of(run) for run in branches}) == 1


def test_thousands_of_runs_are_planned_in_seconds():
    """A study of 5,000 runs took 15 s of CPU time, and its cooldowns quadratic time."""
    rates = np.logspace(-4, -1, 50)
    runs = grid(BASE, learning_rate=rates, tokens=[6400 * k for k in range(1, 11)], seed=range(10))
    started = time.process_time()
    summary = plan(Study("s@1", runs)).summary()
    # Every combination of rate and seed has nine trunks: one per budget but the last.
    assert (summary["runs"], summary["trunks"]) == (5000, 4500)
    assert time.process_time() - started < 10


def test_a_thousand_cooldowns_off_one_trunk_need_no_deep_recursion():
    trunk = BASE.replace(tokens=64 * 2500)
    runs = cooldowns(trunk, at=[64 * (1250 + step) for step in range(1000)], fraction=0.2)
    segments = plan(Study("s@1", runs)).segments
    assert sum(segment.final for segment in segments) == 1000
    # Cooldowns begin at whole steps, so that five budgets in a row start at four steps.
    trunks = [segment for segment in segments if not segment.final]
    assert [trunk.stop for trunk in trunks] == sorted(trunk.stop for trunk in trunks)
    assert all(low.folder == high.parent for low, high in pairwise(trunks))


def test_a_run_that_begins_from_another_run_of_the_study_waits_for_it(tiny_run):
    base = tiny_run.replace(seed=7)
    tuned = tiny_run.replace(start=run_id(base))
    planned = plan(Study("s@1", [tuned, base]))
    needs = {segment.id: segment.needs for segment in planned.segments}
    assert needs == {run_id(base): "", run_id(tuned): f"runs/{run_id(base)}"}
    assert {segment.id for segment in planned.needed([tuned])} == {run_id(base), run_id(tuned)}
    waiting = {job.segment.folder: job for job in planned.jobs([tuned])}
    ready = next_job(None, waiting, busy=())
    assert ready is not None and ready.segment.id == run_id(base)
    with pytest.raises(ValueError, match="the study has no such run"):
        plan(Study("s@1", [tuned]))
