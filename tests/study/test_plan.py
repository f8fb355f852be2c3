"""The plan shares exactly the steps whose learning rates agree, and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalejax import laws
from scalejax.config import Data, Model, Optimizer, Placement, Run, Schedule
from scalejax.data.preparation import prepare
from scalejax.grids import cooldowns, grid, run_id
from scalejax.optim.schedules import cosine, learning_rates
from scalejax.study.plan import Study, plan, segment_flops

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
    assert 1 - planned.saved == pytest.approx(expected, abs=0.003)


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


def test_a_run_given_twice_is_planned_once():
    assert len(plan(Study("s@1", [BASE, BASE])).segments) == 1


def test_a_trunk_depends_on_its_rates_not_on_who_shares_it():
    def first_trunk(at, fraction):
        planned = plan(Study("s@1", cooldowns(BASE, at=at, fraction=fraction)))
        return next(segment.id for segment in planned.segments if not segment.final)

    assert first_trunk([16_000, 64_000], 0.2) == first_trunk([16_000, 48_000], 0.2)
    assert first_trunk([16_000, 64_000], 0.2) != first_trunk([16_000, 64_000], 0.3)


def test_forecast_runs_wait_for_the_fitted_ones():
    big = BASE.replace(seed=5)
    planned = plan(Study("s@1", cooldowns(BASE, at=[16_000, 32_000], fraction=0.2), forecast=[big]))
    assert f"runs/{run_id(big)}" not in {
        segment.folder for segment in planned.needed(planned.study.runs)
    }
    assert sum(segment_flops(s) for s in planned.needed([big])) == segment_flops(
        planned.by_folder[f"runs/{run_id(big)}"]
    )


def test_a_design_that_cannot_identify_the_law_is_warned_about_before_a_flop_is_spent():
    models = [
        Model.sized(width=width, depth=1, head_size=8, vocabulary=32) for width in (16, 24, 32)
    ]
    runs = [
        run for model in models for run in grid(BASE, model=model, tokens=20 * model.width * 640)
    ]
    assert not plan(Study("s@1", runs)).warnings()
    from scalejax.model.flops import per_param

    fixed = grid(BASE, model=models, tokens=per_param(20))
    assert any(
        "constant" in warning
        for warning in plan(Study("s@1", fixed, laws=[laws.chinchilla()])).warnings()
    )


def test_a_batch_that_the_placement_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="3 equal parts"):
        Study("s@1", [BASE], placement=Placement(accumulate=3))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("quickstart", [BASE]), "name@version"),
        (("s@1", []), "has no runs"),
        (("s@1", ["run"]), "must be Run values"),
        (("s@1", [BASE], [BASE]), "among both"),
    ],
)
def test_a_bad_study_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        Study(*arguments)


def test_reading_tokens_twice_is_a_warning_once_the_data_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALEJAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text(
        "\n\n".join(f"{i} " + "words and more words " * 100 for i in range(40))
    )
    data = Data(source=str(tmp_path / "text.txt"), tokenizer="byte", sequence_length=16)
    study = Study("s@1", [BASE.replace(data=data)])
    assert not plan(study).warnings(), "nobody knows yet how much text there is"
    tokens = len(prepare(data).train)
    assert plan(study).epochs() == pytest.approx(64_000 / tokens, rel=0.01)
    assert not plan(study).warnings()
    (warning,) = plan(Study("s@1", [BASE.replace(data=data, tokens=2.5 * tokens)])).warnings()
    assert "read up to 2.5 times" in warning


def test_a_mixture_repeats_the_domain_that_is_small_for_its_share(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALEJAX_CACHE", str(tmp_path / "cache"))
    for name, documents in (("large", 60), ("small", 20)):
        (tmp_path / "text" / name).mkdir(parents=True)
        for i in range(documents):
            (tmp_path / "text" / name / f"{i}.txt").write_text(
                f"{name} {i} " + "words and more words " * 100
            )
    data = Data(source=str(tmp_path / "text"), tokenizer="byte", sequence_length=16)
    even = Data(
        source=str(tmp_path / "text"),
        tokenizer="byte",
        sequence_length=16,
        mixture="large=1,small=1",
    )
    small = len(prepare(data).tokens("train", "concatenate", domain="small")) - 1
    assert plan(Study("s@1", [BASE.replace(data=even)])).epochs() == pytest.approx(
        32_000 / small, rel=0.01
    )
    assert plan(Study("s@1", [BASE.replace(data=data)])).epochs() < 0.6 * 32_000 / small
