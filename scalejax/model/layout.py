"""How the arrays of a network are split over the devices of a mesh.

Every axis of a parameter or an activation has a logical name: `width`, `heads`, `batch`
and so on. One table, `MESH_AXES`, maps these names to the axes of the mesh:

    data     splits the batch; every part has its own copy of the parameters
    fsdp     splits the batch further, and the parameters along `width`
    tensor   splits attention heads, MLP and vocabulary

The axes of an array are mapped from left to right, and a mesh axis is used only once
per array. A weight [width, mlp_width] is therefore split over (fsdp, tensor), and the
residual stream [batch, position, width] over (data and fsdp, -, -): its batch has taken
fsdp already. A device thus computes on its own sequences with weights that XLA gathers
over fsdp just before they are used. Heads are independent of each other, and so are the
hidden features of the MLP: tensor parallelism communicates only where the two add up to
the residual stream again, and in the softmax over the vocabulary.

Activations need constraints. Without them XLA derives their split from that of the
parameters, and on an fsdp mesh it then gathers the whole batch on every device: with 8
devices they exchange 36 times the bytes.

Two sizes need not be divisible by `tensor`. Key and value heads are repeated until they
are, and their parameters are not split over tensor. The same holds for the parameters
of a vocabulary; its logits are padded, and the padding is -inf. Every other size must
be divisible (`scalejax.config.placement.check_placement`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

# Logical axis -> the mesh axes that split it; an axis that is not listed is not split.
MESH_AXES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "width": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp_width": ("tensor",),
    "vocabulary": ("tensor",),
}

# Logical axes that are left whole when the mesh does not divide them.
WHOLE_IF_UNEVEN = ("kv_heads", "vocabulary")

# Value of `Placement.remat` -> what the forward pass of a block keeps for the backward
# pass besides the block's input.
REMAT_POLICIES: dict[str, Callable[..., bool]] = {
    "block": jax.checkpoint_policies.nothing_saveable,
    # The products with weights, which are the expensive ones, and not those of
    # attention, which are large: [t, t] per head.
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclass(frozen=True)
class Layout:
    """How a network executes: split over devices, and with how much memory.

    It changes neither the parameters nor, up to rounding, any result.
    """

    mesh: Mesh | None = None
    """A mesh with the axes data, fsdp and tensor; None for a single device."""
    remat: str = "none"
    """What the backward pass computes again: `Placement.remat`."""
    scan_layers: bool = False
    """Whether all blocks are one compiled loop: `Placement.scan_layers`."""

    @property
    def is_split(self) -> bool:
        """Whether there is more than one device.

        On a single device a constraint could only hinder the compiler.
        """
        return self.mesh is not None and self.mesh.size > 1

    @property
    def platform(self) -> str:
        """The platform of the devices, such as `tpu`; `cpu` without a mesh.

        A mesh may consist of devices that this process does not have: a step can be
        compiled for them all the same.
        """
        return "cpu" if self.mesh is None else self.mesh.devices.flat[0].platform

    def parts(self, axis: str) -> int:
        """Into how many parts the mesh splits a logical axis."""
        if self.mesh is None:
            return 1
        return math.prod(self.mesh.shape[name] for name in MESH_AXES.get(axis, ()))

    def sharding(self, axes: tuple[str, ...], shape: tuple[int, ...]) -> NamedSharding:
        """The sharding of an array with these logical axes and this shape."""
        assert self.mesh is not None
        used: set[str] = set()
        entries: list[str | tuple[str, ...] | None] = []
        for axis, size in zip(axes, shape, strict=True):
            uneven = size % self.parts(axis) != 0 and axis in WHOLE_IF_UNEVEN
            names = () if uneven else MESH_AXES.get(axis, ())
            free = tuple(name for name in names if name not in used)
            used.update(free)
            entries.append(free[0] if len(free) == 1 else free or None)
        return NamedSharding(self.mesh, PartitionSpec(*entries))

    def shard_size(self, axes: tuple[str, ...], shape: tuple[int, ...]) -> int:
        """Number of elements of an array that one device holds."""
        if not self.is_split:
            return math.prod(shape)
        return math.prod(self.sharding(axes, shape).shard_shape(shape))

    def constrain(self, x: Shaped[Array, "..."], *axes: str) -> Shaped[Array, "..."]:
        """Split `x`, an intermediate array, as its logical axes say.

        An empty name leaves an axis whole; without any names, every device holds all of
        `x`.
        """
        if not self.is_split:
            return x
        sharding = self.sharding(axes or ("",) * x.ndim, x.shape)
        return jax.lax.with_sharding_constraint(x, sharding)

    def on_each_device(self, function: Callable[..., Array], *axes: tuple[str, ...]):
        """Apply `function` to the part of its arguments that each device holds.

        axes: the logical axes of every argument.

        The function treats sequences and heads independently, and its result is split
        like its first argument. XLA need not know how to split such a function, which
        may be a kernel.
        """
        if not self.is_split:
            return function
        specs = tuple(
            PartitionSpec(*(MESH_AXES.get(axis) for axis in argument)) for argument in axes
        )
        # The check would refuse loops that start from constants, and it only guards the
        # gradients of arguments that some mesh axis does not split; there are none.
        return jax.shard_map(
            function, mesh=self.mesh, in_specs=specs, out_specs=specs[0], check_vma=False
        )

    def rematerialized(self, function: Callable) -> Callable:
        """`function`, keeping for its backward pass only what `remat` allows."""
        if self.remat == "none":
            return function
        # Inside a loop XLA cannot merge the second forward pass with the first one, and
        # need not be prevented from it.
        return jax.checkpoint(
            function, policy=REMAT_POLICIES[self.remat], prevent_cse=not self.scan_layers
        )
