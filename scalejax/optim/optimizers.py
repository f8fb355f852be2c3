"""Optimizers as optax chains, with traced hyperparameters.

The hyperparameters are arrays of the training state, so one compiled step serves a
whole sweep. The multipliers of the parametrization are part of the chain.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

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
from scalejax.model.parameters import Params, Scalings, Spec, Specs
from scalejax.model.parametrization import Scaling

# Root mean square of the entries of Muon's update. It is about that of AdamW's update,
# so one peak learning rate serves both (Liu et al. 2025).
MUON_RMS = 0.2

# A tree of the structure of Specs, such as one number per tensor.
PerTensor = Params


# The names of the fields are part of the checkpoint format.
class Hyperparameters(NamedTuple):
    """The hyperparameters of the optimizer as float32 arrays of the training state."""

    peak: jax.Array
    """Peak learning rate. The learning rate of each step is an argument of the step."""
    beta1: jax.Array
    beta2: jax.Array
    epsilon: jax.Array
    momentum: jax.Array
    weight_decay: jax.Array
    clip: jax.Array
    """Maximum of the global gradient norm; 0 disables clipping."""
    z_loss: jax.Array


def hyperparameters(run: Run) -> Hyperparameters:
    """The hyperparameters of `run.optimizer`."""
    optimizer = run.optimizer
    return Hyperparameters(
        peak=jnp.float32(optimizer.learning_rate),
        beta1=jnp.float32(optimizer.beta1),
        beta2=jnp.float32(optimizer.beta2),
        epsilon=jnp.float32(optimizer.epsilon),
        momentum=jnp.float32(optimizer.momentum),
        weight_decay=jnp.float32(optimizer.weight_decay),
        clip=jnp.float32(optimizer.clip),
        z_loss=jnp.float32(optimizer.z_loss),
    )


def beta2_from_half_life(half_life_tokens: float, batch_tokens: int) -> float:
    """The beta2 under which a gradient's weight halves every `half_life_tokens` tokens.

    The weight is that in the second moment, so beta2 = 2^(-batch / half-life). As an
    axis of a grid: `beta2=lambda run: beta2_from_half_life(4e5, run.batch_tokens)`.
    Raises ValueError when the half-life is not positive.

    >>> round(beta2_from_half_life(half_life_tokens=70_000, batch_tokens=2_048), 4)
    0.9799
    """
    if not half_life_tokens > 0:
        raise ValueError(
            f"the half-life of beta2 must be a positive number of tokens; got {half_life_tokens!r}"
        )
    return 2 ** (-batch_tokens / half_life_tokens)


def optimizer(
    name: str,
    numbers: Hyperparameters,
    learning_rate: jax.Array,
    *,
    specs: Specs,
    scalings: Scalings,
    decay: str,
) -> optax.GradientTransformation:
    """The optimizer `name`, with the multipliers of the parametrization.

    With u the direction of the clipped gradient, and w a tensor with its Scaling s, a
    step adds to w

    - `independent`: -learning_rate x (s.learning_rate x u + weight_decay / peak x w);
    - `standard`: -learning_rate x s.learning_rate
      x (u + weight_decay x s.weight_decay x w).

    There is no decay term where s.weight_decay is 0. The directions are

    - `adamw`: m_hat / (sqrt(v_hat) + epsilon x s.epsilon) (Loshchilov & Hutter 2019);
    - `lion`: sign(beta1 m + (1 - beta1) g), with m the average under beta2 (Chen et al.
      2023, algorithm 2);
    - `muon`: for hidden matrices the Nesterov momentum, made orthogonal by five
      Newton-Schulz steps, x 0.2 sqrt(max(fan-in, fan-out)) (Jordan 2024; Liu et al.
      2025), with s.muon_rate in place of s.learning_rate. Other tensors use the
      direction of `adamw`;
    - `schedule-free-adamw`: g / (sqrt(v_hat) + epsilon x s.epsilon), which moves z.
      Gradients and decay are taken at the parameters beta1 x + (1 - beta1) z, where x
      is the mean of z weighted by the square of the largest rate so far (Defazio et al.
      2024).

    The state is a dict with the names of the chain's parts, so a checkpoint does not
    depend on their order.
    """
    decay_factors = _decay_factors(numbers, scalings, decay)
    # An infinite maximum disables clipping. The choice is traced, because `clip` is.
    max_norm = jnp.where(numbers.clip > 0, numbers.clip, jnp.inf)
    chain = optax.named_chain(
        ("clip", optax.clip_by_global_norm(max_norm)),
        *_direction(name, numbers, specs, scalings),
        ("parametrization", _scale_each(_rates(name, specs, scalings))),
        ("decay", _add_weights(decay_factors)),
        ("learning_rate", optax.scale(-learning_rate)),
    )
    if name == "schedule-free-adamw":
        return schedule_free(chain, learning_rate, b1=numbers.beta1)
    return chain


def evaluation_params(name: str, params: Params, state: optax.OptState) -> Params:
    """The weights to evaluate: for schedule-free AdamW the average x, else `params`."""
    return schedule_free_eval_params(state, params) if name == "schedule-free-adamw" else params


NamedTransformation = tuple[str, optax.GradientTransformation]


def _direction(
    name: str, numbers: Hyperparameters, specs: Specs, scalings: Scalings
) -> list[NamedTransformation]:
    """The parts of the chain that turn the clipped gradient into the direction u."""
    # Adam's direction is the same for g and c g, except for epsilon. Dividing the
    # gradient by k therefore multiplies epsilon by k, exactly.
    epsilon = ("epsilon", _scale_each(_per_scaling(lambda s: 1 / s.epsilon, scalings)))
    adam = optax.scale_by_adam(b1=numbers.beta1, b2=numbers.beta2, eps=numbers.epsilon)
    match name:
        case "adamw":
            return [epsilon, ("adam", adam)]
        case "lion":
            return [("lion", optax.scale_by_lion(b1=numbers.beta1, b2=numbers.beta2))]
        case "muon":
            # Newton-Schulz does not depend on the size of its argument, so that epsilon
            # makes a difference only to Adam's tensors.
            return [epsilon, ("muon", _muon(numbers, specs, others=adam))]
        case "schedule-free-adamw":
            # There is no first moment: the interpolation of x and z takes its place.
            rms = optax.scale_by_rms(
                decay=numbers.beta2, eps=numbers.epsilon, eps_in_sqrt=False, bias_correction=True
            )
            return [epsilon, ("rms", rms)]
        case _:
            raise ValueError(f"there is no optimizer {name!r}")


def _rates(name: str, specs: Specs, scalings: Scalings) -> PerTensor:
    """The multiplier of every tensor's learning rate."""
    if name != "muon":
        return _per_scaling(lambda s: s.learning_rate, scalings)
    return jax.tree.map(
        lambda spec, s: s.muon_rate if spec.role == "hidden" else s.learning_rate,
        specs,
        scalings,
        is_leaf=lambda node: isinstance(node, Spec),
    )


def _decay_factors(numbers: Hyperparameters, scalings: Scalings, decay: str) -> PerTensor:
    """The factor of w in the update before it is multiplied by -learning_rate."""
    if decay == "independent":
        return _per_scaling(
            lambda s: numbers.weight_decay / numbers.peak * (s.weight_decay > 0), scalings
        )
    return _per_scaling(
        lambda s: numbers.weight_decay * (s.learning_rate * s.weight_decay), scalings
    )


def _muon(
    numbers: Hyperparameters, specs: Specs, others: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Muon for hidden tensors, and `others` for the other tensors."""
    momentum = scale_by_muon(
        beta=numbers.momentum,
        weight_dimension_numbers=lambda _: _per_spec(_matrix_axes, specs),
    )
    hidden = optax.named_chain(
        ("momentum", momentum),
        ("shape", _scale_each(_per_spec(_muon_scale, specs))),
    )
    labels = _per_spec(lambda spec: "hidden" if spec.role == "hidden" else "others", specs)
    return optax.partition({"hidden": hidden, "others": others}, labels)


def _matrix_axes(spec: Spec) -> MuonDimensionNumbers | optax.MaskedNode:
    """Which axes of a hidden tensor are the inputs and the outputs of its matrix.

    Tensors that are not hidden are masked, as `optax.partition` masks them.
    """
    if spec.role != "hidden":
        return optax.MaskedNode()
    # The input axes come first, and their sizes multiply to the fan-in.
    inputs = next(n for n in range(1, len(spec.shape)) if math.prod(spec.shape[:n]) == spec.fan_in)
    return MuonDimensionNumbers(tuple(range(inputs)), tuple(range(inputs, len(spec.shape))))


def _muon_scale(spec: Spec) -> float | optax.MaskedNode:
    """The factor that gives the entries of an orthogonal matrix the RMS MUON_RMS.

    The entries of an orthogonal matrix have RMS 1 / sqrt(max(fan-in, fan-out)).
    """
    if spec.role != "hidden":
        return optax.MaskedNode()
    fan_out = math.prod(spec.shape) / spec.fan_in
    return MUON_RMS * math.sqrt(max(spec.fan_in, fan_out))


def _per_scaling(function: Callable[[Scaling], object], scalings: Scalings) -> PerTensor:
    # A Scaling is a NamedTuple, which jax would otherwise take for a part of the tree.
    return jax.tree.map(function, scalings, is_leaf=lambda node: isinstance(node, Scaling))


def _per_spec(function: Callable[[Spec], object], specs: Specs) -> PerTensor:
    return jax.tree.map(function, specs, is_leaf=lambda node: isinstance(node, Spec))


def _scale_each(factors: PerTensor) -> optax.GradientTransformation:
    """Multiply the update of every tensor by its own factor."""

    def scale(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        return jax.tree.map(lambda u, factor: u * factor, updates, factors)

    return optax.stateless(scale)


def _add_weights(factors: PerTensor) -> optax.GradientTransformation:
    """Add every tensor to its update, multiplied by its own factor."""

    def add(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        return jax.tree.map(lambda u, factor, w: u + factor * w, updates, factors, params)

    return optax.stateless(add)
