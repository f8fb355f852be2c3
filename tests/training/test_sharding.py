"""Meshes and shardings (mirrors scalejax/training/sharding.py)."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

from scalejax.config import Data, Model, Optimizer, Placement, Run
from scalejax.model.parametrization import standard
from scalejax.model.transformer import abstract
from scalejax.optim.schedules import constant
from scalejax.training.sharding import make_mesh, parameter_shardings
from scalejax.training.step import init_state, make_train_step

MODEL = Model(width=32, depth=1, heads=4, kv_heads=2, head_size=8, mlp_width=64, vocabulary=64)
eight_devices = pytest.mark.skipif(
    len(jax.devices()) < 8, reason="needs 8 devices, virtual ones will do"
)


def shardings_of(tree):
    return jax.tree.map(lambda array: array.sharding, tree)


def test_a_mesh_names_its_axes_and_leaves_collectives_to_xla():
    mesh = make_mesh(Placement())
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 1}
    assert mesh.axis_types == (AxisType.Auto,) * 3


def test_a_mesh_of_too_many_devices_is_refused_with_their_number():
    devices = len(jax.devices())
    message = (
        rf"data 2 x fsdp {devices} x tensor 1 = {2 * devices} devices; "
        f"this process sees {devices}"
    )
    with pytest.raises(ValueError, match=message):
        make_mesh(Placement(data=2, fsdp=devices))


@eight_devices
def test_matrices_are_split_over_fsdp_and_tensor_and_moments_like_their_parameters(tiny_run):
    mesh = make_mesh(Placement(data=2, fsdp=2, tensor=2))
    state = init_state(tiny_run.replace(model=MODEL), mesh)
    block = state.params["blocks"][0]
    assert block["mlp"]["gate"].sharding.spec == PartitionSpec("fsdp", "tensor")
    assert block["attention"]["output"].sharding.spec == PartitionSpec("tensor", None, "fsdp")
    assert state.params["embedding"].sharding.spec == PartitionSpec("tensor", "fsdp")
    assert state.params["embedding"].addressable_shards[0].data.shape == (32, 16)
    assert block["mlp_norm"]["gain"].sharding.is_fully_replicated

    moments = state.optimizer_state["adam"]
    assert shardings_of(moments.mu) == shardings_of(state.params)
    assert shardings_of(moments.nu) == shardings_of(state.params)
    assert moments.count.sharding.is_fully_replicated


@eight_devices
def test_a_mesh_axis_that_does_not_divide_a_tensor_is_refused_by_name():
    _, specs = abstract(MODEL, standard())
    with pytest.raises(ValueError, match="tensor 4 does not divide the model's kv_heads of 2"):
        parameter_shardings(make_mesh(Placement(tensor=4)), specs)


def compiled_step(**axes: int) -> "jax.stages.Compiled":
    """The training step of a small model on a mesh, compiled for 64 x 128 tokens."""
    run = Run(
        model=Model.sized(width=128, depth=2, head_size=32, vocabulary=512),
        data=Data(source="synthetic:512", tokenizer="own", sequence_length=128),
        optimizer=Optimizer(learning_rate=0.01),
        schedule=constant(warmup=0),
        tokens=64 * 128,
        batch_tokens=64 * 128,
    )
    mesh = make_mesh(Placement(**axes))
    state = jax.eval_shape(lambda: init_state(run, mesh))
    rows = jax.ShapeDtypeStruct((64, 129), jnp.int32)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    # The public type of a step is a function; only the jitted one can be lowered.
    step: Any = make_train_step(run, mesh)
    return step.lower(state, rows, rate).compile()


def flops(compiled: "jax.stages.Compiled") -> float:
    """FLOPs of one device in a step, as XLA counts them."""
    analysis = compiled.cost_analysis()
    assert analysis is not None
    return analysis["flops"]


def collective_bytes(compiled: "jax.stages.Compiled") -> dict[str, int]:
    """Bytes that one device receives in a step, by kind of collective."""
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    total: dict[str, int] = {}
    for line in re.finditer(rf"= (.*?) ({kinds})(?:-start)?\(", compiled.as_text() or ""):
        shapes = re.findall(r"\w+\[([\d,]*)\]", line[1])
        sizes = [math.prod(int(n) for n in shape.split(",") if n) for shape in shapes]
        total[line[2]] = total.get(line[2], 0) + 4 * sum(sizes)
    return total


@eight_devices
def test_under_fsdp_a_device_computes_and_exchanges_only_its_share():
    """Without constraints on activations, fsdp computes 1.9 times the FLOPs of data
    parallelism and all-reduces activations: 50 times the bytes."""
    data, fsdp = compiled_step(data=8), compiled_step(fsdp=8)
    assert flops(fsdp) <= 1.1 * flops(data)
    # Data parallelism all-reduces the gradient once: 4 bytes per parameter.
    param_bytes = collective_bytes(data)["all-reduce"]
    assert sum(collective_bytes(fsdp).values()) <= 3.2 * param_bytes


@eight_devices
def test_a_mixed_mesh_computes_no_more_than_data_parallelism():
    mixed, data = compiled_step(data=2, fsdp=2, tensor=2), compiled_step(data=8)
    assert flops(mixed) <= 1.1 * flops(data)
