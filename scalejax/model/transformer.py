"""The transformer: RoPE, RMSNorm, SwiGLU, grouped-query attention, no biases.

Axes: b sequences, t positions, d width, n query heads, g kv heads, h head size, f mlp width, v vocabulary.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from scalejax.config import Model, Parametrization, Run
from scalejax.model.attention import causal_attention
from scalejax.model.parameters import (
    Counts,
    Params,
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

ROPE_THETA = 10_000.0
NORM_EPSILON = 1e-6


class Transformer(nnx.Module):
    """Tokens in, logits out; parameters float32, activations `compute_dtype`, logits float32."""

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

    def __call__(self, tokens_bt: jax.Array, segments_bt: jax.Array | None = None) -> jax.Array:
        """Logits [b, t, v]; those at t depend on tokens 0..t, with `segments_bt` on those of one segment alone."""
        return self.logits(self.hidden(tokens_bt, segments_bt))

    def hidden(self, tokens_bt: jax.Array, segments_bt: jax.Array | None = None) -> jax.Array:
        """The residual stream after the final norm, [b, t, d]: what the head reads."""
        x_btd = self.embed(tokens_bt)
        for block in self.blocks:
            x_btd = block(x_btd, segments_bt)
        return self.norm(x_btd)

    def embed(self, tokens_bt: jax.Array) -> jax.Array:
        """The residual stream before the first block, [b, t, d]."""
        return self.embedding[...].astype(self.compute_dtype)[tokens_bt]

    def logits(self, x_btd: jax.Array) -> jax.Array:
        """The head alone, so that a loss can take it in chunks."""
        head_dv = self.embedding[...].T if self.tied else self.head[...]
        return project(x_btd * self.output_multiplier, head_dv, dtype=jnp.float32)


class Block(nnx.Module):
    """x + r attention(norm(x)), then x + r mlp(norm(x)); r is the parametrization's branch multiplier."""

    def __init__(self, model: Model, parametrization: Parametrization):
        self.branch_multiplier = branch_multiplier(parametrization, model)
        self.attention_norm = RMSNorm("block_norm", width=model.width)
        self.attention = Attention(model, attention_multiplier(parametrization, model))
        self.mlp_norm = RMSNorm("block_norm", width=model.width)
        self.mlp = MLP(model)

    def __call__(self, x_btd: jax.Array, segments_bt: jax.Array | None = None) -> jax.Array:
        x_btd = x_btd + self.branch_multiplier * self.attention(
            self.attention_norm(x_btd), segments_bt
        )
        return x_btd + self.branch_multiplier * self.mlp(self.mlp_norm(x_btd))


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions: they enter as differences alone, so that each segment's begin anew."""

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

    def __call__(self, x_btd: jax.Array, segments_bt: jax.Array | None = None) -> jax.Array:
        q_btnh, k_btgh = self.queries_and_keys(x_btd)
        v_btgh = project(x_btd, self.value[...])
        y_btnh = causal_attention(q_btnh, k_btgh, v_btgh, scale=self.scale, segments_bt=segments_bt)
        return project(y_btnh, self.output[...], over=2)

    def queries_and_keys(self, x_btd: jax.Array) -> tuple[jax.Array, jax.Array]:
        """([b, t, n, h], [b, t, g, h]), normed where the model says so, and turned."""
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

    def __call__(self, x_btd: jax.Array) -> jax.Array:
        gate_btf = project(x_btd, self.gate[...])
        return project(jax.nn.silu(gate_btf) * project(x_btd, self.up[...]), self.down[...])


class RMSNorm(nnx.Module):
    """x / rms(x) * gain over the last axis, the mean square in float32."""

    def __init__(self, role: Role, **axis: int):
        self.gain = declare(role, fan_in=1, **axis)

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        inverse_rms = jax.lax.rsqrt(
            jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + NORM_EPSILON
        )
        return (x32 * inverse_rms * self.gain[...]).astype(x.dtype)


def project(
    x: jax.Array, kernel: jax.Array, *, over: int = 1, dtype: jnp.dtype | None = None
) -> jax.Array:
    """The product of `x` [b, t, in..] and `kernel` [in.., out..], summed over the `over` axes `in`, in the dtype of `x`.

    All tokens as the rows of one matrix: XLA's CPU products take 0.6 of the time that they take with b and t apart.
    """
    lead, out = x.shape[: x.ndim - over], kernel.shape[over:]
    fan_in = math.prod(kernel.shape[:over])
    product = jnp.dot(
        x.reshape(-1, fan_in),
        kernel.reshape(fan_in, -1).astype(x.dtype),
        preferred_element_type=dtype,
    )
    return product.reshape(*lead, *out)


def rotate(x_btnh: jax.Array) -> jax.Array:
    """Rotary positions (Su et al. 2021): feature i turns with feature i + h/2 by t theta^(-2i/h), positions from 0."""
    t, h = x_btnh.shape[1], x_btnh.shape[3]
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
) -> tuple[nnx.GraphDef, Params]:
    """The network without values: (graphdef, declarations). `nnx.merge(graphdef, params)` gives a module to call."""
    module = Transformer(model, parametrization, compute_dtype)
    return nnx.graphdef(module), specs_of(module)


def initialize(model: Model, parametrization: Parametrization, key: jax.Array) -> Params:
    """Initial parameters, as nested dicts; `key` is the run's key, of which init takes the part named `init`."""
    _, specs = abstract(model, parametrization)
    return initial_values(specs, scalings(specs, parametrization, model), named_key(key, "init"))


def build(run: Run) -> Transformer:
    """The run's network with its initial values, to call as it stands."""
    graphdef, _ = abstract(run.model, run.parametrization, run.compute_dtype)
    return nnx.merge(graphdef, initialize(run.model, run.parametrization, jax.random.key(run.seed)))


def counts(model: Model) -> Counts:
    """Numbers of parameters, from the declarations alone: no memory, no compilation.

    >>> counts(Model.sized(width=64, depth=2, vocabulary=512, head_size=16))
    Counts(params=166208, params_non_embedding=100352, params_with_head=133120)
    """
    _, specs = abstract(model, Parametrization())
    return count(specs, model)
