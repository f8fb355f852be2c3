"""Grids, cooldown branches and identities (mirrors scalejax/grids.py)."""

import dataclasses
import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalejax.config import Data, Model, Optimizer, Run, Schedule
from scalejax.grids import as_dict, canonical, cooldowns, flatten, from_dict, grid, run_id

BASE = Run(
    model=Model.sized(width=32, depth=2, head_size=16, vocabulary=64),
    data=Data(source="synthetic:64", tokenizer="own", sequence_length=32),
    optimizer=Optimizer(learning_rate=0.01),
    schedule=Schedule(shape="constant", warmup=640),
    tokens=1e4,
    batch_tokens=64,
)


def test_a_grid_is_a_product_with_the_last_axis_fastest():
    runs = grid(BASE, seed=[0, 1], tokens=[1e4, 2e4])
    assert [(run.seed, run.tokens) for run in runs] == [(0, 1e4), (0, 2e4), (1, 1e4), (1, 2e4)]


def test_an_axis_may_be_a_function_of_the_run_and_only_its_value_enters_the_identity():
    (run,) = grid(BASE, seed=3, tokens=lambda run: 1e4 * (run.seed + 1))
    assert run.tokens == 4e4
    assert run_id(run) == run_id(BASE.replace(seed=3, tokens=4e4))


def test_an_axis_may_be_a_field_of_a_part():
    rates = [run.optimizer.learning_rate for run in grid(BASE, learning_rate=[0.1, 0.2])]
    assert rates == [0.1, 0.2]


def test_an_unknown_axis_names_the_nearest_field():
    with pytest.raises(ValueError, match="did you mean 'learning_rate'"):
        grid(BASE, learning_rat=[0.1])


@given(
    st.sampled_from(
        [np.float64(1e4), np.int64(10_000), 10_000, 1e4, np.float32(1e4), jnp.float32(1e4)]
    ),
    st.sampled_from([0, 0.0, np.int8(0), False]),
)
def test_equal_numbers_of_different_types_are_the_same_run(tokens, seed):
    assert run_id(BASE.replace(tokens=tokens, seed=int(seed))) == run_id(BASE)
    assert run_id(BASE.replace(tokens=float(tokens) + 1)) != run_id(BASE)


def test_a_field_that_was_added_later_leaves_earlier_identities_as_they_are():
    # The id that earlier versions gave to this run, before Model.rope_theta existed.
    assert run_id(BASE) == "e88eec281cac5801"
    assert "rope_theta" not in canonical(BASE)
    longer = grid(BASE, rope_theta=5e5)[0]
    assert run_id(longer) != run_id(BASE)
    assert from_dict(Run, json.loads(canonical(longer))) == longer
    assert (flatten(BASE)["rope_theta"], flatten(longer)["rope_theta"]) == (1e4, 5e5)


def test_an_identity_is_the_same_in_another_process():
    code = (
        "import json\n"
        "from scalejax.grids import Run, from_dict, run_id\n"
        f"print(run_id(from_dict(Run, json.loads({canonical(BASE)!r}))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
    )
    assert done.stdout.strip() == run_id(BASE)


def test_a_run_is_recovered_from_its_json():
    data = Data(source="a", validation="b", skip_bad=True, sequence_length=32)
    for run in (BASE, BASE.replace(data=data)):
        assert from_dict(Run, json.loads(canonical(run))) == run


def test_a_field_that_was_added_later_leaves_earlier_runs_their_identity():
    """The id is that of the code before `Data` had `validation` and `skip_bad`."""
    assert run_id(BASE) == "e88eec281cac5801"
    for data in (
        dataclasses.replace(BASE.data, validation="held.txt"),
        dataclasses.replace(BASE.data, skip_bad=True),
    ):
        assert run_id(BASE.replace(data=data)) != run_id(BASE)


def test_an_unknown_or_missing_field_in_json_is_refused():
    values = as_dict(BASE)
    with pytest.raises(ValueError, match="no field 'sede'"):
        from_dict(Run, values | {"sede": 1})
    del values["tokens"]
    with pytest.raises(ValueError, match="lacks the field tokens"):
        from_dict(Run, values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("tokens", [1]), ("tokens", {}), ("batch_doublings", 1), ("batch_doublings", [[1]])],
        *[("model", "small"), ("model", []), ("optimizer", None)],
    ],
)
def test_a_list_or_object_in_the_wrong_field_of_json_is_refused(name, value):
    with pytest.raises(ValueError, match=f"the field {name} cannot be"):
        from_dict(Run, as_dict(BASE) | {name: value})


def test_a_flat_row_holds_every_field_once():
    row = flatten(BASE)
    assert row["width"] == 32
    assert row["learning_rate"] == 0.01
    assert row["parametrization"] == "standard"
    assert row["source"] == "synthetic:64"
    assert not any(isinstance(value, dict) for value in row.values())


def test_a_cooldown_is_an_ordinary_run_that_ends_at_its_tokens():
    short, long = cooldowns(BASE, at=[5e3, 1e4], fraction=0.2, shape="linear")
    assert (short.tokens, long.tokens) == (5e3, 1e4)
    assert cooldowns(BASE, at=1e4, fraction=0.2, shape="linear") == [long]
    wsd = Schedule(shape="wsd", warmup=640, cooldown=0.2, cooldown_shape="linear")
    assert run_id(long) == run_id(BASE.replace(schedule=wsd))


def test_a_cooldown_needs_a_trunk_with_a_constant_rate_that_is_long_enough():
    with pytest.raises(ValueError, match="constant"):
        cooldowns(BASE.replace(schedule=Schedule(shape="cosine", warmup=0)), at=[1e4], fraction=0.2)
    with pytest.raises(ValueError, match="after its trunk ends"):
        cooldowns(BASE, at=[2e4], fraction=0.2)
