"""One declaration per tensor; initial values, multipliers, masks and counts follow from it."""

import math
import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from scalejax.config import Model, Parametrization
from scalejax.model.parametrization import Role, scaling

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

    def __post_init__(self):
        if len(self.shape) != len(self.axes):
            raise ValueError(f"a tensor of shape {self.shape} needs {len(self.shape)} axis names; got {self.axes}")


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
    return nnx.to_pure_dict(jax.tree.map(lambda parameter: parameter.spec, state, is_leaf=_is_parameter))


def _is_parameter(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def scalings(specs: Params, parametrization: Parametrization, width: int) -> Params:
    """The parametrization's row for every tensor."""
    return jax.tree.map(lambda spec: scaling(parametrization, role=spec.role, fan_in=spec.fan_in, width=width), specs)


def initial_values(specs: Params, parametrization: Parametrization, width: int, key: jax.Array) -> Params:
    """Normal values of the parametrization's std, norm gains 1.

    Every tensor draws from `key` folded with a hash of its path, so that adding one tensor leaves the others' values alone.
    """
    paths_and_specs, structure = jax.tree_util.tree_flatten_with_path(specs)
    specs_by_name = {jax.tree_util.keystr(path, simple=True, separator="/"): spec for path, spec in paths_and_specs}
    draws = _draws({name: math.prod(spec.shape) for name, spec in specs_by_name.items() if spec.role != "norm"}, key)

    def value(name: str, spec: Spec) -> jax.Array:
        if spec.role == "norm":
            return jnp.ones(spec.shape, jnp.float32)
        std = scaling(parametrization, role=spec.role, fan_in=spec.fan_in, width=width).init_std
        return std * draws[name].reshape(spec.shape)

    return jax.tree.unflatten(structure, [value(name, spec) for name, spec in specs_by_name.items()])


def _draws(sizes: dict[str, int], key: jax.Array) -> dict[str, jax.Array]:
    """Standard normal vectors, each from its own named key; grouped by size, which halves the time to compile."""
    draws = {}
    for size in sorted(set(sizes.values())):
        names = [name for name in sizes if sizes[name] == size]
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray([_hash(name) for name in names]))
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
    by_role: dict[Role, int] = dict.fromkeys(get_args(Role), 0)
    for spec in jax.tree.leaves(specs):
        by_role[spec.role] += math.prod(spec.shape)
    return Counts(
        params=sum(by_role.values()),
        params_non_embedding=by_role["hidden"],
        params_with_head=by_role["hidden"] + model.width * model.vocabulary,
    )
