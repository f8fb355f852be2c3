"""Estimates of memory (mirrors scalejax/model/memory.py)."""

import jax
import pytest

from scalejax.config import Optimizer, Placement
from scalejax.model.memory import state_bytes
from scalejax.optim.averaging import ema
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state


@pytest.mark.parametrize("name", ["adamw", "lion", "schedule-free-adamw"])
def test_the_bytes_of_a_checkpoint_are_those_of_the_state(name, tiny_run):
    averages = (ema(half_life_tokens=640),)
    run = tiny_run.replace(optimizer=Optimizer(name=name, learning_rate=0.01))
    state = jax.eval_shape(lambda: init_state(run, make_mesh(Placement()), averages))
    exact = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    # Counters and hyperparameters are a few numbers more.
    assert state_bytes(run, 1) == pytest.approx(exact, rel=0.01)
