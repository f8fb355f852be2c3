"""Causal attention by the fastest kernel that the devices have.

    TPU    splash attention, a kernel of JAX in Pallas
    GPU    the fused attention of cuDNN
    else   blocks of queries, compiled by XLA: scalejax.model.attention

A fused kernel keeps the logits of a block in the fast memory of a core and never writes
them to the memory of the device. Where a kernel cannot compute what is asked for, the
blocks do.

Axes: b sequences, t positions, n query heads, g kv heads, h head size.
"""

from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from scalejax.model.attention import Segments, causal_attention

# Queries, and keys, of a block of the TPU kernel, the best first. Sequences must be
# multiples of the last: registers of a TPU have 128 lanes.
SPLASH_BLOCKS = (512, 256, 128)

# Largest head size of cuDNN's kernels on all GPUs; it must also be a multiple of 8.
CUDNN_HEAD_SIZE = 128


def attend(
    q_btnh: Float[Array, "b t n h"],
    k_btgh: Float[Array, "b t g h"],
    v_btgh: Float[Array, "b t g h"],
    *,
    scale: float,
    segments_bt: Segments = None,
    platform: str = "cpu",
) -> Float[Array, "b t n h"]:
    """Return what `causal_attention` returns, up to rounding, on one device.

    `platform` is that of the device: `jax.Device.platform`.
    """
    function = {"splash": splash_attention, "cudnn": cudnn_attention, "blocks": causal_attention}[
        kernel_for(platform, q_btnh)
    ]
    return function(q_btnh, k_btgh, v_btgh, scale=scale, segments_bt=segments_bt)


def kernel_for(platform: str, q_btnh: Float[Array, "b t n h"]) -> str:
    """Return the kernel for these queries: `splash`, `cudnn` or `blocks`."""
    t, h = q_btnh.shape[1], q_btnh.shape[3]
    if platform == "tpu" and t % SPLASH_BLOCKS[-1] == 0:
        return "splash"
    # cuDNN has no kernels for float32, nor for masks of an odd length.
    has_kernel = q_btnh.dtype == jnp.bfloat16 and h <= CUDNN_HEAD_SIZE and h % 8 == t % 2 == 0
    # It builds its kernels on a GPU: a step that is compiled ahead of time, in a
    # process without one, has to do without them.
    if platform == "gpu" and jax.default_backend() == "gpu" and has_kernel:
        return "cudnn"
    return "blocks"


def splash_attention(
    q_btnh: Float[Array, "b t n h"],
    k_btgh: Float[Array, "b t g h"],
    v_btgh: Float[Array, "b t g h"],
    *,
    scale: float,
    segments_bt: Segments = None,
    interpret: bool = False,
) -> Float[Array, "b t n h"]:
    """Return causal attention by JAX's kernel for TPUs.

    The kernel skips blocks of keys that no query of a block may attend to. With
    `interpret` it is executed step by step, on any device.

    t must be a multiple of 128.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as splash,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    t, n = q_btnh.shape[1], q_btnh.shape[2]
    block = next(size for size in SPLASH_BLOCKS if t % size == 0)
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([masks.CausalMask((t, t))] * n),
        block_sizes=splash.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        # The function gets the heads of one device, and all of its positions.
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )

    def of_sequence(q_nth: Array, k_gth: Array, v_gth: Array, segments_t: Array | None) -> Array:
        segments = None if segments_t is None else splash.SegmentIds(segments_t, segments_t)
        return cast(Array, kernel(q_nth, k_gth, v_gth, segments))

    ids_bt = None if segments_bt is None else jnp.asarray(segments_bt)
    arrays = ((q_btnh * scale).swapaxes(1, 2), k_btgh.swapaxes(1, 2), v_btgh.swapaxes(1, 2))
    return jax.vmap(of_sequence)(*arrays, ids_bt).swapaxes(1, 2)


def cudnn_attention(
    q_btnh: Float[Array, "b t n h"],
    k_btgh: Float[Array, "b t g h"],
    v_btgh: Float[Array, "b t g h"],
    *,
    scale: float,
    segments_bt: Segments = None,
) -> Float[Array, "b t n h"]:
    """Return causal attention by cuDNN, for NVIDIA GPUs and 16-bit inputs."""
    mask_b1ts = None
    if segments_bt is not None:
        # The one array of t x t elements; its heads are one.
        mask_b1ts = (segments_bt[:, :, None] == segments_bt[:, None])[:, None]
    return jax.nn.dot_product_attention(
        q_btnh,
        k_btgh,
        v_btgh,
        mask=mask_b1ts,
        scale=scale,
        is_causal=True,
        implementation="cudnn",
    )
