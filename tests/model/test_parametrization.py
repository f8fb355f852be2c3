"""The muP table (mirrors scalejax/model/parametrization.py), and a short coordinate check of what it promises."""

from typing import get_args

import jax
import numpy as np
import pytest
from flax import nnx

from scalejax.config import Data, Model, Optimizer, Placement, Run
from scalejax.model.parametrization import HIDDEN_GAIN, Role, mup, output_multiplier, scaling, standard
from scalejax.model.transformer import abstract
from scalejax.optim.schedules import constant
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state, make_train_step

ROLES = get_args(Role)


@pytest.mark.parametrize("role", ROLES)
def test_at_the_base_width_mup_is_standard(role):
    at_base = scaling(mup(base_width=64), role=role, fan_in=64, width=64)
    assert at_base == scaling(standard(), role=role, fan_in=64, width=64)
    assert output_multiplier(mup(base_width=64), 64) == output_multiplier(standard(), 64) == 1


def test_at_four_times_the_base_width_the_table_is_yangs():
    rows = {role: scaling(mup(base_width=64), role=role, fan_in=256, width=256) for role in ROLES}
    assert {role: row.learning_rate for role, row in rows.items()} == dict.fromkeys(ROLES, 1) | {"hidden": 1 / 4}
    assert {role: row.epsilon for role, row in rows.items()} == dict.fromkeys(ROLES, 1 / 4)
    assert rows["hidden"].init_std == HIDDEN_GAIN / 16
    assert rows["output"].init_std == scaling(standard(), role="output", fan_in=64, width=64).init_std
    assert output_multiplier(mup(base_width=64), 256) == 1 / 4


def test_learning_rate_times_weight_decay_of_a_matrix_is_constant_in_width():
    products = {w: scaling(mup(base_width=64), role="hidden", fan_in=w, width=w) for w in (32, 64, 256)}
    assert {row.learning_rate * row.weight_decay for row in products.values()} == {1.0}


def changes(parametrization, width: int) -> np.ndarray:
    """rms over tokens and features of the change of (hidden, logits) in 10 steps at a large rate."""
    mesh, rows = make_mesh(Placement()), np.random.default_rng(0).integers(0, 64, (8, 33)).astype(np.int32)
    run = Run(
        model=Model.sized(width=width, depth=1, vocabulary=64, head_size=16),
        data=Data(sequence_length=32),
        tokens=2560,
        batch_tokens=256,
        optimizer=Optimizer(learning_rate=0.01, clip=0.0),
        schedule=constant(warmup=0),
        parametrization=parametrization,
    )
    graphdef, _ = abstract(run.model, run.parametrization)

    @jax.jit
    def activations(params):
        model = nnx.merge(graphdef, params)
        hidden = model.hidden(rows[:, :-1])
        return hidden, model.logits(hidden)

    state, step = init_state(run, mesh), make_train_step(run, mesh)
    before = activations(state.params)
    for _ in range(10):
        state, _ = step(state, rows, np.float32(0.01))
    return np.asarray([np.sqrt(np.mean((b - a) ** 2)) for a, b in zip(before, activations(state.params), strict=True)])


def slopes(parametrization) -> np.ndarray:
    """Exponents of width in the changes of (hidden, logits), between widths 128 and 512."""
    return np.log(changes(parametrization, 512) / changes(parametrization, 128)) / np.log(4)


@pytest.mark.slow
def test_activations_move_alike_at_every_width_under_mup_and_grow_under_standard():
    under_mup, under_standard = slopes(mup(base_width=64)), slopes(standard())
    assert np.all(np.abs(under_mup) < 0.15), under_mup
    assert under_standard[1] > 0.3, f"logits do not grow under standard ({under_standard}): this test could not fail"
