"""Optimizers as optax chains: numbers traced, multipliers from the parametrization inside the chain."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax.contrib import (
    MuonDimensionNumbers,
    scale_by_muon,
    schedule_free,
    schedule_free_eval_params,
)

from scalejax.config import Run
from scalejax.model.parameters import Params, Spec
from scalejax.model.parametrization import Scaling

MUON_RMS = 0.2
"""Root mean square of the entries of Muon's update, about that of AdamW's: one peak serves both (Liu et al. 2025)."""


class Hyperparameters(NamedTuple):
    """The optimizer's numbers as float32 arrays of the training state: one compiled step serves a whole sweep."""

    peak: jax.Array
    """Peak learning rate; the rate of each step is an argument of the step."""
    beta1: jax.Array
    beta2: jax.Array
    epsilon: jax.Array
    momentum: jax.Array
    weight_decay: jax.Array
    clip: jax.Array
    """Ceiling of the global gradient norm; 0: none."""
    z_loss: jax.Array


def hyperparameters(run: Run) -> Hyperparameters:
    """The numbers of `run.optimizer`."""
    given = run.optimizer
    same = {name: getattr(given, name) for name in Hyperparameters._fields if name != "peak"}
    return Hyperparameters(
        **{
            name: jnp.float32(number)
            for name, number in {"peak": given.learning_rate, **same}.items()
        }
    )


def beta2_from_half_life(half_life_tokens: float, batch_tokens: int) -> float:
    """The beta2 under which a gradient's weight in the second moment halves every `half_life_tokens`: 2^(-batch / half-life).

    As an axis: `grid(base, batch_tokens=[..], beta2=lambda run: beta2_from_half_life(4e5, run.batch_tokens))`.
    Raises ValueError when the half-life is not positive.

    >>> round(beta2_from_half_life(half_life_tokens=70_000, batch_tokens=2_048), 4)
    0.9799
    """
    if not half_life_tokens > 0:
        raise ValueError(
            f"the half-life of beta2 is a positive number of tokens; got {half_life_tokens!r}"
        )
    return 2 ** (-batch_tokens / half_life_tokens)


def optimizer(
    name: str,
    numbers: Hyperparameters,
    learning_rate: jax.Array,
    *,
    specs: Params,
    scalings: Params,
    decay: str,
) -> optax.GradientTransformation:
    """The optimizer called `name`, with the multipliers of the parametrization: one `Spec` and one `Scaling` per tensor.

    With u the direction of the clipped gradient, a step adds

    - `independent`: -learning_rate x (scaling.learning_rate x u + weight_decay / peak x w);
    - `standard`: -learning_rate x scaling.learning_rate x (u + weight_decay x scaling.weight_decay x w);

    without the decay term where scaling.weight_decay is 0. The directions:

    - `adamw`: m_hat / (sqrt(v_hat) + epsilon x scaling.epsilon) (Loshchilov & Hutter 2019);
    - `lion`: sign(beta1 m + (1 - beta1) g), m the average under beta2 (Chen et al. 2023, algorithm 2);
    - `muon`: for hidden matrices the Nesterov momentum, made orthogonal by five Newton-Schulz steps, x 0.2 sqrt(max(fan-in,
      fan-out)) (Jordan 2024; Liu et al. 2025); for the others adamw's;
    - `schedule-free-adamw`: g / (sqrt(v_hat) + epsilon x scaling.epsilon) moves z. Gradients and decay are taken at the
      parameters beta1 x + (1 - beta1) z, x being the mean of z weighted by the largest rate so far squared (Defazio et al. 2024).

    The state is named, {"clip", "adam", ..}, so that a checkpoint does not depend on the order of the chain.
    """

    def per_tensor(value: Callable[[Scaling], Any]) -> Params:
        return jax.tree.map(value, scalings, is_leaf=lambda node: isinstance(node, Scaling))

    if decay == "independent":
        shrink = per_tensor(
            lambda row: numbers.weight_decay / numbers.peak * (row.weight_decay > 0)
        )
    else:
        shrink = per_tensor(
            lambda row: numbers.weight_decay * (row.learning_rate * row.weight_decay)
        )
    # Adam's direction is the same for g and c g but for epsilon: dividing g by k multiplies epsilon by k, exactly.
    epsilon = ("epsilon", _scale_each(per_tensor(lambda row: 1 / row.epsilon)))
    adam = optax.scale_by_adam(b1=numbers.beta1, b2=numbers.beta2, eps=numbers.epsilon)
    match name:
        case "adamw":
            direction = [epsilon, ("adam", adam)]
        case "lion":
            direction = [("lion", optax.scale_by_lion(b1=numbers.beta1, b2=numbers.beta2))]
        case "muon":
            direction = [("muon", _muon(numbers, specs, others=adam))]
        case "schedule-free-adamw":  # the interpolation stands in for the first moment
            rms = optax.scale_by_rms(
                decay=numbers.beta2, eps=numbers.epsilon, eps_in_sqrt=False, bias_correction=True
            )
            direction = [epsilon, ("rms", rms)]
        case _:
            raise ValueError(f"no optimizer is called {name!r}")
    chain = optax.named_chain(
        ("clip", optax.clip_by_global_norm(jnp.where(numbers.clip > 0, numbers.clip, jnp.inf))),
        *direction,
        ("parametrization", _scale_each(per_tensor(lambda row: row.learning_rate))),
        (
            "decay",
            optax.stateless(
                lambda updates, params: jax.tree.map(
                    lambda u, w, c: u + c * w, updates, params, shrink
                )
            ),
        ),
        ("learning_rate", optax.scale(-learning_rate)),
    )
    return (
        schedule_free(chain, learning_rate, b1=numbers.beta1)
        if name == "schedule-free-adamw"
        else chain
    )


def evaluated(name: str, params: Params, state: optax.OptState) -> Params:
    """The weights to evaluate: the parameters, but for `schedule-free-adamw` the average x."""
    return schedule_free_eval_params(state, params) if name == "schedule-free-adamw" else params


def _muon(
    numbers: Hyperparameters, specs: Params, others: optax.GradientTransformation
) -> optax.GradientTransformation:
    def per_spec(value: Callable[[Spec], Any]) -> Params:
        return jax.tree.map(value, specs, is_leaf=lambda node: isinstance(node, Spec))

    hidden = optax.named_chain(
        (
            "momentum",
            scale_by_muon(
                beta=numbers.momentum, weight_dimension_numbers=lambda _: per_spec(_matrix)
            ),
        ),
        ("shape", _scale_each(per_spec(_root_of_larger_fan))),
    )
    labels = per_spec(lambda spec: "hidden" if spec.role == "hidden" else "others")
    return optax.partition({"hidden": hidden, "others": others}, labels)


def _matrix(spec: Spec) -> MuonDimensionNumbers | optax.MaskedNode:
    """Which axes of a hidden tensor are the inputs of its matrix, and which the outputs; masked for the others."""
    if spec.role != "hidden":
        return optax.MaskedNode()
    inputs = next(n for n in range(1, len(spec.shape)) if math.prod(spec.shape[:n]) == spec.fan_in)
    return MuonDimensionNumbers(tuple(range(inputs)), tuple(range(inputs, len(spec.shape))))


def _root_of_larger_fan(spec: Spec) -> float | optax.MaskedNode:
    """An orthogonal matrix has entries of RMS 1 / sqrt(max(fan-in, fan-out)): this makes them of RMS MUON_RMS."""
    if spec.role != "hidden":
        return optax.MaskedNode()
    return MUON_RMS * math.sqrt(max(spec.fan_in, math.prod(spec.shape) / spec.fan_in))


def _scale_each(factors: Params) -> optax.GradientTransformation:
    return optax.stateless(
        lambda updates, _: jax.tree.map(lambda u, factor: u * factor, updates, factors)
    )
