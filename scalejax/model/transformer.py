"""The transformer: RoPE, RMSNorm, SwiGLU, grouped-query attention, no biases.

A suffix on an array's name lists its axes: b sequences, t positions, d width, n query
heads, g kv heads, h head size, f mlp width, v vocabulary.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.lax import with_sharding_constraint
from jax.sharding import NamedSharding
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from scalejax.config import Model, Parametrization
from scalejax.model.attention import causal_attention
from scalejax.model.parameters import (
    Counts,
    Params,
    Specs,
    count,
    declare,
    initial_values,
    named_key,
    scalings,
    specs_of,
)
from scalejax.model.parametrization import (
    Role,
    attention_multiplier,
    branch_multiplier,
    output_multiplier,
)

# Base of the rotary wavelengths (Su et al. 2021, section 3.3).
ROPE_THETA = 10_000.0

# Added to the mean square in RMSNorm.
NORM_EPSILON = 1e-6

# Callers may pass token ids and segment ids as numpy arrays.
Integers = Array | np.ndarray


class ActivationShardings(NamedTuple):
    """How activations are split over the devices of a mesh.

    Without these constraints XLA derives the split of activations from that of the
    parameters. On an fsdp mesh it then gathers the whole batch on every device, which
    doubles the FLOPs of a device and multiplies the bytes it exchanges by 30.
    """

    residual: NamedSharding
    """Of the residual stream [b, t, d]."""
    embedding: NamedSharding
    """Of the embedding [v, d] while tokens are looked up."""


class Transformer(nnx.Module):
    """A decoder-only language model that maps token ids to logits.

    Parameters are float32, activations have dtype `compute_dtype`, logits are float32.
    """

    # None on a single device, where a constraint could only hinder the compiler.
    shardings: ActivationShardings | None = None

    def __init__(
        self, model: Model, parametrization: Parametrization, compute_dtype: str = "float32"
    ):
        self.vocabulary = model.vocabulary
        self.tied = model.tied
        self.compute_dtype = compute_dtype
        self.output_multiplier = output_multiplier(parametrization, model)
        self.embedding = declare(
            "tied" if model.tied else "embedding",
            fan_in=1,
            vocabulary=model.vocabulary,
            width=model.width,
        )
        self.blocks = nnx.List([Block(model, parametrization) for _ in range(model.depth)])
        self.norm = RMSNorm("norm", width=model.width)
        if not model.tied:
            self.head = declare(
                "output", fan_in=model.width, width=model.width, vocabulary=model.vocabulary
            )

    def __call__(
        self, tokens_bt: Int[Integers, "b t"], segments_bt: Int[Integers, "b t"] | None = None
    ) -> Float[Array, "b t v"]:
        """Logits of the next token at every position.

        Logits at t depend on tokens 0 to t. With `segments_bt` they depend only on
        those tokens that have the same segment id as position t.
        """
        return self.logits(self.hidden(tokens_bt, segments_bt))

    def hidden(
        self, tokens_bt: Int[Integers, "b t"], segments_bt: Int[Integers, "b t"] | None = None
    ) -> Float[Array, "b t d"]:
        """The residual stream after the final norm, which is the input of the head."""
        x_btd = self._constrain(self.embed(tokens_bt))
        for block in self.blocks:
            x_btd = self._constrain(block(x_btd, segments_bt))
        return self.norm(x_btd)

    def embed(self, tokens_bt: Int[Integers, "b t"]) -> Float[Array, "b t d"]:
        """The residual stream before the first block."""
        embedding_vd = self.embedding[...].astype(self.compute_dtype)
        if self.shardings is not None:
            embedding_vd = with_sharding_constraint(embedding_vd, self.shardings.embedding)
        return embedding_vd[tokens_bt]

    def logits(self, x_btd: Float[Array, "b t d"]) -> Float[Array, "b t v"]:
        """The head, separate from `hidden` so that a loss can apply it in chunks."""
        head_dv = self.embedding[...].T if self.tied else self.head[...]
        return project(x_btd * self.output_multiplier, head_dv, dtype=jnp.float32)

    def batch_per_device(self, x_btd: Float[Array, "b t d"]) -> int:
        """How many sequences of the residual stream one device holds."""
        if self.shardings is None:
            return x_btd.shape[0]
        return self.shardings.residual.shard_shape(x_btd.shape)[0]

    def _constrain(self, x_btd: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        if self.shardings is None:
            return x_btd
        return with_sharding_constraint(x_btd, self.shardings.residual)


class Block(nnx.Module):
    """x + r attention(norm(x)), then x + r mlp(norm(x)).

    r is the branch multiplier of the parametrization.
    """

    def __init__(self, model: Model, parametrization: Parametrization):
        self.branch_multiplier = branch_multiplier(parametrization, model)
        self.attention_norm = RMSNorm("block_norm", width=model.width)
        self.attention = Attention(model, attention_multiplier(parametrization, model))
        self.mlp_norm = RMSNorm("block_norm", width=model.width)
        self.mlp = MLP(model)

    def __call__(
        self, x_btd: Float[Array, "b t d"], segments_bt: Int[Integers, "b t"] | None = None
    ) -> Float[Array, "b t d"]:
        attended_btd = self.attention(self.attention_norm(x_btd), segments_bt)
        x_btd = x_btd + self.branch_multiplier * attended_btd
        return x_btd + self.branch_multiplier * self.mlp(self.mlp_norm(x_btd))


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions.

    Positions count from the start of the sequence, also inside segments: rotary
    attention depends only on differences of positions, so each segment behaves as if it
    began at 0.
    """

    def __init__(self, model: Model, scale: float):
        d, n, g, h = model.width, model.heads, model.kv_heads, model.head_size
        self.scale = scale
        self.qk_norm = model.qk_norm
        self.query = declare("hidden", fan_in=d, width=d, heads=n, head_size=h)
        self.key = declare("hidden", fan_in=d, width=d, kv_heads=g, head_size=h)
        self.value = declare("hidden", fan_in=d, width=d, kv_heads=g, head_size=h)
        self.output = declare("hidden", fan_in=n * h, heads=n, head_size=h, width=d)
        if model.qk_norm:
            self.query_norm = RMSNorm("block_norm", head_size=h)
            self.key_norm = RMSNorm("block_norm", head_size=h)

    def __call__(
        self, x_btd: Float[Array, "b t d"], segments_bt: Int[Integers, "b t"] | None = None
    ) -> Float[Array, "b t d"]:
        q_btnh, k_btgh = self.queries_and_keys(x_btd)
        v_btgh = project(x_btd, self.value[...])
        y_btnh = causal_attention(q_btnh, k_btgh, v_btgh, scale=self.scale, segments_bt=segments_bt)
        return project(y_btnh, self.output[...], input_axes=2)

    def queries_and_keys(
        self, x_btd: Float[Array, "b t d"]
    ) -> tuple[Float[Array, "b t n h"], Float[Array, "b t g h"]]:
        """Queries and keys, normalized if the model has `qk_norm`, and rotated."""
        q_btnh, k_btgh = project(x_btd, self.query[...]), project(x_btd, self.key[...])
        if self.qk_norm:
            q_btnh, k_btgh = self.query_norm(q_btnh), self.key_norm(k_btgh)
        return rotate(q_btnh), rotate(k_btgh)


class MLP(nnx.Module):
    """SwiGLU (Shazeer 2020): (silu(x gate) * (x up)) down."""

    def __init__(self, model: Model):
        d, f = model.width, model.mlp_width
        self.gate = declare("hidden", fan_in=d, width=d, mlp_width=f)
        self.up = declare("hidden", fan_in=d, width=d, mlp_width=f)
        self.down = declare("hidden", fan_in=f, mlp_width=f, width=d)

    def __call__(self, x_btd: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        gate_btf = project(x_btd, self.gate[...])
        return project(jax.nn.silu(gate_btf) * project(x_btd, self.up[...]), self.down[...])


class RMSNorm(nnx.Module):
    """x / rms(x) * gain over the last axis, with the mean square in float32."""

    def __init__(self, role: Role, **axis: int):
        self.gain = declare(role, fan_in=1, **axis)

    def __call__(self, x: Float[Array, "*axes d"]) -> Float[Array, "*axes d"]:
        x32 = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        inverse_rms = jax.lax.rsqrt(mean_square + NORM_EPSILON)
        return (x32 * inverse_rms * self.gain[...]).astype(x.dtype)


def project(
    x: Float[Array, "..."],
    kernel: Float[Array, "..."],
    *,
    input_axes: int = 1,
    dtype: DTypeLike | None = None,
) -> Float[Array, "..."]:
    """Multiply `x` [b, t, inputs...] by `kernel` [inputs..., outputs...].

    The sum runs over the last `input_axes` axes of `x`, which are the first of
    `kernel`. The result is [b, t, outputs...] in `dtype`, by default that of `x`.
    """
    batch_shape = x.shape[: x.ndim - input_axes]
    input_shape, output_shape = kernel.shape[:input_axes], kernel.shape[input_axes:]
    fan_in = math.prod(input_shape)
    # All tokens are the rows of one matrix: XLA's CPU matmul takes 0.6 of the time that
    # it takes with separate axes b and t.
    product = jnp.dot(
        x.reshape(-1, fan_in),
        kernel.reshape(fan_in, -1).astype(x.dtype),
        preferred_element_type=dtype,
    )
    return product.reshape(*batch_shape, *output_shape)


def rotate(x_btnh: Float[Array, "b t n h"]) -> Float[Array, "b t n h"]:
    """Rotary position embedding (Su et al. 2021), with positions counted from 0.

    At position t, features i and i + h/2 are rotated together by t theta^(-2i/h)
    radians.
    """
    t, h = x_btnh.shape[1], x_btnh.shape[3]
    # numpy computes the angles in float64; in a compiled program they are constants.
    angle_th = np.arange(t)[:, None] * ROPE_THETA ** (-np.arange(0, h, 2) / h)
    cos_tnh = np.cos(angle_th)[:, None, :].astype(x_btnh.dtype)
    sin_tnh = np.sin(angle_th)[:, None, :].astype(x_btnh.dtype)
    first, second = x_btnh[..., : h // 2], x_btnh[..., h // 2 :]
    return jnp.concatenate(
        [first * cos_tnh - second * sin_tnh, second * cos_tnh + first * sin_tnh], axis=-1
    )


@functools.cache
def abstract(
    model: Model, parametrization: Parametrization, compute_dtype: str = "float32"
) -> tuple[nnx.GraphDef[Transformer], Specs]:
    """The network without values: its graph definition and its declarations.

    `nnx.merge(graphdef, params)` combines the graph definition with parameters into a
    module that can be called.
    """
    module = Transformer(model, parametrization, compute_dtype)
    return nnx.graphdef(module), specs_of(module)


def initialize(model: Model, parametrization: Parametrization, key: jax.Array) -> Params:
    """Initial parameters as nested dicts; `key` is the run's key."""
    _, specs = abstract(model, parametrization)
    return initial_values(specs, scalings(specs, parametrization, model), named_key(key, "init"))


@functools.cache
def counts(model: Model) -> Counts:
    """Numbers of parameters, from the declarations: this allocates nothing.

    >>> counts(Model.sized(width=64, depth=2, vocabulary=512, head_size=16))
    Counts(params=166208, params_non_embedding=100352, params_with_head=133120)
    """
    _, specs = abstract(model, Parametrization())
    return count(specs, model)
