"""AdamW as an optax chain: numbers traced, multipliers from the parametrization inside the chain."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from scalejax.config import Run
from scalejax.model.parameters import Params
from scalejax.model.parametrization import Scaling


class Hyperparameters(NamedTuple):
    """The optimizer's numbers as float32 arrays of the training state: one compiled step serves a whole sweep."""

    peak: jax.Array
    """Peak learning rate; the rate of each step is an argument of the step."""
    beta1: jax.Array
    beta2: jax.Array
    epsilon: jax.Array
    weight_decay: jax.Array
    clip: jax.Array
    """Ceiling of the global gradient norm; 0: none."""
    z_loss: jax.Array


def hyperparameters(run: Run) -> Hyperparameters:
    """The numbers of `run.optimizer`."""
    given = run.optimizer
    numbers = (given.learning_rate, given.beta1, given.beta2, given.epsilon, given.weight_decay, given.clip, given.z_loss)
    return Hyperparameters(*(jnp.float32(number) for number in numbers))


def adamw(numbers: Hyperparameters, learning_rate: jax.Array, *, scalings: Params, decay: str) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) with the multipliers of the parametrization, one `Scaling` per tensor.

    With u Adam's direction m_hat / (sqrt(v_hat) + epsilon x scaling.epsilon) of the clipped gradient, a step adds

    - `independent`: -learning_rate x (scaling.learning_rate x u + weight_decay / peak x w);
    - `standard`: -learning_rate x scaling.learning_rate x (u + weight_decay x scaling.weight_decay x w);

    without the decay term where scaling.weight_decay is 0. The state is named, {"clip", "adam", ..}, so that a checkpoint does
    not depend on the order of the chain.
    """

    def per_tensor(value) -> Params:
        return jax.tree.map(value, scalings, is_leaf=_is_scaling)

    if decay == "independent":
        shrink = per_tensor(lambda row: numbers.weight_decay / numbers.peak * (row.weight_decay > 0))
    else:
        shrink = per_tensor(lambda row: numbers.weight_decay * (row.learning_rate * row.weight_decay))
    return optax.named_chain(
        ("clip", optax.clip_by_global_norm(jnp.where(numbers.clip > 0, numbers.clip, jnp.inf))),
        # Adam's direction is the same for g and c g but for epsilon: dividing g by k multiplies epsilon by k, exactly.
        ("epsilon", _scale_each(per_tensor(lambda row: 1 / row.epsilon))),
        ("adam", optax.scale_by_adam(b1=numbers.beta1, b2=numbers.beta2, eps=numbers.epsilon)),
        ("parametrization", _scale_each(per_tensor(lambda row: row.learning_rate))),
        ("decay", optax.stateless(lambda updates, params: jax.tree.map(lambda u, w, c: u + c * w, updates, params, shrink))),
        ("learning_rate", optax.scale(-learning_rate)),
    )


def _scale_each(factors: Params) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, _: jax.tree.map(lambda u, factor: u * factor, updates, factors))


def _is_scaling(node) -> bool:
    return isinstance(node, Scaling)
