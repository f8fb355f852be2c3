"""The coordinate check for any Flax NNX module and any optax optimizer.

`scalejax.training.checks.coordinates` checks the model of this package. Here the caller
gives a function that builds a model and its optimizer at any width.

Index suffixes: m models, r seeds, i steps (0: before the first).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from scalejax.training.checks.coordinates import (
    CHANGE,
    FIRST_JUDGED_STEP,
    CoordinateCheck,
    measures,
)

Build = Callable[[int, nnx.Rngs], tuple[nnx.Module, optax.GradientTransformation]]


def check_modules(
    build: Build,
    loss: Callable[[Any, Any], jax.Array],
    batch: Any,
    *,
    sizes: Sequence[int],
    over: str = "width",
    steps: int = 4,
    seeds: int = 3,
) -> CoordinateCheck:
    """Train models of growing size for a few steps, and record what they compute.

    `build(size, rngs)` returns a model and its optimizer. `loss(model, batch)` returns
    a scalar; all steps read the same `batch`. Only variables of type `nnx.Param` are
    trained. `over` says what grows, in figures and messages.

    Three things are recorded by their path in the model: the outputs of all methods
    that `loss` calls, what the model stores with `sow(nnx.Intermediate, ...)`, and all
    parameters with one axis, such as the gains of norms. The last are recorded
    themselves because the effect of the matrices hides theirs on activations. What not
    all sizes have in common, such as the blocks of a deeper model, is left out.

    Choose a learning rate so large that a few steps change the model: with a small one
    no multiplier matters yet.

    >>> def build(width, rngs):
    ...     layers = nnx.Linear(4, width, rngs=rngs), nnx.Linear(width, 1, rngs=rngs)
    ...     return nnx.Sequential(*layers), optax.adam(0.01)
    >>> def loss(model, batch):
    ...     return jnp.mean((model(batch) - 1) ** 2)
    >>> check = check_modules(build, loss, jnp.eye(4), sizes=(16, 64, 256), seeds=1)
    >>> check.passed
    False
    >>> round(float(check.slopes["change of layers/1"][1]), 1)
    0.7

    Raises ValueError when there are fewer than three sizes, or if they do not ascend.
    """
    if len(sizes) < 3 or np.any(np.diff(sizes) <= 0):
        raise ValueError(
            "check_modules needs three or more ascending sizes, such as (64, 128, 256); "
            f"got {sizes}"
        )
    if steps < FIRST_JUDGED_STEP or seeds < 1:
        raise ValueError(
            f"check_modules needs at least {FIRST_JUDGED_STEP} steps and one seed; "
            f"got steps={steps}, seeds={seeds}"
        )
    trajectories_mr = [_trajectories(build, size, loss, batch, steps, seeds) for size in sizes]
    common = set.intersection(*(set(one) for of_model in trajectories_mr for one in of_model))
    # Sizes first, then changes, which are the two rows of the figure.
    names = sorted(common, key=lambda name: (name.startswith(CHANGE), name))
    values = {
        name: np.asarray([[one[name] for one in of_model] for of_model in trajectories_mr])
        for name in names
    }
    return CoordinateCheck(over=over, sizes=tuple(sizes), values=values)


def _trajectories(
    build: Build,
    size: int,
    loss: Callable[[Any, Any], jax.Array],
    batch: Any,
    steps: int,
    seeds: int,
) -> list[dict[str, np.ndarray]]:
    """What `measures` gives before training and after every step [i], for each seed."""
    # Seeds differ in values only, so that one compiled program serves all of them.
    model, optimizer = build(size, nnx.Rngs(0))
    graphdef, _, _ = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def train(params: nnx.State, others: nnx.State, batch: Any) -> dict[str, jax.Array]:
        def loss_of(params: nnx.State) -> tuple[jax.Array, dict[str, jax.Array]]:
            module = nnx.merge(graphdef, params, others)
            forward = nnx.capture(loss, nnx.Intermediate, method_outputs=nnx.Intermediate)
            value, intermediates = forward(module, batch)
            return value, _named(intermediates) | _vectors(params)

        def step(carry, _):
            params, moments = carry
            gradients, tensors = jax.grad(loss_of, has_aux=True)(params)
            updates, moments = optimizer.update(gradients, moments, params)
            return (optax.apply_updates(params, updates), moments), measures(tensors, at_start)

        at_start = loss_of(params)[1]
        # One more step than asked for: the values are taken before each step.
        return jax.lax.scan(step, (params, optimizer.init(params)), length=steps + 1)[1]

    by_seed = []
    for seed in range(seeds):
        model, _ = build(size, nnx.Rngs(seed))
        values = train(*nnx.split(model, nnx.Param, ...)[1:], batch)
        by_seed.append({name: np.asarray(x_i) for name, x_i in values.items()})
    return by_seed


def _named(intermediates: nnx.State) -> dict[str, jax.Array]:
    """Outputs that are floating-point numbers, by the path of their module.

    That of the model itself is `output`.
    """
    tensors = {}
    for path, outputs in nnx.to_flat_state(intermediates):
        # The output of `__call__` is that of the module itself.
        parts = [str(part) for part in path if part != "__call__"]
        name = "/".join(parts) or "output"
        arrays = [x for x in jax.tree.leaves(outputs) if _is_float(x)]
        # A module that is called twice has two outputs.
        for number, x in enumerate(arrays, 1):
            tensors[name if len(arrays) == 1 else f"{name} {number}"] = x
    return tensors


def _vectors(params: nnx.State) -> dict[str, jax.Array]:
    """Parameters with one axis, by their path."""
    return {
        "/".join(map(str, path)): x[...]
        for path, x in nnx.to_flat_state(params)
        if jnp.ndim(x[...]) == 1
    }


def _is_float(x: object) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)
