"""Training FLOPs of a model, counted as different papers count them, and token budgets.

Laws can be compared only when they count parameters and FLOPs in the same way. For
small models with large vocabularies this choice moves the fitted exponent of the
optimal model size from 0.84 to 0.71 (Porian et al. 2024).

All counts are exact Python integers: int64 and float64 are too small for large runs.
"""

from collections.abc import Callable

from scalejax.config import Model, Run
from scalejax.model.transformer import counts

# Peak dense bfloat16 FLOPs per second that vendors publish, by
# `jax.Device.device_kind`.
PEAK_FLOPS = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    # jax calls the v5p "TPU v5".
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}


def training_flops(
    model: Model, sequence_length: int, tokens: float, *, convention: str = "exact"
) -> int:
    """FLOPs of training on `tokens` tokens, in sequences of `sequence_length`.

    The backward pass costs twice the forward pass, so the total is three forward
    passes. `convention` is a key of CONVENTIONS. Raises ValueError for any other name.

    >>> model = Model.sized(width=64, depth=2, vocabulary=512, head_size=16)
    >>> training_flops(model, 128, 1280, convention="kaplan")
    770703360
    >>> training_flops(model, 128, 1280, convention="with-head")
    1022361600
    >>> training_flops(model, 128, 1280)
    1149173760
    """
    if convention not in CONVENTIONS:
        raise ValueError(
            f"the FLOP convention must be one of {', '.join(CONVENTIONS)}; got {convention!r}"
        )
    forward = CONVENTIONS[convention](model, sequence_length)
    return 3 * forward * int(tokens) // sequence_length


def exact(model: Model, sequence_length: int, *, causal: bool = True) -> int:
    """Forward FLOPs of one sequence: every matrix product, including the head.

    A multiply-add is 2 FLOPs. The embedding look-up and elementwise operations are not
    counted. Causal attention needs t + 1 keys at position t (from 0). `causal=False`
    counts the full sequence_length x sequence_length square, which einsum attention
    computes.
    """
    causal_pairs = sequence_length * (sequence_length + 1) // 2
    pairs = causal_pairs if causal else sequence_length**2
    # Two products per pair of positions: queries with keys, and weights with values.
    attention = 2 * 2 * pairs * model.heads * model.head_size
    return model.depth * attention + 2 * sequence_length * counts(model).params_with_head


def full_square(model: Model, sequence_length: int) -> int:
    """`exact` with the full square of attention instead of its causal half."""
    return exact(model, sequence_length, causal=False)


def kaplan(model: Model, sequence_length: int) -> int:
    """2 FLOPs per non-embedding parameter and token, without the head.

    Kaplan et al. 2020 write C = 6 N D with N the non-embedding parameters.
    """
    return 2 * sequence_length * counts(model).params_non_embedding


def with_head(model: Model, sequence_length: int) -> int:
    """2 FLOPs per parameter and token, including the head (Porian et al. 2024)."""
    return 2 * sequence_length * counts(model).params_with_head


def with_attention(model: Model, sequence_length: int) -> int:
    """`with_head` plus causal attention to leading order in the sequence length.

    Attention adds 2 s x heads x head_size per layer and token, so that training costs
    6 N + 6 s w L per token (Porian et al. 2024).
    """
    return 2 * sequence_length * effective_params(model, sequence_length)


def effective_params(model: Model, sequence_length: int) -> int:
    """N + s w L: the size for which 6 N D includes attention (Porian et al. 2024)."""
    attention = sequence_length * model.heads * model.head_size * model.depth
    return counts(model).params_with_head + attention


def hoffmann(model: Model, sequence_length: int) -> int:
    """Forward FLOPs of one sequence by appendix F of Hoffmann et al. 2022.

    It counts the embedding as a dense product, 3 FLOPs per softmax entry and the full
    square of attention. With SwiGLU's three matrices these are the FLOPs that Hägele et
    al. 2024 report.

    >>> model = Model(width=384, depth=8, heads=6, kv_heads=6, head_size=64,
    ...               mlp_width=1024, vocabulary=50_257, tied=True)
    >>> 3 * hoffmann(model, 512)
    171834605568
    """
    s, attention_width = sequence_length, model.heads * model.head_size
    softmax = 3 * model.heads * s * s
    attention = 2 * 2 * s * s * attention_width + softmax
    embedding = 2 * s * model.vocabulary * model.width
    matrices = 2 * s * counts(model).params_with_head
    return embedding + matrices + model.depth * attention


def gadre(model: Model, sequence_length: int) -> int:
    """2 FLOPs per parameter and token, counting embedding, head and norms.

    Gadre et al. 2024 write C = 6 N D with N all parameters.
    """
    return 2 * sequence_length * counts(model).params


# Each convention maps (model, sequence length) to the forward FLOPs of one sequence.
CONVENTIONS: dict[str, Callable[[Model, int], int]] = {
    "exact": exact,
    "square": full_square,
    "kaplan": kaplan,
    "with-head": with_head,
    "with-attention": with_attention,
    "hoffmann": hoffmann,
    "gadre": gadre,
}


def flops_6nd(model: Model, tokens: float) -> int:
    """Training FLOPs as 6 N D with N = params_with_head: the `with-head` convention."""
    return 6 * counts(model).params_with_head * int(tokens)


def mfu(
    model: Model, sequence_length: int, tokens_per_second: float, *, peak_flops: float
) -> float:
    """Model FLOPs utilization: achieved over peak FLOPs per second.

    Achieved FLOPs follow the `exact` convention. Counting only the causal half of
    attention makes this lower than figures that count the full square (Chowdhery et al.
    2022, appendix B). `peak_flops` is the sum over all devices; see PEAK_FLOPS. Raises
    ValueError unless it is positive.

    >>> model = Model.sized(width=64, depth=2, vocabulary=512, head_size=16)
    >>> round(mfu(model, 128, tokens_per_second=50_000, peak_flops=100e9), 3)
    0.449
    """
    if not peak_flops > 0:
        raise ValueError(
            "peak_flops must be the FLOPs per second of all devices together and positive; "
            f"got {peak_flops!r}"
        )
    return 3 * exact(model, sequence_length) / sequence_length * tokens_per_second / peak_flops


def per_param(ratio: float, *, count: str = "params_with_head") -> Callable[[Run], float]:
    """Token budgets of `ratio` tokens per parameter, as an axis of a grid.

    `grid(base, model=sizes, tokens=per_param(20))` trains every model on 20 tokens per
    parameter, which is about optimal according to Hoffmann et al. 2022. `count` says
    which parameters are counted: `params_with_head`, `params_non_embedding` or
    `params`.

    Raises ValueError for any other count and for a ratio that is not positive.
    """
    if count not in ("params_with_head", "params_non_embedding", "params"):
        raise ValueError(
            f"count must be params_with_head, params_non_embedding or params; got {count!r}"
        )
    if not ratio > 0:
        raise ValueError(f"tokens per parameter must be positive; got {ratio!r}")

    def tokens(run: Run) -> float:
        return float(ratio * getattr(counts(run.model), count))

    return tokens
