"""Attention compared with that of JAX (mirrors scalejax/model/attention.py)."""

import jax
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from scalejax.model.attention import causal_attention


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_einsum_attention_is_that_of_jax(kv_heads):
    q, k, v = normal(0, 2, 7, 4, 8), normal(1, 2, 7, kv_heads, 8), normal(2, 2, 7, kv_heads, 8)
    expected = jax.nn.dot_product_attention(q, k, v, is_causal=True, scale=0.3)
    ours = causal_attention(q, k, v, scale=0.3)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
    without_mask = jax.nn.dot_product_attention(q, k, v, scale=0.3)
    assert np.abs(without_mask - expected).max() > 0.01, "the mask does nothing here"


def test_segments_mask_as_jax_does_on_cpu_and_on_other_backends(monkeypatch):
    q, k, v = (normal(seed, 2, 7, 4, 8) for seed in range(3))
    segments = np.array([[0, 0, 1, 1, 1, 2, 2], [0] * 7])
    mask = (segments[:, :, None] == segments[:, None])[:, None]
    expected = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=True, scale=0.3)
    ours = causal_attention(q, k, v, scale=0.3, segments_bt=segments)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
    one_segment = causal_attention(q, k, v, scale=0.3)[1]
    np.testing.assert_array_equal(ours[1], one_segment)
    # Other backends use JAX's attention, which the CPU can compute too.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    elsewhere = causal_attention(q, k, v, scale=0.3, segments_bt=segments)
    np.testing.assert_allclose(elsewhere, expected, rtol=1e-6)


def test_shapes_are_checked_in_tests():
    q, k = normal(0, 2, 7, 4, 8), normal(1, 2, 6, 4, 8)
    with pytest.raises(TypeCheckError, match="k_bsgh"):
        causal_attention(q, k, k, scale=0.3)
