"""Attention compared with that of JAX (mirrors scalejax/model/attention.py)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from scalejax.model.attention import BLOCK, MAX_BLOCKS, attention_logits, causal_attention

SCALE = 0.3


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def reference(q, k, v, segments=None):
    """Attention by JAX, over the full square."""
    mask = None
    if segments is not None:
        mask = (segments[:, :, None] == segments[:, None])[:, None]
    return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=True, scale=SCALE)


def ours(q, k, v, segments=None):
    return causal_attention(q, k, v, scale=SCALE, segments_bt=segments)


@functools.partial(jax.jit, static_argnums=0)
def with_gradients(attention, q, k, v, segments=None):
    """The output and the gradients of a weighted sum of it, in the inputs' dtype."""
    y, pull_back = jax.vjp(lambda *a: attention(*a, segments), q, k, v)
    weights = np.cos(np.arange(q.size)).reshape(q.shape)
    return y, *pull_back(jnp.asarray(weights, y.dtype))


# Less than a block, whole blocks, a shorter last block, blocks larger than BLOCK.
LENGTHS = [7, 2 * BLOCK, 2 * BLOCK + 9, MAX_BLOCKS * BLOCK + 31]


@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (6, 2), (4, 1)])
def test_values_and_gradients_are_those_of_float64(t, heads, kv_heads):
    q, k, v = normal(0, 2, t, heads, 8), normal(1, 2, t, kv_heads, 8), normal(2, 2, t, kv_heads, 8)
    segments = np.array([np.arange(t) // 5, np.zeros(t, int)])
    for segments_bt in (None, segments):
        found = with_gradients(ours, q, k, v, segments_bt)
        with jax.enable_x64(True):
            wide = (np.asarray(x, np.float64) for x in (q, k, v))
            expected = with_gradients(reference, *wide, segments_bt)
        for actual, exact in zip(found, expected, strict=True):
            assert actual.dtype == jnp.float32
            np.testing.assert_allclose(actual, exact, rtol=1e-5, atol=1e-5)


# Every shape compiles anew, so there are few examples.
@settings(max_examples=3)
@given(
    b=st.integers(1, 3),
    t=st.integers(1, 2 * BLOCK),
    kv_heads=st.integers(1, 3),
    queries_per_kv_head=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_any_shape_equals_the_reference(b, t, kv_heads, queries_per_kv_head, seed):
    q = normal(seed, b, t, kv_heads * queries_per_kv_head, 4)
    k, v = normal(seed + 1, b, t, kv_heads, 4), normal(seed + 2, b, t, kv_heads, 4)
    jitted = jax.jit(ours)(q, k, v)
    np.testing.assert_allclose(jitted, reference(q, k, v), rtol=1e-5, atol=1e-5)


def test_a_position_does_not_depend_on_later_ones():
    q, k, v = (normal(seed, 1, BLOCK + 8, 2, 4) for seed in range(3))
    changed = ours(q, k.at[:, BLOCK:].add(1.0), v.at[:, BLOCK:].add(1.0))
    np.testing.assert_array_equal(ours(q, k, v)[:, :BLOCK], changed[:, :BLOCK])
    assert np.abs(ours(q, k, v) - changed)[:, BLOCK:].max() > 0.1


def test_large_logits_do_not_overflow():
    q, k, v = (normal(seed, 1, 70, 2, 4) for seed in range(3))
    for x in with_gradients(ours, 1e4 * q, k, v):
        assert np.isfinite(x).all()


def test_a_softmax_in_bfloat16_is_computed_in_float32():
    q, k, v = (normal(seed, 2, BLOCK + 3, 4, 8).astype(jnp.bfloat16) for seed in range(3))
    low = with_gradients(ours, q, k, v)
    high = with_gradients(reference, *(x.astype(jnp.float32) for x in (q, k, v)))
    for actual, exact in zip(low, high, strict=True):
        assert actual.dtype == jnp.bfloat16
        np.testing.assert_allclose(actual.astype(jnp.float32), exact, rtol=0.05, atol=0.05)


def test_logits_are_those_that_attention_uses():
    q, k, v = normal(0, 2, 7, 4, 8), normal(1, 2, 7, 2, 8), normal(2, 2, 7, 2, 8)
    weights = jax.nn.softmax(attention_logits(q, k, scale=SCALE))
    expected = jnp.einsum("bnts,bsnh->btnh", weights, jnp.repeat(v, 2, axis=2))
    np.testing.assert_allclose(ours(q, k, v), expected, rtol=1e-5, atol=1e-6)


def test_blocks_take_less_memory_than_the_full_square():
    x = jax.ShapeDtypeStruct((1, 1024, 1, 8), jnp.float32)
    sizes = []
    for attention in (ours, reference):
        memory = with_gradients.lower(attention, x, x, x).compile().memory_analysis()
        assert memory is not None
        sizes.append(memory.temp_size_in_bytes)
    assert sizes[0] < 0.6 * sizes[1]


def test_shapes_are_checked_in_tests():
    q, k = normal(0, 2, 7, 4, 8), normal(1, 2, 6, 4, 8)
    with pytest.raises(TypeCheckError, match="k_bsgh"):
        causal_attention(q, k, k, scale=SCALE)
