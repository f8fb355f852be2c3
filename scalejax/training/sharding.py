"""Device meshes, and how every array is split over them.

A parameter declares logical axes (`width`, `heads`, ...; see model/parameters.py). This
file maps them to the axes of the mesh:

    data     splits the batch; parameters are replicated
    fsdp     splits the batch, and the parameters too
    tensor   splits attention heads, MLP and vocabulary
"""

import math
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scalejax.config import Placement
from scalejax.model.parameters import Params, Spec
from scalejax.model.transformer import ActivationShardings

State = TypeVar("State")

# Logical axis of a parameter -> the mesh axis that splits it; None: not split.
#
# Every matrix has one axis `width`, which fsdp splits, and one more, which tensor
# splits. Heads are independent of each other and so are the MLP's hidden features:
# between two matrices of a block, tensor parallelism therefore needs no communication.
MESH_AXES: dict[str, str | None] = {
    "vocabulary": "tensor",
    "width": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_size": None,
    "mlp_width": "tensor",
}

# Mesh axes that split the sequences of a batch.
BATCH_AXES = ("data", "fsdp")


def make_mesh(placement: Placement) -> Mesh:
    """The mesh with axes data, fsdp, tensor over the first devices that JAX sees.

    On many hosts these are the devices of all processes, and all of them must be used.

    Raises ValueError when the number of devices is not what the placement needs.
    """
    sizes = {"data": placement.data, "fsdp": placement.fsdp, "tensor": placement.tensor}
    needed, devices = math.prod(sizes.values()), jax.devices()
    if needed > len(devices):
        product = " x ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(
            f"Placement needs {product} = {needed} devices; this process sees {len(devices)} "
            f"({devices[0].platform}): lower data, fsdp or tensor"
        )
    if needed < len(devices) and jax.process_count() > 1:
        raise ValueError(
            f"Placement uses {needed} devices, but the {jax.process_count()} processes of this "
            f"job have {len(devices)}: raise data, fsdp or tensor, or start fewer processes"
        )
    grid = np.asarray(devices[:needed]).reshape(*sizes.values())
    # Under the axis type Auto, XLA chooses the sharding of intermediate arrays and
    # inserts the collectives.
    return Mesh(grid, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def parameter_shardings(mesh: Mesh, specs: Params) -> Params:
    """The sharding of every parameter, from its logical axes.

    Raises ValueError when the size of a mesh axis does not divide the axis that it
    splits.
    """
    return jax.tree.map(lambda spec: _parameter_sharding(mesh, spec), specs)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of rows [b, t + 1]: the sequences are split over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def activation_shardings(mesh: Mesh) -> ActivationShardings | None:
    """How activations are split: the residual stream by sequences, like the batch.

    Tokens are looked up in a whole copy of the embedding: a gather from a split table
    would make XLA gather its result, which is larger. None for a single device.
    """
    if mesh.size == 1:
        return None
    return ActivationShardings(batch_sharding(mesh), replicated(mesh))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(mesh: Mesh, state: State, shardings: Params) -> State:
    """Shardings for a state that contains copies of the parameters, such as Adam's
    moments.

    A copy has the sharding of its parameter. It is recognized by its path, which ends
    with the parameter's: `.optimizer_state['adam'].mu['head']`. All other arrays are
    replicated; most of them are scalars.
    """
    by_path = dict(jax.tree.leaves_with_path(shardings))

    def sharding(path: tuple[Any, ...], _: Any) -> NamedSharding:
        for start in range(len(path)):
            if path[start:] in by_path:
                return by_path[path[start:]]
        return replicated(mesh)

    return jax.tree.map_with_path(sharding, state)


def _parameter_sharding(mesh: Mesh, spec: Spec) -> NamedSharding:
    # Norm gains are small and every device needs them: splitting them would cost a
    # gather.
    if spec.is_gain:
        return replicated(mesh)
    names = [MESH_AXES[axis] for axis in spec.axes]
    for axis, size, name in zip(spec.axes, spec.shape, names, strict=True):
        if name is not None and size % mesh.shape[name]:
            raise ValueError(
                f"Placement.{name} {mesh.shape[name]} does not divide the model's {axis} of {size}"
            )
    return NamedSharding(mesh, PartitionSpec(*names))
