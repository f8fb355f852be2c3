"""Causal attention behind one function: einsum on CPU, JAX's fused kernels elsewhere.

Axes: b sequences, t query positions, s key positions, n query heads, g kv heads, h head size.
"""

import jax
import jax.numpy as jnp
import numpy as np


def causal_attention(
    q_btnh: jax.Array,
    k_bsgh: jax.Array,
    v_bsgh: jax.Array,
    *,
    scale: float,
    segments_bt: jax.Array | None = None,
) -> jax.Array:
    """softmax(scale q k^T) v over positions s <= t, [b, t, n, h]; query head i reads kv head i // (n / g).

    With `segments_bt` over positions of one segment alone. Softmax in float32 whatever the dtype of the inputs.
    """
    same_b1ts = (
        None
        if segments_bt is None
        else segments_bt[:, None, :, None] == segments_bt[:, None, None, :]
    )
    if jax.default_backend() == "cpu":
        return einsum_attention(q_btnh, k_bsgh, v_bsgh, scale=scale, mask_b1ts=same_b1ts)
    return jax.nn.dot_product_attention(
        q_btnh, k_bsgh, v_bsgh, mask=same_b1ts, is_causal=True, scale=scale
    )


def einsum_attention(
    q_btnh: jax.Array,
    k_bsgh: jax.Array,
    v_bsgh: jax.Array,
    *,
    scale: float,
    mask_b1ts: jax.Array | None = None,
) -> jax.Array:
    """The reference: attention written out, every kv head repeated for its query heads."""
    v_bsnh = jnp.repeat(v_bsgh, q_btnh.shape[2] // v_bsgh.shape[2], axis=2)
    logits_bnts = attention_logits(q_btnh, k_bsgh, scale=scale)
    if mask_b1ts is not None:
        logits_bnts = jnp.where(mask_b1ts, logits_bnts, -jnp.inf)
    weights_bnts = jax.nn.softmax(logits_bnts, axis=-1).astype(v_bsnh.dtype)
    return jnp.einsum("bnts,bsnh->btnh", weights_bnts, v_bsnh)


def attention_logits(q_btnh: jax.Array, k_bsgh: jax.Array, *, scale: float) -> jax.Array:
    """scale q k^T in float32, [b, n, t, s]; -inf at positions s > t."""
    t, r = q_btnh.shape[1], q_btnh.shape[2] // k_bsgh.shape[2]
    k_bsnh = jnp.repeat(k_bsgh, r, axis=2)
    logits_bnts = jnp.einsum(
        "btnh,bsnh->bnts", q_btnh * scale, k_bsnh, preferred_element_type=jnp.float32
    )
    return jnp.where(np.tril(np.ones((t, t), bool)), logits_bnts, -jnp.inf)
