"""Causal attention in blocks of queries, with grouped queries and optional segments.

The scores of all queries with all keys, [t, s], would be the largest array of a
training step, and half of them would be masked. Here a block of queries meets only the
keys up to the block's end, and the backward pass computes the scores of a block again
from the output and the log of the softmax's denominator (Dao et al. 2022,
FlashAttention, section 3.1). Against the full square, a step takes 0.75 to 0.85 of the
time on one CPU core.

The scores of a block are stored with the keys before the queries. Sums over the keys
then add whole rows, and no matmul of either pass has to transpose the scores, which are
its largest argument: this takes 0.73 to 0.87 of the time (benchmarks/train_speed.py).

Axes: b sequences, t query positions, s key positions (as many as t), n query heads, g
kv heads, r query heads per kv head, h head size, q queries of a block, k its keys.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Queries of a block. Smaller blocks mask less and make smaller, slower matmuls.
BLOCK = 64

# Long sequences have larger blocks instead of more of them: every block is compiled
# separately, and with 8 blocks only 1/16 more than half of the square is computed.
MAX_BLOCKS = 8

Segments = Int[Array | np.ndarray, "b t"] | None
Queries = Float[Array, "b g r t h"]
Keys = Float[Array, "b g t h"]


def causal_attention(
    q_btnh: Float[Array, "b t n h"],
    k_bsgh: Float[Array, "b t g h"],
    v_bsgh: Float[Array, "b t g h"],
    *,
    scale: float,
    segments_bt: Segments = None,
) -> Float[Array, "b t n h"]:
    """Return softmax(scale q k^T) v over the positions s <= t.

    Query head i reads kv head i // (n / g). With `segments_bt` a query attends only to
    positions of its own segment. The softmax is computed in float32 for inputs of any
    dtype.
    """
    b, t, n, h = q_btnh.shape
    g = k_bsgh.shape[2]
    q_bgrth = (q_btnh * scale).reshape(b, t, g, n // g, h).transpose(0, 2, 3, 1, 4)
    y_bgrth = _attend(q_bgrth, k_bsgh.swapaxes(1, 2), v_bsgh.swapaxes(1, 2), segments_bt)
    return y_bgrth.transpose(0, 3, 1, 2, 4).reshape(b, t, n, h)


def attention_logits(
    q_btnh: Float[Array, "b t n h"], k_bsgh: Float[Array, "b t g h"], *, scale: float
) -> Float[Array, "b n t t"]:
    """Return scale q k^T in float32, and -inf at the positions s > t."""
    t, queries_per_kv_head = q_btnh.shape[1], q_btnh.shape[2] // k_bsgh.shape[2]
    k_bsnh = jnp.repeat(k_bsgh, queries_per_kv_head, axis=2)
    logits_bnts = jnp.einsum(
        "btnh,bsnh->bnts", q_btnh * scale, k_bsnh, preferred_element_type=jnp.float32
    )
    return jnp.where(np.tril(np.ones((t, t), bool)), logits_bnts, -jnp.inf)


@jax.custom_vjp
def _attend(q_bgrth: Queries, k_bgsh: Keys, v_bgsh: Keys, segments_bt: Segments) -> Queries:
    return _forward(q_bgrth, k_bgsh, v_bgsh, segments_bt)[0]


def _forward(q_bgrth: Queries, k_bgsh: Keys, v_bgsh: Keys, segments_bt: Segments):
    """Return the output, and what the backward pass needs."""
    outputs, log_sums = [], []
    for start, end in _blocks(q_bgrth.shape[3]):
        logits = _logits(q_bgrth, k_bgsh, segments_bt, start, end)
        # Without the maximum, exp would overflow for large logits.
        maximum = jnp.max(logits, axis=2)
        weights = jnp.exp(logits - maximum[:, :, None])
        total = jnp.sum(weights, axis=2)
        # Dividing the output, [h, q], is cheaper than dividing the weights, [k, q].
        # The output has the dtype of the values before that, too: XLA on CPU lacks
        # this product of two bfloat16 matrices with a result in float32.
        weights = weights.astype(v_bgsh.dtype)
        weighted = jnp.einsum("bgkh,bgkrq->bghrq", v_bgsh[:, :, :end], weights)
        output = (weighted / total[:, :, None]).astype(q_bgrth.dtype)
        outputs.append(output.transpose(0, 1, 3, 4, 2))
        log_sums.append(maximum + jnp.log(total))
    y_bgrth, log_sum_bgrt = jnp.concatenate(outputs, axis=3), jnp.concatenate(log_sums, axis=3)
    return y_bgrth, (q_bgrth, k_bgsh, v_bgsh, segments_bt, y_bgrth, log_sum_bgrt)


def _backward(saved: tuple, dy_bgrth: Queries):
    """Return the gradients of queries, keys and values, and none of the segments.

    With p = softmax(logits), the gradient of the logits is p (dp - sum(p dp)), and the
    sum is that of dy y over the head's features.
    """
    q_bgrth, k_bgsh, v_bgsh, segments_bt, y_bgrth, log_sum_bgrt = saved
    dtype = q_bgrth.dtype
    sum_bgrt = jnp.sum(dy_bgrth * y_bgrth, axis=-1, dtype=jnp.float32)
    dq, dk_bgsh, dv_bgsh = [], jnp.zeros_like(k_bgsh), jnp.zeros_like(v_bgsh)
    for start, end in _blocks(q_bgrth.shape[3]):
        block = (slice(None),) * 3 + (slice(start, end),)
        keys = (slice(None),) * 2 + (slice(0, end),)
        logits = _logits(q_bgrth, k_bgsh, segments_bt, start, end)
        weights = jnp.exp(logits - log_sum_bgrt[block][:, :, None])
        dweights = _float32("bgkh,bgrqh->bgkrq", v_bgsh[keys], dy_bgrth[block])
        dlogits = (weights * (dweights - sum_bgrt[block][:, :, None])).astype(dtype)
        dq_bghrq = jnp.einsum("bgkh,bgkrq->bghrq", k_bgsh[keys], dlogits)
        dq.append(dq_bghrq.transpose(0, 1, 3, 4, 2))
        dk = jnp.einsum("bgkrq,bgrqh->bgkh", dlogits, q_bgrth[block])
        dv = jnp.einsum("bgkrq,bgrqh->bgkh", weights.astype(dtype), dy_bgrth[block])
        dk_bgsh, dv_bgsh = dk_bgsh.at[keys].add(dk), dv_bgsh.at[keys].add(dv)
    return jnp.concatenate(dq, axis=3), dk_bgsh, dv_bgsh, None


_attend.defvjp(_forward, _backward)


def _blocks(length: int) -> Iterator[tuple[int, int]]:
    """Yield the first query of each block, and the first one after it."""
    size = max(BLOCK, -(-length // MAX_BLOCKS))
    for start in range(0, length, size):
        yield start, min(start + size, length)


def _logits(
    q_bgrth: Queries, k_bgsh: Keys, segments_bt: Segments, start: int, end: int
) -> Float[Array, "b g k r q"]:
    """Return the logits of one block of queries with the keys before its end."""
    logits = _float32("bgkh,bgrqh->bgkrq", k_bgsh[:, :, :end], q_bgrth[:, :, :, start:end])
    allowed = np.arange(end)[:, None] <= np.arange(start, end)
    if segments_bt is not None:
        same_bkq = segments_bt[:, :end, None] == segments_bt[:, None, start:end]
        allowed = (allowed & same_bkq)[:, None]
    # The query heads of a kv head share the mask: their axis lies before the queries'.
    return jnp.where(allowed[..., None, :], logits, -jnp.inf)


def _float32(subscripts: str, a: Array, b: Array) -> Array:
    return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32)
