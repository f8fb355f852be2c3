"""The table of multipliers, and equality with standard at the base (mirrors scalejax/model/parametrization.py)."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalejax.config import Model, Parametrization, Placement
from scalejax.model.parameters import scalings
from scalejax.model.parametrization import (
    HIDDEN_GAIN,
    Role,
    attention_multiplier,
    branch_multiplier,
    completep,
    mup,
    output_multiplier,
    scaling,
    standard,
)
from scalejax.model.transformer import abstract
from scalejax.optim.optimizers import hyperparameters, optimizer
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state, make_train_step

ROLES = get_args(Role)
MODEL = Model(
    width=32, depth=2, heads=4, kv_heads=2, head_size=8, mlp_width=88, vocabulary=32, qk_norm=True
)
WIDE = Model.sized(width=256, depth=8, vocabulary=512, head_size=32)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "parametrization",
    [
        mup(base_width=32),
        completep(base_width=32, base_depth=2),
        mup(base_width=32, base_mlp_width=88, base_head_size=8),
    ],
)
def test_at_the_base_parameters_and_a_training_step_are_standards_to_the_last_bit(
    tiny_run, parametrization, tied
):
    mesh, rows = make_mesh(Placement()), np.arange(4 * 17, dtype=np.int32).reshape(4, 17) ** 2 % 31

    def trained(run):
        state, step = init_state(run, mesh), make_train_step(run, mesh)
        start = jax.tree.map(np.asarray, state.params)
        return start, step(state, rows, np.float32(0.01))

    decaying = dataclasses.replace(
        tiny_run.optimizer, weight_decay=0.1, decay="standard", epsilon=1e-3
    )
    run = tiny_run.replace(model=dataclasses.replace(MODEL, tied=tied), optimizer=decaying)
    expected, found = (
        trained(run.replace(parametrization=each)) for each in (standard(), parametrization)
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    elsewhere = trained(
        run.replace(parametrization=dataclasses.replace(parametrization, base_width=16))
    )
    assert np.any(elsewhere[1][0].params["embedding"] != expected[1][0].params["embedding"]), (
        "this test could not fail"
    )


def test_at_four_times_the_base_width_the_table_is_yangs():
    rows = {role: scaling(mup(base_width=64), WIDE, role=role, fan_in=256) for role in ROLES}
    expected = dict.fromkeys(ROLES, 1.0) | {"hidden": 1 / 4}
    assert {role: row.learning_rate for role, row in rows.items()} == expected
    assert {role: row.epsilon for role, row in rows.items()} == dict.fromkeys(ROLES, 1 / 4)
    decays = {role: row.weight_decay for role, row in rows.items()}
    assert decays == {
        "embedding": 0,
        "hidden": 4,
        "block_norm": 0,
        "norm": 0,
        "output": 1,
        "tied": 0,
    }
    assert rows["hidden"].init_std == HIDDEN_GAIN / 16
    assert rows["output"].init_std == scaling(standard(), WIDE, role="output", fan_in=64).init_std
    assert output_multiplier(mup(base_width=64), WIDE) == 1 / 4
    assert branch_multiplier(mup(base_width=64), WIDE) == 1


def test_depth_moves_the_branches_and_the_epsilon_of_their_tensors_alone():
    in_width, in_both = mup(base_width=64), completep(base_width=64, base_depth=2)
    for role in ROLES:
        row, deep = (scaling(each, WIDE, role=role, fan_in=256) for each in (in_width, in_both))
        expected = 1 / 4 if role in ("hidden", "block_norm") else 1
        assert deep.epsilon == row.epsilon * expected
        assert deep._replace(epsilon=0) == row._replace(epsilon=0)
    assert branch_multiplier(in_both, WIDE) == 1 / 4
    assert output_multiplier(in_both, WIDE) == output_multiplier(in_width, WIDE)


def rows_by_tensor(parametrization: Parametrization, model: Model):
    _, specs = abstract(model, parametrization)
    rows = scalings(specs, parametrization, model)
    block = rows["blocks"][0]
    return {
        **block["attention"],
        **block["mlp"],
        "embedding": rows["embedding"],
        "final norm": rows["norm"]["gain"],
    }


def test_the_mlps_down_projection_follows_its_own_fan_in():
    model = Model(
        width=128, depth=1, heads=4, kv_heads=2, head_size=32, mlp_width=512, vocabulary=64
    )
    named = rows_by_tensor(mup(base_width=64, base_mlp_width=128), model)  # width x 2, MLP x 4
    in_proportion = rows_by_tensor(mup(base_width=64), model)
    assert (named["down"].learning_rate, named["down"].weight_decay) == (1 / 4, 4)
    assert (in_proportion["down"].learning_rate, in_proportion["down"].weight_decay) == (1 / 2, 2)
    assert named["down"].init_std == in_proportion["down"].init_std == HIDDEN_GAIN * 512**-0.5
    assert named["down"].epsilon == in_proportion["down"].epsilon == 1 / 2
    assert {name: row for name, row in named.items() if name != "down"} == {
        name: row for name, row in in_proportion.items() if name != "down"
    }
    assert named["gate"].learning_rate == named["output"].learning_rate == 1 / 2


def test_attention_products_shrink_as_one_over_head_size_where_heads_grow_in_size():
    sizes = [Model.sized(width=4 * h, depth=1, vocabulary=2, head_size=h) for h in (16, 64)]
    growing = [
        attention_multiplier(mup(base_width=64, base_head_size=16), model) for model in sizes
    ]
    at_one_size = [attention_multiplier(mup(base_width=64), model) for model in sizes]
    assert growing == [1 / 4, 1 / 16] and at_one_size == [1 / 4, 1 / 8]


def test_learning_rate_times_weight_decay_of_a_matrix_is_constant_in_width_and_depth():
    parametrization = completep(base_width=64, base_depth=2, base_mlp_width=100)
    models = [
        Model.sized(width=w, depth=w // 16, vocabulary=64, head_size=16) for w in (32, 64, 256)
    ]
    rows = [rows_by_tensor(parametrization, model) for model in models]
    products = {
        name: {row[name].learning_rate * row[name].weight_decay for row in rows} for name in rows[0]
    }
    expected = {name: {0.0} if name in ("embedding", "final norm") else {1.0} for name in products}
    assert {name: set(np.round(list(found), 12)) for name, found in products.items()} == expected


@pytest.mark.parametrize("decay", ["independent", "standard"])
def test_a_step_without_gradient_shrinks_a_matrix_by_the_same_share_at_every_size(decay, tiny_run):
    decaying = dataclasses.replace(
        tiny_run.optimizer, learning_rate=0.01, weight_decay=0.1, decay=decay
    )
    numbers = hyperparameters(tiny_run.replace(optimizer=decaying))
    parametrization = completep(base_width=64, base_depth=2)

    def shares(model):
        _, specs = abstract(model, parametrization)
        rows = scalings(specs, parametrization, model)
        rule = optimizer(
            "adamw", numbers, jnp.float32(0.005), specs=specs, scalings=rows, decay=decay
        )
        params = jax.tree.map(lambda spec: jnp.ones(spec.shape), specs)
        updates, _ = rule.update(jax.tree.map(jnp.zeros_like, params), rule.init(params), params)
        block = updates["blocks"][0]
        tensors = {
            **block["mlp"],
            **block["attention"],
            "head": updates["head"],
            "embedding": updates["embedding"],
        }
        return {name: float(np.unique(update).item()) for name, update in tensors.items()}

    small, large = (
        shares(Model.sized(width=w, depth=w // 16, vocabulary=64, head_size=16)) for w in (32, 128)
    )
    # independent: rate / peak x weight_decay; standard: rate x weight_decay.
    share = {"independent": -0.05, "standard": -0.0005}[decay]
    assert small == pytest.approx(large, rel=1e-6)
    assert (
        small["down"] == small["query"] == small["head"] == pytest.approx(share, rel=1e-6)
        and small["embedding"] == 0
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "muP"}, "one of standard, mup, completep"),
        ({"name": "mup"}, "base_width must be a whole number of at least 1"),
        (
            {"name": "completep", "base_width": 64},
            "base_depth must be a whole number of at least 1",
        ),
        (
            {"name": "mup", "base_width": 64, "base_depth": 2},
            "base_depth is not used by the mup parametrization",
        ),
        (
            {"name": "standard", "base_width": 64},
            "base_width is not used by the standard parametrization",
        ),
    ],
)
def test_a_base_that_is_missing_or_means_nothing_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Parametrization(**fields)
