"""The transformer: RoPE, RMSNorm, SwiGLU, grouped-query attention, no biases.

The named scopes appear in profiles (`Measure(profile_steps=..)`), not in results.

A suffix on an array's name lists its axes: b sequences, t positions, d width, n query
heads, g kv heads, h head size, f mlp width, v vocabulary.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from scalejax.config import Model, Parametrization
from scalejax.model.fused_attention import attend
from scalejax.model.layout import Layout
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

# Added to the mean square in RMSNorm.
NORM_EPSILON = 1e-6

# The layout of a network on one device that keeps all activations.
SINGLE_DEVICE = Layout()

# Callers may pass token ids and segment ids as numpy arrays.
Integers = Array | np.ndarray


# Logical axes of the activations, from which their split over a mesh follows.
RESIDUAL = ("batch", "position", "width")
HIDDEN = ("batch", "position", "mlp_width")
LOGITS = ("batch", "position", "vocabulary")
HEADS = ("batch", "position", "heads", "head_size")


class Transformer(nnx.Module):
    """A decoder-only language model that maps token ids to logits.

    Parameters are float32, activations have dtype `compute_dtype`, logits are float32.
    """

    def __init__(
        self,
        model: Model,
        parametrization: Parametrization,
        compute_dtype: str = "float32",
        layout: Layout = SINGLE_DEVICE,
    ):
        self.layout = layout
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
        self.blocks = nnx.List([Block(model, parametrization, layout) for _ in range(model.depth)])
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
        return self.logits(self.hidden(tokens_bt, segments_bt))[..., : self.vocabulary]

    def hidden(
        self, tokens_bt: Int[Integers, "b t"], segments_bt: Int[Integers, "b t"] | None = None
    ) -> Float[Array, "b t d"]:
        """The residual stream after the final norm, which is the input of the head."""
        x_btd = self.embed(tokens_bt)
        # The blocks are one function of their parameters, so that it can be
        # rematerialized and looped over. Under `jit` it is traced once, not per block.
        graphdef = nnx.graphdef(self.blocks[0])
        block = jax.jit(
            self.layout.rematerialized(
                lambda params, x_btd: nnx.merge(graphdef, params)(x_btd, segments_bt)
            )
        )
        params_of_blocks = [nnx.state(block) for block in self.blocks]
        if self.layout.scan_layers:
            stacked = jax.tree.map(lambda *layers: jnp.stack(layers), *params_of_blocks)
            x_btd, _ = jax.lax.scan(lambda x, params: (block(params, x), None), x_btd, stacked)
        else:
            for params in params_of_blocks:
                x_btd = block(params, x_btd)
        return self.norm(x_btd)

    @jax.named_scope("embedding")
    def embed(self, tokens_bt: Int[Integers, "b t"]) -> Float[Array, "b t d"]:
        """The residual stream before the first block."""
        # Tokens are looked up in a whole copy of the embedding: a lookup in a split
        # table would make XLA gather its result, which is larger.
        embedding_vd = self.layout.constrain(self.embedding[...])
        # Looked up in float32 and rounded afterwards. The other way round, the gradient
        # of a frequent token would be a long sum in bfloat16, which stops growing.
        x_btd = embedding_vd[tokens_bt].astype(self.compute_dtype)
        return self.layout.constrain(x_btd, *RESIDUAL)

    def logits(
        self, x_btd: Float[Array, "b t d"], kernel_dv: Float[Array, "d _"] | None = None
    ) -> Float[Array, "b t v"]:
        """The head, separate from `hidden` so that a loss can apply it in chunks.

        Its kernel is `output_kernel_dv`, or another one of its shape. When `tensor`
        does not divide the vocabulary, the last logits are padding and -inf.
        """
        if kernel_dv is None:
            kernel_dv = self.output_kernel_dv
        padding = self.padded_vocabulary - self.vocabulary
        if padding:
            kernel_dv = jnp.pad(kernel_dv, ((0, 0), (0, padding)))
        x_btd = x_btd * self.output_multiplier
        on_cpu = self.layout.platform == "cpu" and x_btd.dtype == jnp.float32
        product = wide_product if on_cpu else functools.partial(project, dtype=jnp.float32)
        logits_btv = product(x_btd, kernel_dv)
        logits_btv = self.layout.constrain(logits_btv, *LOGITS)
        if padding:
            is_token_v = np.arange(self.padded_vocabulary) < self.vocabulary
            logits_btv = jnp.where(is_token_v, logits_btv, -jnp.inf)
        return logits_btv

    @property
    def output_kernel_dv(self) -> Float[Array, "d v"]:
        """The kernel of the head: the embedding's transpose in a tied model."""
        return self.embedding[...].T if self.tied else self.head[...]

    @property
    def padded_vocabulary(self) -> int:
        """The vocabulary, rounded up to a multiple of the parts it is split into."""
        parts = self.layout.parts("vocabulary")
        return math.ceil(self.vocabulary / parts) * parts

    def logits_per_position(self, batch: int) -> int:
        """Number of logits that one device holds for a position of every sequence."""
        return self.layout.shard_size(LOGITS, (batch, 1, self.padded_vocabulary))


class Block(nnx.Module):
    """x + r attention(norm(x)), then x + r mlp(norm(x)).

    r is the branch multiplier of the parametrization.
    """

    def __init__(self, model: Model, parametrization: Parametrization, layout: Layout):
        self.layout = layout
        self.branch_multiplier = branch_multiplier(parametrization, model)
        self.attention_norm = RMSNorm("block_norm", width=model.width)
        self.attention = Attention(model, attention_multiplier(parametrization, model), layout)
        self.mlp_norm = RMSNorm("block_norm", width=model.width)
        self.mlp = MLP(model, layout)

    def __call__(
        self, x_btd: Float[Array, "b t d"], segments_bt: Int[Integers, "b t"] | None = None
    ) -> Float[Array, "b t d"]:
        attended_btd = self.attention(self.attention_norm(x_btd), segments_bt)
        x_btd = x_btd + self.branch_multiplier * attended_btd
        x_btd = self.layout.constrain(x_btd, *RESIDUAL)
        x_btd = x_btd + self.branch_multiplier * self.mlp(self.mlp_norm(x_btd))
        return self.layout.constrain(x_btd, *RESIDUAL)


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions.

    Positions count from the start of the sequence, also inside segments: rotary
    attention depends only on differences of positions, so each segment behaves as if it
    began at 0.
    """

    def __init__(self, model: Model, scale: float, layout: Layout):
        self.layout = layout
        d, n, g, h = model.width, model.heads, model.kv_heads, model.head_size
        self.scale = scale
        self.qk_norm = model.qk_norm
        self.rope_theta = model.rope_theta
        self.query = declare("hidden", fan_in=d, width=d, heads=n, head_size=h)
        self.key = declare("hidden", fan_in=d, width=d, kv_heads=g, head_size=h)
        self.value = declare("hidden", fan_in=d, width=d, kv_heads=g, head_size=h)
        self.output = declare("hidden", fan_in=n * h, heads=n, head_size=h, width=d)
        if model.qk_norm:
            self.query_norm = RMSNorm("block_norm", head_size=h)
            self.key_norm = RMSNorm("block_norm", head_size=h)

    @jax.named_scope("attention")
    def __call__(
        self, x_btd: Float[Array, "b t d"], segments_bt: Int[Integers, "b t"] | None = None
    ) -> Float[Array, "b t d"]:
        q_btnh, k_btgh = self.queries_and_keys(x_btd)
        v_btgh = project(x_btd, self.value[...])
        q_btnh = self.layout.constrain(q_btnh, *HEADS)
        k_btgh, v_btgh = self._split_kv_heads(k_btgh), self._split_kv_heads(v_btgh)
        attend_on_each = self.layout.on_each_device(
            lambda q, k, v, segments: attend(
                q, k, v, scale=self.scale, segments_bt=segments, platform=self.layout.platform
            ),
            *(HEADS, HEADS, HEADS, ("batch", "position")),
        )
        y_btnh = attend_on_each(q_btnh, k_btgh, v_btgh, segments_bt)
        return project(y_btnh, self.output[...], input_axes=2)

    def _split_kv_heads(self, x_btgh: Float[Array, "b t g h"]) -> Float[Array, "b t r h"]:
        """Keys or values, with a part of the heads on every device.

        Every kv head is repeated until `tensor` divides their number. It divides the
        number of query heads, of which the kv heads are a divisor: so does their least
        common multiple.
        """
        kv_heads = x_btgh.shape[2]
        repeats = math.lcm(kv_heads, self.layout.parts("heads")) // kv_heads
        if repeats > 1:
            x_btgh = jnp.repeat(x_btgh, repeats, axis=2)
        return self.layout.constrain(x_btgh, *HEADS)

    def queries_and_keys(
        self, x_btd: Float[Array, "b t d"]
    ) -> tuple[Float[Array, "b t n h"], Float[Array, "b t g h"]]:
        """Queries and keys, normalized if the model has `qk_norm`, and rotated."""
        q_btnh, k_btgh = project(x_btd, self.query[...]), project(x_btd, self.key[...])
        if self.qk_norm:
            q_btnh, k_btgh = self.query_norm(q_btnh), self.key_norm(k_btgh)
        return rotate(q_btnh, self.rope_theta), rotate(k_btgh, self.rope_theta)


class MLP(nnx.Module):
    """SwiGLU (Shazeer 2020): (silu(x gate) * (x up)) down."""

    def __init__(self, model: Model, layout: Layout):
        self.layout = layout
        d, f = model.width, model.mlp_width
        self.gate = declare("hidden", fan_in=d, width=d, mlp_width=f)
        self.up = declare("hidden", fan_in=d, width=d, mlp_width=f)
        self.down = declare("hidden", fan_in=f, mlp_width=f, width=d)

    @jax.named_scope("mlp")
    def __call__(self, x_btd: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        gate_btf = self.layout.constrain(project(x_btd, self.gate[...]), *HIDDEN)
        up_btf = self.layout.constrain(project(x_btd, self.up[...]), *HIDDEN)
        return project(jax.nn.silu(gate_btf) * up_btf, self.down[...])


class RMSNorm(nnx.Module):
    """x / rms(x) * gain over the last axis, with the mean square in float32."""

    def __init__(self, role: Role, **axis: int):
        self.gain = declare(role, fan_in=1, **axis)

    @jax.named_scope("norm")
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


@jax.custom_vjp
def wide_product(x_btd: Float[Array, "b t d"], kernel_dv: Float[Array, "d v"]) -> Array:
    """Multiply as `project` does, for a kernel that is much wider than high.

    The gradient of the kernel is the product of x, transposed, with a matrix that is
    just as wide. XLA's CPU matmul takes 1.6 to 1.8 times as long when it is left to it
    to read x transposed.
    """
    return project(x_btd, kernel_dv)


def _wide_forward(x_btd: Array, kernel_dv: Array):
    return project(x_btd, kernel_dv), (x_btd, kernel_dv)


def _wide_backward(saved: tuple[Array, Array], dy_btv: Array):
    x_btd, kernel_dv = saved
    dy_nv = dy_btv.reshape(-1, dy_btv.shape[-1])
    # Without the barrier, the transposition becomes a part of the matmul again.
    x_dn = jax.lax.optimization_barrier(x_btd.reshape(-1, x_btd.shape[-1]).T)
    return project(dy_btv, kernel_dv.T), x_dn @ dy_nv


wide_product.defvjp(_wide_forward, _wide_backward)


def rotate(x_btnh: Float[Array, "b t n h"], theta: float) -> Float[Array, "b t n h"]:
    """Rotary position embedding (Su et al. 2021), with positions counted from 0.

    At position t, features i and i + h/2 are rotated together by t theta^(-2i/h)
    radians.
    """
    t, h = x_btnh.shape[1], x_btnh.shape[3]
    # numpy computes the angles in float64; in a compiled program they are constants.
    angle_th = np.arange(t)[:, None] * theta ** (-np.arange(0, h, 2) / h)
    cos_tnh = np.cos(angle_th)[:, None, :].astype(x_btnh.dtype)
    sin_tnh = np.sin(angle_th)[:, None, :].astype(x_btnh.dtype)
    first, second = x_btnh[..., : h // 2], x_btnh[..., h // 2 :]
    return jnp.concatenate(
        [first * cos_tnh - second * sin_tnh, second * cos_tnh + first * sin_tnh], axis=-1
    )


@functools.cache
def abstract(
    model: Model,
    parametrization: Parametrization,
    compute_dtype: str = "float32",
    layout: Layout = SINGLE_DEVICE,
) -> tuple[nnx.GraphDef[Transformer], Specs]:
    """The network without values: its graph definition and its declarations.

    `nnx.merge(graphdef, params)` combines the graph definition with parameters into a
    module that can be called.
    """
    module = Transformer(model, parametrization, compute_dtype, layout)
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
