"""Causal attention, with grouped queries and optional segments.

Axes: b sequences, t query positions, s key positions (as many as t), n query heads, g
kv heads, h head size.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


def causal_attention(
    q_btnh: Float[Array, "b t n h"],
    k_bsgh: Float[Array, "b t g h"],
    v_bsgh: Float[Array, "b t g h"],
    *,
    scale: float,
    segments_bt: Int[Array | np.ndarray, "b t"] | None = None,
) -> Float[Array, "b t n h"]:
    """softmax(scale q k^T) v over the positions s <= t.

    Query head i reads kv head i // (n / g). With `segments_bt` a query attends only to
    positions of its own segment. The softmax is computed in float32 for inputs of any
    dtype.
    """
    same_segment_b1ts = None
    if segments_bt is not None:
        same_segment_b1ts = segments_bt[:, None, :, None] == segments_bt[:, None, None, :]
    # On CPU our own einsum is used; on other backends JAX chooses the implementation.
    if jax.default_backend() == "cpu":
        return einsum_attention(q_btnh, k_bsgh, v_bsgh, scale=scale, mask_b1ts=same_segment_b1ts)
    return jax.nn.dot_product_attention(
        q_btnh, k_bsgh, v_bsgh, mask=same_segment_b1ts, is_causal=True, scale=scale
    )


def einsum_attention(
    q_btnh: Float[Array, "b t n h"],
    k_bsgh: Float[Array, "b t g h"],
    v_bsgh: Float[Array, "b t g h"],
    *,
    scale: float,
    mask_b1ts: Bool[Array | np.ndarray, "b 1 t t"] | None = None,
) -> Float[Array, "b t n h"]:
    """Attention written out: each kv head is repeated for all its query heads.

    `mask_b1ts` is true where attention is allowed, in addition to the causal mask.
    """
    v_bsnh = jnp.repeat(v_bsgh, q_btnh.shape[2] // v_bsgh.shape[2], axis=2)
    logits_bnts = attention_logits(q_btnh, k_bsgh, scale=scale)
    if mask_b1ts is not None:
        logits_bnts = jnp.where(mask_b1ts, logits_bnts, -jnp.inf)
    weights_bnts = jax.nn.softmax(logits_bnts, axis=-1).astype(v_bsnh.dtype)
    return jnp.einsum("bnts,bsnh->btnh", weights_bnts, v_bsnh)


def attention_logits(
    q_btnh: Float[Array, "b t n h"], k_bsgh: Float[Array, "b t g h"], *, scale: float
) -> Float[Array, "b n t t"]:
    """scale q k^T in float32, and -inf at the positions s > t."""
    t, queries_per_kv_head = q_btnh.shape[1], q_btnh.shape[2] // k_bsgh.shape[2]
    k_bsnh = jnp.repeat(k_bsgh, queries_per_kv_head, axis=2)
    # It is cheaper to scale the queries, [t, h], than the logits, [t, s].
    logits_bnts = jnp.einsum(
        "btnh,bsnh->bnts", q_btnh * scale, k_bsnh, preferred_element_type=jnp.float32
    )
    return jnp.where(np.tril(np.ones((t, t), bool)), logits_bnts, -jnp.inf)
