"""Attention (mirrors scalejax/model/attention.py)."""

import jax
import numpy as np
import pytest

from scalejax.model.attention import causal_attention


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_einsum_attention_is_jaxs_own(kv_heads):
    q, k, v = (
        jax.random.normal(jax.random.key(i), (2, 7, heads, 8))
        for i, heads in enumerate((4, kv_heads, kv_heads))
    )
    theirs = jax.nn.dot_product_attention(q, k, v, is_causal=True, scale=0.3)
    np.testing.assert_allclose(causal_attention(q, k, v, scale=0.3), theirs, rtol=1e-5, atol=1e-6)
    assert np.abs(jax.nn.dot_product_attention(q, k, v, scale=0.3) - theirs).max() > 0.01, (
        "the mask does nothing here"
    )


def test_segments_are_told_apart_as_jaxs_own_mask_does(monkeypatch):
    q, k, v = (jax.random.normal(jax.random.key(i), (2, 7, 4, 8)) for i in range(3))
    segments = np.array([[0, 0, 1, 1, 1, 2, 2], [0] * 7])
    mask = (segments[:, :, None] == segments[:, None])[:, None]
    theirs = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=True, scale=0.3)
    ours = causal_attention(q, k, v, scale=0.3, segments_bt=segments)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(ours[1], causal_attention(q, k, v, scale=0.3)[1])
    monkeypatch.setattr(
        jax, "default_backend", lambda: "gpu"
    )  # JAX's attention, which CPUs compute too
    np.testing.assert_allclose(
        causal_attention(q, k, v, scale=0.3, segments_bt=segments), theirs, rtol=1e-6
    )
