"""Checks of the configuration dataclasses (mirrors scalejax/config/)."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from scalejax.config import Average, Data, Measure, Model, Optimizer, Placement, Run, Schedule
from scalejax.config.placement import check_placement
from scalejax.grids import run_id
from scalejax.optim.schedules import multistep


def model(**changes: Any) -> Model:
    fields: dict[str, Any] = {"width": 32, "depth": 2, "head_size": 16, "vocabulary": 64}
    return Model.sized(**(fields | changes))


def run(**changes: Any) -> Run:
    fields: dict[str, Any] = {
        "model": model(),
        "data": Data(source="synthetic:64", tokenizer="own", sequence_length=32),
        "optimizer": Optimizer(learning_rate=0.01),
        "schedule": constant(),
        "tokens": 1e4,
        "batch_tokens": 64,
    }
    return Run(**(fields | changes))


def constant(**changes: Any) -> Schedule:
    return Schedule(**({"shape": "constant", "warmup": 0} | changes))


def optimizer(**fields: Any) -> Optimizer:
    defaults: dict[str, Any] = {"learning_rate": 0.1}
    return Optimizer(**(defaults | fields))


def measure(**fields: Any) -> Measure:
    return Measure(**fields)


def data(**fields: Any) -> Data:
    return Data(**fields)


def step_decay(**fields: Any) -> Schedule:
    return multistep(**fields)


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: model(width=40), "heads do not divide"),
        (lambda: dataclasses.replace(model(), heads=4, kv_heads=3), "multiple of Model.kv_heads"),
        (lambda: dataclasses.replace(model(), head_size=7), "even"),
        (lambda: dataclasses.replace(model(), depth=0), "Model.depth"),
        (lambda: dataclasses.replace(model(), width=32.5), "whole number"),
        (lambda: dataclasses.replace(model(), width=10**400), "whole number"),
        (lambda: model(width="32"), "Model.width must be a whole number of at least 1; got '32'"),
        (lambda: model(tied="no"), "Model.tied must be True or False; got 'no'"),
        (lambda: model(qk_norm=1), "Model.qk_norm must be True or False; got 1"),
        (lambda: optimizer(learning_rate=-0.1), "learning_rate"),
        (lambda: optimizer(learning_rate=float("nan")), "learning_rate"),
        (
            lambda: optimizer(learning_rate=[0.1, 0.2]),
            r"learning_rate must be in \(0, inf\); got \[0.1, 0.2\]",
        ),
        (lambda: optimizer(learning_rate=True), r"learning_rate must be in .*; got True"),
        (lambda: optimizer(clip=np.True_), r"Optimizer.clip must be in .*; got"),
        (lambda: optimizer(beta2=1.0), "beta2"),
        (lambda: optimizer(beta2=None), "beta2 must be in .*; got None"),
        (
            lambda: optimizer(beta2=0.99999999),
            r"beta2 0.99999999 is 1 in float32.* must be in \[0, 1\)",
        ),
        (lambda: optimizer(epsilon=1e-50), "epsilon 1e-50 is 0 in float32"),
        (lambda: optimizer(learning_rate=1e39), "learning_rate 1e[+]39 is inf in float32"),
        (lambda: optimizer(decay="none"), "independent"),
        (lambda: constant(shape="wsdd"), "wsd"),
        (lambda: constant(shape="wsd", cooldown=1.0), "cooldown"),
        (
            lambda: constant(warmup="10"),
            "warmup must be a whole number of at least 0; got '10'",
        ),
        (
            lambda: step_decay(warmup=0, milestones=0.5),
            "milestones must be a tuple or list of fractions of the run, even for a single one",
        ),
        (lambda: run(tokens=63), "below one batch"),
        (lambda: run(tokens=float("inf")), r"Run.tokens must be in \(0, inf\); got inf"),
        (lambda: run(tokens="1e4"), r"Run.tokens must be in \(0, inf\); got '1e4'"),
        (lambda: run(batch_tokens=50), "multiple of Data.sequence_length"),
        (
            lambda: run(batch_doublings=1024),
            "Run.batch_doublings must be a tuple or list of token counts, even for a single one",
        ),
        (lambda: run(schedule=constant(warmup=20_000)), "longer than the run"),
        (lambda: run(compute_dtype="float16"), "bfloat16"),
        (lambda: run(model="32"), "Run.model must be a Model"),
        (lambda: run(seed=2**32 + 7), "Run.seed must be below 2.*those of seed 7"),
        (lambda: run(start=Path("a")), r"Run.start must be text; got .*Path\('a'\).*str\(path\)"),
        (
            lambda: run(batch_doublings=(640, float("inf"))),
            "Run.batch_doublings must hold token counts, which are finite numbers; got inf",
        ),
        (
            lambda: step_decay(warmup=0, milestones=("0.5", 0.9)),
            "Schedule.milestones must hold fractions of the run.*; got '0.5'",
        ),
        (
            lambda: measure(averages=Average(kind="ema", tokens=5)),
            "averages must be a tuple or list of averages",
        ),
        (
            lambda: measure(averages=["ema-5"]),
            r"hold the results of ema\(...\) and window\(...\) .* got \['ema-5'\]",
        ),
        (
            lambda: measure(suites="continuation"),
            r"suites must be a tuple or list of suite names.*: suites=\('continuation',\)",
        ),
        (lambda: measure(suites=[None]), "Measure.suites must name suites among .*; got None"),
        (lambda: measure(every=-1), "Measure.every"),
        (lambda: Placement(data=0), "Placement.data"),
        (lambda: Placement(remat="all"), "Placement.remat"),
        (lambda: Placement(scan_layers=cast(Any, 1)), "scan_layers must be True or False"),
        (lambda: Placement(population=-1), "Placement.population"),
        (lambda: Placement(population=2, fsdp=2), "population 2 trains several runs on one device"),
        (lambda: Data(source=""), "empty"),
        (lambda: Data(skip_bad=cast(Any, "yes")), "Data.skip_bad must be True or False"),
        (lambda: data(source=Path("text")), r"Data.source must be text; got .*Path\('text'\)"),
        (lambda: data(mixture={"wiki": 1}), "Data.mixture must be text; got {'wiki': 1}"),
        (lambda: data(domain=None), "Data.domain must be text; got None"),
        (lambda: Data(mixture="wiki=1, =2"), "each domain once; got 'wiki=1,=2'"),
    ],
)
def test_an_invalid_value_is_refused_with_its_field_and_what_is_valid(create, message):
    with pytest.raises(ValueError, match=message):
        create()


def test_whole_numbers_of_any_type_become_python_integers():
    """Products of numpy's integers overflow where FLOPs are counted."""
    schedule = constant(warmup=1e3)
    typed = run(
        model=model(width=np.int64(32)), batch_tokens=np.int32(64), seed=1.0, schedule=schedule
    )
    assert typed == run(seed=1, schedule=constant(warmup=1000))
    numbers = [typed.model.width, typed.model.mlp_width, typed.model.heads]
    numbers += [typed.batch_tokens, typed.seed, typed.schedule.warmup]
    assert {type(number) for number in numbers} == {int}


def test_booleans_of_numpy_become_python_booleans():
    """They have no JSON, of which the identity of a run is made."""
    typed = run(model=model(tied=np.True_, qk_norm=np.False_))
    assert run_id(typed) == run_id(run(model=model(tied=True)))


def test_a_list_becomes_a_tuple():
    assert measure(suites=["continuation"]) == measure(suites=("continuation",))
    assert measure(averages=[Average(kind="ema", tokens=5)]).averages[0].name == "ema-5"


def test_blanks_in_a_mixture_mean_nothing():
    data = Data(mixture=" wiki = 1,  code=3 ")
    assert data == Data(mixture="wiki=1,code=3") and data.weights == {"wiki": 0.25, "code": 0.75}


def test_the_last_batch_is_filled_up():
    assert run(tokens=64 * 3).steps == 3
    assert run(tokens=64 * 3 + 1).steps == 4


def test_rounding_errors_of_a_token_count_cost_no_batch():
    noisy = run(tokens=1.1 * 100 * 64 * 32, batch_tokens=64 * 32)
    assert 1.1 * 100 * 64 * 32 > 225_280 and noisy.tokens == 225_280 and noisy.steps == 110
    assert run(tokens=640.5).tokens == 640.5


def test_configurations_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        run().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        (
            Placement(tensor=4),
            r"Placement.tensor 4 does not divide Model.heads 6; use tensor 3 or 6, or heads 4 or 8",
        ),
        (
            Placement(tensor=16),
            r"Placement.tensor 16 does not divide Model.heads 6; use tensor 6, or heads 16",
        ),
        (
            Placement(tensor=3),
            r"tensor 3 does not divide Model.mlp_width 128; use tensor 2 or 4, .* 126 or 129",
        ),
        (
            Placement(fsdp=5),
            r"fsdp 5 does not divide Model.width 48; use fsdp 4 or 6, or width 45 or 50",
        ),
        (
            Placement(data=4, accumulate=2),
            r"data 4 x fsdp 1 x accumulate 2 = 8 does not divide the batch of 12 sequences of 32 "
            r"tokens; use a product of 6 or 12, or a batch of 8 or 16 sequences",
        ),
    ],
)
def test_a_placement_that_divides_a_run_unequally_is_refused_with_what_works(placement, message):
    uneven = run(model=model(width=48, head_size=8), batch_tokens=12 * 32)
    check_placement(uneven, Placement(data=2, fsdp=3, tensor=2, accumulate=2))
    with pytest.raises(ValueError, match=message):
        check_placement(uneven, placement)
