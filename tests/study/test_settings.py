"""What tells the runs of a study apart (mirrors scalejax/study/settings.py)."""

from scalejax.config import Model
from scalejax.grids import grid
from scalejax.model.transformer import counts
from scalejax.study.settings import settings_of


def test_runs_are_told_apart_by_what_differs_and_nothing_that_follows_from_it(tiny_run):
    models = [Model.sized(width=w, depth=1, head_size=8, vocabulary=32) for w in (16, 32)]
    runs = grid(tiny_run, model=models, learning_rate=[0.01, 0.02], beta1=0.8)
    settings = settings_of(runs)
    # The heads and the MLP follow from the width.
    assert settings.own[1] == {
        "params": counts(models[0]).params_with_head,
        "tokens": 3840,
        "width": 16,
        "learning_rate": 0.02,
    }
    assert settings.shared == {
        "depth": 1,
        "shape": "wsd",
        "cooldown": 0.25,
        "batch_tokens": 64,
        "seed": 0,
    }


def test_a_field_of_the_model_that_does_not_follow_from_the_size_is_named(tiny_run):
    models = [Model.sized(width=16, depth=1, head_size=size, vocabulary=32) for size in (8, 16)]
    own = settings_of(grid(tiny_run, model=models)).own
    assert [one["heads"] for one in own] == [2, 1] and "width" not in own[0]


def test_a_single_run_has_its_size_and_its_tokens(tiny_run):
    settings = settings_of([tiny_run])
    assert list(settings.own[0]) == ["params", "tokens"] and settings.shared["width"] == 16
