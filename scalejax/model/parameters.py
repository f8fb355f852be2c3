"""Declarations of the model's tensors, and what follows from them.

Every tensor is declared once: its shape, its logical axes, its role and its fan-in.
Initial values, shardings, the multipliers of muP, the weight-decay mask and parameter
counts are all derived from these declarations.
"""

import math
import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from scalejax.config import Model, Parametrization
from scalejax.model.parametrization import Role, Scaling, scaling

# Nested dicts of arrays, keyed by the attribute names of the modules and, for the
# blocks, by their index. Checkpoints hold parameters in this form.
Params = dict[str, Any]

# The same nested dicts with a Spec, or a Scaling, in place of each array.
Specs = dict[str, Any]
Scalings = dict[str, Any]


@dataclass(frozen=True)
class Spec:
    """The declaration of one tensor."""

    shape: tuple[int, ...]
    """Size of every axis. Kernels have shape (inputs..., outputs...)."""
    axes: tuple[str, ...]
    """Logical name of every axis, from which shardings follow: vocabulary, width,
    heads, kv_heads, head_size or mlp_width."""
    role: Role
    """Row of the table in `scalejax.model.parametrization`."""
    fan_in: int
    """Number of inputs that are summed into one output."""

    def __post_init__(self):
        if len(self.shape) != len(self.axes):
            raise ValueError(
                f"a tensor of shape {self.shape} needs {len(self.shape)} axis names; "
                f"got {self.axes}"
            )

    @property
    def is_gain(self) -> bool:
        """Whether this is the gain of a norm, a vector that starts at 1."""
        return self.role in ("norm", "block_norm")


def declare(role: Role, *, fan_in: int, **axes: int) -> nnx.Param:
    """Declare a float32 parameter without allocating it.

    `axes` maps the logical name of every axis to its size, in order.

    >>> declare("hidden", fan_in=64, width=64, mlp_width=176).spec
    Spec(shape=(64, 176), axes=('width', 'mlp_width'), role='hidden', fan_in=64)
    """
    spec = Spec(shape=tuple(axes.values()), axes=tuple(axes), role=role, fan_in=fan_in)
    return nnx.Param(jax.ShapeDtypeStruct(spec.shape, jnp.float32), spec=spec)


def specs_of(module: nnx.Module) -> Specs:
    """The declarations of a module's parameters, in the nesting of its parameters."""
    state = nnx.state(module, nnx.Param)
    return nnx.to_pure_dict(
        jax.tree.map(lambda parameter: parameter.spec, state, is_leaf=_is_parameter)
    )


def _is_parameter(node: object) -> bool:
    return isinstance(node, nnx.Variable)


def scalings(specs: Specs, parametrization: Parametrization, model: Model) -> Scalings:
    """The initial std and the multipliers of every tensor under the parametrization."""

    def scaling_of(spec: Spec) -> Scaling:
        return scaling(
            parametrization,
            model,
            role=spec.role,
            fan_in=spec.fan_in,
            input_axis=spec.axes[0],
            fan_out=math.prod(spec.shape) // spec.fan_in,
            output_axis=spec.axes[-1],
        )

    return jax.tree.map(scaling_of, specs)


def initial_values(specs: Specs, scalings: Scalings, key: jax.Array) -> Params:
    """Draw every tensor from a normal distribution; the gains of norms start at 1.

    The std of each tensor is its `Scaling.init_std`. Each tensor has its own key, `key`
    folded with a hash of the tensor's path, so adding a tensor to the model does not
    change the initial values of the others.
    """
    paths_and_specs, structure = jax.tree_util.tree_flatten_with_path(specs)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths_and_specs]
    leaves: list[Spec] = [spec for _, spec in paths_and_specs]
    stds = [row.init_std for row in structure.flatten_up_to(scalings)]

    sizes = {
        name: math.prod(spec.shape)
        for name, spec in zip(names, leaves, strict=True)
        if not spec.is_gain
    }
    draws = _standard_normals(sizes, key)

    values = []
    for name, spec, std in zip(names, leaves, stds, strict=True):
        if spec.is_gain:
            values.append(jnp.ones(spec.shape, jnp.float32))
        else:
            values.append(std * draws[name].reshape(spec.shape))
    return jax.tree.unflatten(structure, values)


def _standard_normals(sizes: dict[str, int], key: jax.Array) -> dict[str, jax.Array]:
    """Standard normal vectors of the given sizes, each drawn from its own named key."""
    draws: dict[str, jax.Array] = {}
    # One vectorized draw for all tensors of a size: this halves the compile time,
    # because the blocks of a model hold the same few sizes over and over.
    for size in sorted(set(sizes.values())):
        names = [name for name in sizes if sizes[name] == size]
        hashes = jnp.asarray([_hash(name) for name in names])
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, hashes)
        values = jax.vmap(lambda key, size=size: jax.random.normal(key, (size,)))(keys)
        draws |= dict(zip(names, values, strict=True))
    return draws


def named_key(key: jax.Array, name: str) -> jax.Array:
    """Fold a hash of `name` into `key`, the same in every process."""
    return jax.random.fold_in(key, _hash(name))


def _hash(name: str) -> np.uint32:
    # Python's own hash() of a string changes from process to process.
    return np.uint32(zlib.crc32(name.encode()))


class Counts(NamedTuple):
    """Numbers of parameters, by the conventions of the scaling-law literature."""

    params: int
    """All trainable parameters; a tied head counts once."""
    params_non_embedding: int
    """Without embedding, head and norms (Kaplan et al. 2020)."""
    params_with_head: int
    """Non-embedding parameters plus the head matrix, whether tied or not (Hoffmann et
    al. 2022 as counted by Porian et al. 2024)."""


def count(specs: Specs, model: Model) -> Counts:
    """Count the parameters of a model with these declarations."""
    leaves: list[Spec] = jax.tree.leaves(specs)
    hidden = sum(math.prod(spec.shape) for spec in leaves if spec.role == "hidden")
    return Counts(
        params=sum(math.prod(spec.shape) for spec in leaves),
        params_non_embedding=hidden,
        params_with_head=hidden + model.width * model.vocabulary,
    )
