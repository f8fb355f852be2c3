"""Fused kernels compared with attention in blocks (mirrors
scalejax/model/fused_attention.py).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalejax.model.attention import causal_attention
from scalejax.model.fused_attention import attend, kernel_for, splash_attention

SCALE = 0.3


def inputs(t: int, heads: int, kv_heads: int) -> list[jax.Array]:
    """Queries, keys and values of two sequences with heads of size 8."""
    return [
        jax.random.normal(jax.random.key(seed), (2, t, count, 8))
        for seed, count in enumerate((heads, kv_heads, kv_heads))
    ]


@functools.partial(jax.jit, static_argnums=0)
def with_gradients(attention, q, k, v, segments):
    y, pull_back = jax.vjp(lambda *a: attention(*a, scale=SCALE, segments_bt=segments), q, k, v)
    return y, *pull_back(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))


# 384 positions are three blocks of the kernel, some of which it skips.
@pytest.mark.parametrize(
    ("t", "heads", "kv_heads", "packed"), [(384, 2, 1, True), (256, 2, 2, False)]
)
def test_values_and_gradients_of_splash_attention_are_those_of_the_blocks(
    t, heads, kv_heads, packed
):
    """Float32 agrees to 1e-5; the kernel is executed in Pallas's interpret mode."""
    segments = np.array([np.arange(t) // 100, np.arange(t) // 250]) if packed else None
    arrays = inputs(t, heads, kv_heads)
    kernel = functools.partial(splash_attention, interpret=True)
    found = with_gradients(kernel, *arrays, segments)
    expected = with_gradients(causal_attention, *arrays, segments)
    for actual, exact in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, exact, rtol=1e-5, atol=1e-5)
    # The comparison would see a kernel that ignores segments.
    if packed:
        ignored = causal_attention(*arrays, scale=SCALE)
        assert np.abs(ignored - expected[0]).max() > 0.1


@pytest.mark.parametrize(
    ("platform", "t", "expected"),
    [("tpu", 256, "splash"), ("tpu", 200, "blocks"), ("cpu", 256, "blocks")],
)
def test_the_platform_and_the_length_decide_the_kernel(platform, t, expected):
    assert kernel_for(platform, inputs(t, 1, 1)[0]) == expected


def test_a_gpu_that_this_process_does_not_have_gets_the_blocks():
    """cuDNN builds kernels on a GPU, and these tests run without one."""
    assert jax.default_backend() == "cpu"
    assert kernel_for("gpu", inputs(8, 1, 1)[0].astype(jnp.bfloat16)) == "blocks"


def test_on_cpu_the_bits_are_those_of_the_blocks():
    arrays = inputs(70, 2, 1)
    np.testing.assert_array_equal(
        attend(*arrays, scale=SCALE), causal_attention(*arrays, scale=SCALE)
    )
