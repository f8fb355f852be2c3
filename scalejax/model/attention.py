"""Causal attention behind one function: einsum on CPU, JAX's fused kernels elsewhere.

Axes: b sequences, t query positions, s key positions, n query heads, g kv heads, h head size.
"""

import jax
import jax.numpy as jnp
import numpy as np


def causal_attention(q_btnh: jax.Array, k_bsgh: jax.Array, v_bsgh: jax.Array, *, scale: float) -> jax.Array:
    """softmax(scale q k^T) v over positions s <= t, [b, t, n, h]; query head i reads kv head i // (n / g).

    Softmax in float32 whatever the dtype of the inputs.
    """
    if jax.default_backend() == "cpu":
        return einsum_attention(q_btnh, k_bsgh, v_bsgh, scale=scale)
    return jax.nn.dot_product_attention(q_btnh, k_bsgh, v_bsgh, is_causal=True, scale=scale)


def einsum_attention(q_btnh: jax.Array, k_bsgh: jax.Array, v_bsgh: jax.Array, *, scale: float) -> jax.Array:
    """The reference: attention written out, every kv head repeated for its query heads."""
    v_bsnh = jnp.repeat(v_bsgh, q_btnh.shape[2] // v_bsgh.shape[2], axis=2)
    weights_bnts = jax.nn.softmax(attention_logits(q_btnh, k_bsgh, scale=scale), axis=-1).astype(v_bsnh.dtype)
    return jnp.einsum("bnts,bsnh->btnh", weights_bnts, v_bsnh)


def attention_logits(q_btnh: jax.Array, k_bsgh: jax.Array, *, scale: float) -> jax.Array:
    """scale q k^T in float32, [b, n, t, s]; -inf at positions s > t."""
    t, r = q_btnh.shape[1], q_btnh.shape[2] // k_bsgh.shape[2]
    k_bsnh = jnp.repeat(k_bsgh, r, axis=2)
    logits_bnts = jnp.einsum("btnh,bsnh->bnts", q_btnh * scale, k_bsnh, preferred_element_type=jnp.float32)
    return jnp.where(np.tril(np.ones((t, t), bool)), logits_bnts, -jnp.inf)
