"""Meshes, and where every array lies on them."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scalejax.config import Placement
from scalejax.model.parameters import Params, Spec

RULES: dict[str, str | None] = {  # logical axis of a parameter -> mesh axis
    "vocabulary": "tensor",
    "width": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_size": None,
    "mlp_width": "tensor",
}
BATCH_AXES = ("data", "fsdp")
"""Mesh axes over which the sequences of a batch are split."""


def make_mesh(placement: Placement) -> Mesh:
    """Mesh with the axes data, fsdp, tensor over the first devices; XLA places the collectives (axis type Auto).

    Raises ValueError when there are fewer devices than the placement asks for.
    """
    sizes = {"data": placement.data, "fsdp": placement.fsdp, "tensor": placement.tensor}
    wanted, devices = math.prod(sizes.values()), jax.devices()
    if wanted > len(devices):
        product = " x ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(
            f"Placement wants {product} = {wanted} devices; this process sees {len(devices)} ({devices[0].platform}): "
            "lower data, fsdp or tensor"
        )
    grid = np.asarray(devices[:wanted]).reshape(*sizes.values())
    return Mesh(grid, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def parameter_shardings(mesh: Mesh, specs: Params) -> Params:
    """The sharding of every parameter, by RULES.

    Raises ValueError where a mesh axis does not divide the tensor's axis.
    """
    return jax.tree.map(lambda spec: _parameter_sharding(mesh, spec), specs)


def _parameter_sharding(mesh: Mesh, spec: Spec) -> NamedSharding:
    if spec.is_gain:
        return replicated(mesh)
    names = [RULES[axis] for axis in spec.axes]
    for axis, size, name in zip(spec.axes, spec.shape, names, strict=True):
        if name is not None and size % mesh.shape[name]:
            raise ValueError(
                f"Placement.{name} {mesh.shape[name]} does not divide the model's {axis} of {size}"
            )
    return NamedSharding(mesh, PartitionSpec(*names))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of rows [sequences, length + 1]: sequences over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def like_parameters(mesh: Mesh, tree: Any, shardings: Params) -> Any:
    """Shardings for a tree that holds copies of the parameters, or of some of them: moments and averages lie as these do.

    An array is a copy when its path ends with that of a parameter; whatever else there is, scalars mostly, is on every device.
    """
    by_path = dict(jax.tree.leaves_with_path(shardings))

    def sharding(path: tuple[Any, ...], _: Any) -> NamedSharding:
        ends = (path[start:] for start in range(len(path)))
        return next((by_path[end] for end in ends if end in by_path), replicated(mesh))

    return jax.tree.map_with_path(sharding, tree)
