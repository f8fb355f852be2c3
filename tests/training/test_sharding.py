"""Meshes and shardings (mirrors scalejax/training/sharding.py)."""

import jax
import pytest
from jax.sharding import AxisType, PartitionSpec

from scalejax.config import Model, Placement
from scalejax.model.parametrization import standard
from scalejax.model.transformer import abstract
from scalejax.training.sharding import make_mesh, parameter_shardings
from scalejax.training.step import init_state

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
