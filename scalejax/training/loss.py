"""The loss of training, whose gradient is taken chunk by chunk.

The logits of a batch are often the largest array of a training step. Here they exist
for one chunk of positions at a time: while they do, the forward pass takes the gradient
of the chunk as well, and the backward pass only scales it. On a CPU a chunk fits the
processor's cache, which at width 64 and vocabulary 2,048 takes 0.85 of the time of a
step; on accelerators it bounds the memory.

Shape suffixes: b sequences, t positions, d width, v vocabulary, c chunks of positions.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from scalejax.evaluation.likelihood import MAX_LOGITS, chunk_count, split_positions
from scalejax.model.transformer import Transformer

# Logits of a chunk on a CPU: 2 MiB in float32, about what the caches of one core hold.
# Smaller chunks make smaller, slower matmuls.
CACHED_LOGITS = 2**19


@jax.named_scope("loss")
def summed_loss(
    model: Transformer,
    x_btd: Float[Array, "b t d"],
    targets_bt: Int[Array, "b t"],
    weights_bt: Float[Array, "b t"],
    z_loss: Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the weighted sum of the losses of all positions, with z-loss and without.

    The loss of a position is its cross-entropy + z_loss x log(Z)^2, where Z is the sum
    of the exponentiated logits. The gradients with respect to `x_btd`, the output of
    `model.hidden`, and to the head are those of the first sum; the second has none.
    """
    chunks = chunk_count(
        x_btd.shape[1],
        logits_per_position=model.logits_per_position(x_btd.shape[0]),
        most=CACHED_LOGITS if model.layout.platform == "cpu" else MAX_LOGITS,
    )
    with_z_loss, without = _chunked(
        model.logits, chunks, model.output_kernel_dv, x_btd, targets_bt, weights_bt, z_loss
    )
    return with_z_loss, jax.lax.stop_gradient(without)


# The head as a function of hidden states and kernel: Transformer.logits.
Logits = Callable[[Array, Array], Array]


def _sums(
    logits: Logits, chunks: int, kernel_dv, x_btd, targets_bt, weights_bt, z_loss
) -> tuple[Array, Array]:
    return _forward(logits, chunks, kernel_dv, x_btd, targets_bt, weights_bt, z_loss)[0]


def _forward(logits: Logits, chunks: int, kernel_dv, x_btd, targets_bt, weights_bt, z_loss):
    """Return both sums, and the gradients of the first one."""
    loss = functools.partial(_chunk_loss, logits)
    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)

    def add(total, chunk):
        (with_z_loss, without), (dkernel_dv, dx_btd) = gradient(kernel_dv, *chunk, z_loss)
        return jax.tree.map(jnp.add, total, (with_z_loss, without, dkernel_dv)), dx_btd

    zero = jnp.float32(0)
    total = (zero, zero, jnp.zeros_like(kernel_dv))
    split = tuple(split_positions(array, chunks) for array in (x_btd, targets_bt, weights_bt))
    (with_z_loss, without, dkernel_dv), dx_cbtd = jax.lax.scan(add, total, split)
    return (with_z_loss, without), (dkernel_dv, dx_cbtd.swapaxes(0, 1).reshape(x_btd.shape))


def _backward(logits: Logits, chunks: int, gradients, cotangents):
    # Both sums are scalars, so that the gradients need only be scaled.
    scaled = jax.tree.map(lambda x: (x * cotangents[0]).astype(x.dtype), gradients)
    return (*scaled, None, None, None)


_chunked = jax.custom_vjp(_sums, nondiff_argnums=(0, 1))
_chunked.defvjp(_forward, _backward)


def _chunk_loss(
    logits: Logits, kernel_dv: Array, x_btd: Array, targets_bt: Array, weights_bt: Array, z_loss
) -> tuple[Array, Array]:
    """Return the two sums over one chunk."""
    logits_btv = logits(x_btd, kernel_dv)
    log_z_bt = jax.nn.logsumexp(logits_btv, axis=-1)
    # A masked sum instead of a gather: its gradient is elementwise, not a scatter.
    is_target_btv = targets_bt[..., None] == jnp.arange(logits_btv.shape[-1])
    losses_bt = log_z_bt - jnp.sum(logits_btv, axis=-1, where=is_target_btv)
    loss = jnp.sum(weights_bt * losses_bt)
    return loss + z_loss * jnp.sum(weights_bt * jnp.square(log_z_bt)), loss
