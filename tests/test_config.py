"""Config dataclasses say what was given and what would be right."""

import dataclasses

import numpy as np
import pytest

from scalejax.config import Average, Data, Measure, Model, Optimizer, Placement, Run, Schedule
from scalejax.optim.schedules import multistep


def model(**changes):
    return Model.sized(**({"width": 32, "depth": 2, "head_size": 16, "vocabulary": 64} | changes))


def run(**changes):
    fields = {
        "model": model(),
        "data": Data(source="synthetic:64", tokenizer="own", sequence_length=32),
        "optimizer": Optimizer(learning_rate=0.01),
        "schedule": Schedule(shape="constant", warmup=0),
        "tokens": 1e4,
        "batch_tokens": 64,
    }
    return Run(**(fields | changes))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: model(width=40), "heads do not divide"),
        (lambda: dataclasses.replace(model(), heads=4, kv_heads=3), "multiple of Model.kv_heads"),
        (lambda: dataclasses.replace(model(), head_size=7), "even"),
        (lambda: dataclasses.replace(model(), depth=0), "Model.depth"),
        (lambda: dataclasses.replace(model(), width=32.5), "whole number"),
        (lambda: Optimizer(learning_rate=-0.1), "learning_rate"),
        (lambda: Optimizer(learning_rate=float("nan")), "learning_rate"),
        (lambda: Optimizer(learning_rate=0.1, beta2=1.0), "beta2"),
        (lambda: Optimizer(learning_rate=0.1, decay="none"), "independent"),
        (lambda: Schedule(shape="wsdd", warmup=0), "wsd"),
        (lambda: Schedule(shape="wsd", warmup=0, cooldown=1.0), "cooldown"),
        (lambda: run(tokens=63), "below one batch"),
        (lambda: run(batch_tokens=50), "multiple of Data.sequence_length"),
        (lambda: run(schedule=Schedule(shape="constant", warmup=20_000)), "longer than the run"),
        (lambda: run(compute_dtype="float16"), "bfloat16"),
        (lambda: run(model="32"), "Run.model must be a Model"),
        (lambda: run(tokens=float("inf")), "finite"),
        (lambda: run(tokens="1e4"), "Run.tokens must be a finite number; got '1e4'"),
        (
            lambda: run(batch_doublings=1024),
            "Run.batch_doublings are several token counts in a tuple or a list, one alone too",
        ),
        (
            lambda: Optimizer(learning_rate=[0.1, 0.2]),
            r"learning_rate must be in \(0, inf\); got \[0.1, 0.2\]",
        ),
        (lambda: Optimizer(learning_rate=0.1, beta2=None), "beta2 must be in .*; got None"),
        (
            lambda: multistep(warmup=0, milestones=0.5),
            "milestones are several fractions of the run",
        ),
        (
            lambda: Schedule(shape="constant", warmup="10"),
            "warmup must be a whole number of at least 0; got '10'",
        ),
        (
            lambda: Measure(averages=Average(kind="ema", tokens=5)),
            "averages are several averages in a tuple or a list",
        ),
        (
            lambda: Measure(averages=["ema-5"]),
            r"holds what ema\(..\) and window\(..\) of optim.averaging give; got \['ema-5'\]",
        ),
        (lambda: Measure(suites="continuation"), "suites are several names of suites"),
        (lambda: Measure(every=-1), "Measure.every"),
        (lambda: Placement(data=0), "Placement.data"),
        (lambda: Data(source=""), "empty"),
    ],
)
def test_bad_values_are_refused_in_the_users_words(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_whole_numbers_are_pythons_however_they_were_given():
    found = run(
        model=model(width=np.int64(32)),
        batch_tokens=np.int32(64),
        seed=1.0,
        schedule=Schedule(shape="constant", warmup=1e3),
    )
    assert found == run(seed=1, schedule=Schedule(shape="constant", warmup=1000))
    numbers = (
        found.model.width,
        found.model.mlp_width,
        found.model.heads,
        found.batch_tokens,
        found.seed,
        found.schedule.warmup,
    )
    assert {type(number) for number in numbers} == {int}, "numpy's overflow where FLOPs are counted"


def test_the_last_batch_is_filled_up():
    assert run(tokens=64 * 3).steps == 3
    assert run(tokens=64 * 3 + 1).steps == 4


def test_configs_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        run().seed = 1  # type: ignore[misc]
