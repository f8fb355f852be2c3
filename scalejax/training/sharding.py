"""Device meshes, and how the training state and the batch are split over them.

`scalejax.model.layout` explains the axes of the mesh.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scalejax.config import Placement
from scalejax.model.layout import MESH_AXES, Layout
from scalejax.model.parameters import Params, Spec

State = TypeVar("State")


def make_mesh(placement: Placement) -> Mesh:
    """The mesh with axes data, fsdp, tensor over the first devices that JAX sees.

    On many hosts these are the devices of all processes, and all of them must be used.

    Raises ValueError when the number of devices is not what the placement needs.
    """
    sizes = {"data": placement.data, "fsdp": placement.fsdp, "tensor": placement.tensor}
    needed, devices = placement.devices, jax.devices()
    if needed > len(devices):
        product = " x ".join(f"{name} {size}" for name, size in sizes.items())
        each = -(-needed // jax.process_count())
        # Workers of `scalejax run` and `work` have the flag already.
        virtual = (
            f", or start Python with XLA_FLAGS=--xla_force_host_platform_device_count={each}"
            if devices[0].platform == "cpu"
            else ""
        )
        raise ValueError(
            f"Placement needs {product} = {needed} devices; this process sees {len(devices)} "
            f"({devices[0].platform}): lower data, fsdp or tensor{virtual}"
        )
    if needed < len(devices) and jax.process_count() > 1:
        raise ValueError(
            f"Placement uses {needed} devices, but the {jax.process_count()} processes of this "
            f"job have {len(devices)}: raise data, fsdp or tensor, or start fewer processes"
        )
    return mesh_over(devices[:needed], sizes)


def mesh_over(devices: Sequence[Any], sizes: dict[str, int]) -> Mesh:
    """The mesh with these axes over exactly these devices, which may be abstract."""
    if devices[0].platform == "tpu":
        # Neighbours in the mesh are neighbours in the torus of chips. An axis that is
        # no product of the torus's sides, such as 64 of 16 x 16, takes a part of a
        # side.
        grid = mesh_utils.create_device_mesh(
            tuple(sizes.values()), devices=devices, allow_split_physical_axes=True
        )
    else:
        grid = np.asarray(devices).reshape(*sizes.values())
    # Under the axis type Auto, XLA chooses the sharding of intermediate arrays and
    # inserts the collectives.
    return Mesh(grid, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def parameter_shardings(mesh: Mesh, specs: Params) -> Params:
    """The sharding of every parameter, from its logical axes."""
    layout = Layout(mesh)

    def sharding(spec: Spec) -> NamedSharding:
        # Norm gains are small and every device needs them: splitting them would cost a
        # gather.
        return replicated(mesh) if spec.is_gain else layout.sharding(spec.axes, spec.shape)

    return jax.tree.map(sharding, specs)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of rows [b, t + 1]: the sequences are split over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(MESH_AXES["batch"]))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(mesh: Mesh, state: State, shardings: Params) -> State:
    """Shardings for a state that contains copies of the parameters.

    A copy, such as a moment of Adam, has the sharding of its parameter. It is
    recognized by its path, which ends with the parameter's:
    `.optimizer_state['adam'].mu['head']`. All other arrays are replicated; most of them
    are scalars.
    """
    by_path = dict(jax.tree.leaves_with_path(shardings))

    def sharding(path: tuple[Any, ...], _: Any) -> NamedSharding:
        for start in range(len(path)):
            if path[start:] in by_path:
                return by_path[path[start:]]
        return replicated(mesh)

    return jax.tree.map_with_path(sharding, state)
