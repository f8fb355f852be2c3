"""One declaration per tensor; initial values, multipliers, masks and counts follow from it."""

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

Params = dict[str, Any]
"""Nested dicts of arrays under the names that the modules give them; what a checkpoint holds."""


@dataclass(frozen=True)
class Spec:
    """All there is to say about one tensor."""

    shape: tuple[int, ...]
    """Sizes."""
    axes: tuple[str, ...]
    """Logical name of every axis: vocabulary, width, heads, kv_heads, head_size, mlp_width. Shardings follow from them."""
    role: Role
    """Row of the parametrization's table."""
    fan_in: int
    """Number of inputs summed into one output."""

    @property
    def reads(self) -> str:
        """The axis that its inputs lie along: kernels are (in.., out..)."""
        return self.axes[0]

    @property
    def is_gain(self) -> bool:
        """Whether it multiplies feature by feature: starts at 1, is no matrix."""
        return self.role in ("norm", "block_norm")

    def __post_init__(self):
        if len(self.shape) != len(self.axes):
            raise ValueError(
                f"a tensor of shape {self.shape} needs {len(self.shape)} axis names; got {self.axes}"
            )


def declare(role: Role, *, fan_in: int, **axes: int) -> nnx.Param:
    """A float32 parameter without values yet; `axes` are its logical axes and their sizes, in order.

    >>> declare("hidden", fan_in=64, width=64, mlp_width=176).spec
    Spec(shape=(64, 176), axes=('width', 'mlp_width'), role='hidden', fan_in=64)
    """
    spec = Spec(shape=tuple(axes.values()), axes=tuple(axes), role=role, fan_in=fan_in)
    return nnx.Param(jax.ShapeDtypeStruct(spec.shape, jnp.float32), spec=spec)


def specs_of(module: nnx.Module) -> Params:
    """The declarations of a module's parameters, as nested dicts like its values."""
    state = nnx.state(module, nnx.Param)
    return nnx.to_pure_dict(
        jax.tree.map(lambda parameter: parameter.spec, state, is_leaf=_is_parameter)
    )


def _is_parameter(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def scalings(specs: Params, parametrization: Parametrization, model: Model) -> Params:
    """The parametrization's row for every tensor."""

    def row(spec: Spec) -> Scaling:
        return scaling(parametrization, model, role=spec.role, fan_in=spec.fan_in, reads=spec.reads)

    return jax.tree.map(row, specs)


def initial_values(specs: Params, rows: Params, key: jax.Array) -> Params:
    """Normal values of the std that `rows` (see `scalings`) give, norm gains 1.

    Every tensor draws from `key` folded with a hash of its path, so that adding one tensor leaves the others' values alone.
    """
    paths_and_specs, structure = jax.tree_util.tree_flatten_with_path(specs)
    stds = [row.init_std for row in structure.flatten_up_to(rows)]
    specs_by_name = {
        jax.tree_util.keystr(path, simple=True, separator="/"): spec
        for path, spec in paths_and_specs
    }
    draws = _draws(
        {name: math.prod(spec.shape) for name, spec in specs_by_name.items() if not spec.is_gain},
        key,
    )

    def value(name: str, spec: Spec, std: float) -> jax.Array:
        return (
            jnp.ones(spec.shape, jnp.float32)
            if spec.is_gain
            else std * draws[name].reshape(spec.shape)
        )

    values = [
        value(name, spec, std)
        for (name, spec), std in zip(specs_by_name.items(), stds, strict=True)
    ]
    return jax.tree.unflatten(structure, values)


def _draws(sizes: dict[str, int], key: jax.Array) -> dict[str, jax.Array]:
    """Standard normal vectors, each from its own named key; grouped by size, which halves the time to compile."""
    draws = {}
    for size in sorted(set(sizes.values())):
        names = [name for name in sizes if sizes[name] == size]
        keys = jax.vmap(jax.random.fold_in, (None, 0))(
            key, jnp.asarray([_hash(name) for name in names])
        )
        values = jax.vmap(lambda key, size=size: jax.random.normal(key, (size,)))(keys)
        draws |= dict(zip(names, values, strict=True))
    return draws


def named_key(key: jax.Array, name: str) -> jax.Array:
    """`key` folded with a hash of `name`: the same on every machine and in every process."""
    return jax.random.fold_in(key, _hash(name))


def _hash(name: str) -> np.uint32:
    return np.uint32(zlib.crc32(name.encode()))


class Counts(NamedTuple):
    """Numbers of parameters, by the conventions that scaling laws use."""

    params: int
    """Every trainable number; a tied head counts once."""
    params_non_embedding: int
    """Without embedding, head and norms (Kaplan et al. 2020)."""
    params_with_head: int
    """Non-embedding plus the head matrix, tied or not (Hoffmann et al. 2022 as counted by Porian et al. 2024)."""


def count(specs: Params, model: Model) -> Counts:
    """Parameters of a model with these declarations."""
    leaves: list[Spec] = jax.tree.leaves(specs)
    hidden = sum(math.prod(spec.shape) for spec in leaves if spec.role == "hidden")
    return Counts(
        params=sum(math.prod(spec.shape) for spec in leaves),
        params_non_embedding=hidden,
        params_with_head=hidden + model.width * model.vocabulary,
    )
