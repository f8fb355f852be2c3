"""The table of multipliers (mirrors scalejax/model/parametrization.py)."""

import dataclasses
from typing import cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalejax.config import Model, Parametrization, Placement
from scalejax.model.parameters import Params, scalings
from scalejax.model.parametrization import (
    HIDDEN_GAIN,
    Role,
    Scaling,
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
from scalejax.training.step import Metrics, TrainState, init_state, make_train_step

ROLES = get_args(Role)
MODEL = Model(
    width=32, depth=2, heads=4, kv_heads=2, head_size=8, mlp_width=88, vocabulary=32, qk_norm=True
)
WIDE = Model.sized(width=256, depth=8, vocabulary=512, head_size=32)


@pytest.mark.parametrize(
    ("parametrization", "tied"),
    [
        (mup(base_width=32), False),
        (completep(base_width=32, base_depth=2), True),
        (mup(base_width=32, base_mlp_width=88, base_head_size=8), True),
    ],
)
def test_at_the_base_a_training_step_has_the_bits_of_standard(tiny_run, parametrization, tied):
    mesh, rows = make_mesh(Placement()), np.arange(4 * 17, dtype=np.int32).reshape(4, 17) ** 2 % 31
    decaying = dataclasses.replace(
        tiny_run.optimizer, weight_decay=0.1, decay="standard", epsilon=1e-3
    )
    run = tiny_run.replace(model=dataclasses.replace(MODEL, tied=tied), optimizer=decaying)

    def trained(parametrization: Parametrization) -> tuple[Params, TrainState, Metrics]:
        """The initial parameters, and the state and the metrics after one step."""
        scaled = run.replace(parametrization=parametrization)
        state, step = init_state(scaled, mesh), make_train_step(scaled, mesh)
        # The step donates its state, so the parameters are copied first.
        start = jax.tree.map(np.asarray, state.params)
        return start, *step(state, rows, np.float32(0.01))

    expected = trained(standard())
    jax.tree.map(np.testing.assert_array_equal, trained(parametrization), expected)
    _, elsewhere, _ = trained(dataclasses.replace(parametrization, base_width=16))
    embeddings = elsewhere.params["embedding"], expected[1].params["embedding"]
    assert np.any(embeddings[0] != embeddings[1]), "the base has no effect"


def test_at_four_times_the_base_width_the_table_is_that_of_yang():
    rows = {role: scaling(mup(base_width=64), WIDE, role=role, fan_in=256) for role in ROLES}
    learning_rates = dict.fromkeys(ROLES, 1.0) | {"hidden": 1 / 4}
    decays = dict.fromkeys(ROLES, 0.0) | {"hidden": 4.0, "output": 1.0}
    assert {role: row.learning_rate for role, row in rows.items()} == learning_rates
    assert {role: row.epsilon for role, row in rows.items()} == dict.fromkeys(ROLES, 1 / 4)
    assert {role: row.weight_decay for role, row in rows.items()} == decays
    assert rows["hidden"].init_std == HIDDEN_GAIN / 16
    assert rows["output"].init_std == scaling(standard(), WIDE, role="output", fan_in=64).init_std
    assert output_multiplier(mup(base_width=64), WIDE) == 1 / 4
    assert branch_multiplier(mup(base_width=64), WIDE) == 1


def test_depth_changes_only_the_branches_and_the_epsilon_of_their_tensors():
    in_width, in_both = mup(base_width=64), completep(base_width=64, base_depth=2)
    for role in ROLES:
        row, deep = (scaling(each, WIDE, role=role, fan_in=256) for each in (in_width, in_both))
        expected = 1 / 4 if role in ("hidden", "block_norm") else 1
        assert deep.epsilon == row.epsilon * expected
        assert deep._replace(epsilon=0) == row._replace(epsilon=0)
    assert branch_multiplier(in_both, WIDE) == 1 / 4
    assert output_multiplier(in_both, WIDE) == output_multiplier(in_width, WIDE)


def rows_by_tensor(parametrization: Parametrization, model: Model) -> dict[str, Scaling]:
    """The scalings of the tensors in the first block and outside the blocks."""
    _, specs = abstract(model, parametrization)
    rows = scalings(specs, parametrization, model)
    block = rows["blocks"][0]
    outside = {"embedding": rows["embedding"], "final norm": rows["norm"]["gain"]}
    return {**block["attention"], **block["mlp"], **outside}


def test_the_down_projection_of_the_mlp_follows_the_ratio_of_mlp_widths():
    model = Model(
        width=128, depth=1, heads=4, kv_heads=2, head_size=32, mlp_width=512, vocabulary=64
    )
    # The width is 2 times that of the base, and the MLP width 4 times.
    given = rows_by_tensor(mup(base_width=64, base_mlp_width=128), model)
    in_proportion = rows_by_tensor(mup(base_width=64), model)
    assert (given["down"].learning_rate, given["down"].weight_decay) == (1 / 4, 4)
    assert (in_proportion["down"].learning_rate, in_proportion["down"].weight_decay) == (1 / 2, 2)
    assert given["down"].init_std == in_proportion["down"].init_std == HIDDEN_GAIN * 512**-0.5
    assert given["down"].epsilon == in_proportion["down"].epsilon == 1 / 2
    # Under Muon: at the base the longer side is 128. Outputs grow half as fast as
    # inputs.
    assert given["down"].muon_rate == pytest.approx((128 / 512 * 2 / 4) ** 0.5)
    assert in_proportion["down"].muon_rate == pytest.approx(2**-0.5)
    del given["down"], in_proportion["down"]
    assert given == in_proportion
    assert given["gate"].learning_rate == given["output"].learning_rate == 1 / 2


def test_attention_products_shrink_as_one_over_head_size_if_heads_grow_in_size():
    sizes = [Model.sized(width=4 * h, depth=1, vocabulary=2, head_size=h) for h in (16, 64)]
    growing = [
        attention_multiplier(mup(base_width=64, base_head_size=16), model) for model in sizes
    ]
    at_one_size = [attention_multiplier(mup(base_width=64), model) for model in sizes]
    assert growing == [1 / 4, 1 / 16] and at_one_size == [1 / 4, 1 / 8]


def test_learning_rate_times_weight_decay_of_a_matrix_is_constant_in_width_and_depth():
    parametrization = completep(base_width=64, base_depth=2, base_mlp_width=100)
    rows = [
        rows_by_tensor(
            parametrization, Model.sized(width=w, depth=w // 16, vocabulary=64, head_size=16)
        )
        for w in (32, 64, 256)
    ]
    for name in rows[0]:
        products = [row[name].learning_rate * row[name].weight_decay for row in rows]
        # The embedding and the gains of norms are not decayed.
        expected = 0.0 if name in ("embedding", "final norm") else 1.0
        assert products == pytest.approx([expected] * 3, abs=1e-12), name


@pytest.mark.parametrize("decay", ["independent", "standard"])
def test_a_step_without_gradient_shrinks_a_matrix_by_the_same_share_at_every_size(decay, tiny_run):
    decaying = dataclasses.replace(
        tiny_run.optimizer, learning_rate=0.01, weight_decay=0.1, decay=decay
    )
    numbers = hyperparameters(tiny_run.replace(optimizer=decaying))
    parametrization = completep(base_width=64, base_depth=2)

    def updates_of_ones(width: int) -> dict[str, float]:
        model = Model.sized(width=width, depth=width // 16, vocabulary=64, head_size=16)
        _, specs = abstract(model, parametrization)
        rows = scalings(specs, parametrization, model)
        rule = optimizer(
            "adamw", numbers, jnp.float32(0.005), specs=specs, scalings=rows, decay=decay
        )
        params: Params = jax.tree.map(lambda spec: jnp.ones(spec.shape), specs)
        gradients = jax.tree.map(jnp.zeros_like, params)
        tree, _ = rule.update(gradients, rule.init(params), params)
        updates = cast(Params, tree)
        block = updates["blocks"][0]
        outside = {"head": updates["head"], "embedding": updates["embedding"]}
        tensors = {**block["mlp"], **block["attention"], **outside}
        return {name: float(np.unique(update).item()) for name, update in tensors.items()}

    small, large = updates_of_ones(32), updates_of_ones(64)
    # independent: rate / peak x weight_decay. standard: rate x weight_decay.
    share = {"independent": -0.05, "standard": -0.0005}[decay]
    assert small == pytest.approx(large, rel=1e-6)
    assert small["down"] == small["query"] == small["head"] == pytest.approx(share, rel=1e-6)
    assert small["embedding"] == 0


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
def test_a_base_that_is_missing_or_not_used_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Parametrization(**fields)
