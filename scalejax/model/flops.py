"""Parameters and training FLOPs by the conventions of the papers, in Python's exact integers, and the utilization of a device.

Comparing laws needs one convention: with small models and large vocabularies the choice moves the exponent of the best size from
0.84 to 0.71 (Porian et al. 2024).
"""

from collections.abc import Callable

from scalejax.config import Model
from scalejax.model.transformer import counts

PEAK_FLOPS = {  # jax's device_kind -> dense bfloat16 FLOPs per second, as the makers state them
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,  # v5p
    "TPU v6 lite": 918e12,
}


def training_flops(
    model: Model, sequence_length: int, tokens: float, *, convention: str = "exact"
) -> int:
    """FLOPs of training on `tokens` tokens by the convention of that name in CONVENTIONS; forward 1, backward 2 shares.

    Raises ValueError for a name that is not there.

    >>> model = Model.sized(width=64, depth=2, vocabulary=512, head_size=16)
    >>> [training_flops(model, 128, 1280, convention=name) for name in ("kaplan", "with-head", "exact")]
    [770703360, 1022361600, 1149173760]
    """
    if convention not in CONVENTIONS:
        raise ValueError(
            f"FLOPs are counted by one of {', '.join(CONVENTIONS)}; got {convention!r}"
        )
    return 3 * CONVENTIONS[convention](model, sequence_length) * int(tokens) // sequence_length


def exact(model: Model, sequence_length: int, *, causal: bool = True) -> int:
    """Matrix products of one sequence through the network, the head among them, at 2 FLOPs per multiply-add.

    The embedding look-up and everything elementwise are not counted. Position t (from 0) needs t + 1 keys, half of the square
    of attention; `causal=False` bills the whole square, which is what einsum attention computes.
    """
    pairs = sequence_length * (sequence_length + 1) // 2 if causal else sequence_length**2
    attention = 2 * 2 * pairs * model.heads * model.head_size
    return model.depth * attention + 2 * sequence_length * counts(model).params_with_head


def square(model: Model, sequence_length: int) -> int:
    """`exact` with the whole square of attention."""
    return exact(model, sequence_length, causal=False)


def kaplan(model: Model, sequence_length: int) -> int:
    """2 per parameter and token, embedding and head left out (Kaplan et al. 2020: C = 6 N D with N non-embedding)."""
    return 2 * sequence_length * counts(model).params_non_embedding


def with_head(model: Model, sequence_length: int) -> int:
    """2 per parameter and token, the head counted (Porian et al. 2024)."""
    return 2 * sequence_length * counts(model).params_with_head


def with_attention(model: Model, sequence_length: int) -> int:
    """`with_head` and 2 s x heads x head_size per layer and token: 6 N_eff = 6 N + 6 s w L (Porian et al. 2024).

    That is causal attention to leading order in s.
    """
    return 2 * sequence_length * effective_params(model, sequence_length)


def effective_params(model: Model, sequence_length: int) -> int:
    """N + s w L: the size that carries attention's FLOPs in 6 N D (Porian et al. 2024)."""
    return (
        counts(model).params_with_head
        + sequence_length * model.heads * model.head_size * model.depth
    )


def hoffmann(model: Model, sequence_length: int) -> int:
    """Hoffmann et al. 2022, appendix F: embedding as a dense product, 3 per softmax entry, the whole square of attention.

    With the three matrices of SwiGLU this is what Hägele et al. 2024 bill.

    >>> ladder = Model(width=384, depth=8, heads=6, kv_heads=6, head_size=64, mlp_width=1024, vocabulary=50_257, tied=True)
    >>> 3 * hoffmann(ladder, 512)
    171834605568
    """
    s, attended = sequence_length, model.heads * model.head_size
    softmax = 3 * model.heads * s * s
    embedding = 2 * s * model.vocabulary * model.width
    matrices = 2 * s * counts(model).params_with_head
    return embedding + matrices + model.depth * (2 * 2 * s * s * attended + softmax)


def gadre(model: Model, sequence_length: int) -> int:
    """2 per parameter and token, every parameter counted: embedding, head and norms (Gadre et al. 2024: C = 6 N D)."""
    return 2 * sequence_length * counts(model).params


CONVENTIONS: dict[
    str, Callable[[Model, int], int]
] = {  # name -> forward FLOPs of one sequence of that length
    "exact": exact,
    "square": square,
    "kaplan": kaplan,
    "with-head": with_head,
    "with-attention": with_attention,
    "hoffmann": hoffmann,
    "gadre": gadre,
}


def flops_6nd(model: Model, tokens: float) -> int:
    """6 x params_with_head x tokens: the `with-head` convention, which knows no sequence length."""
    return 6 * counts(model).params_with_head * int(tokens)


def mfu(
    model: Model, sequence_length: int, tokens_per_second: float, *, peak_flops: float
) -> float:
    """Model FLOPs utilization: `exact` training FLOPs per second over the `peak_flops` of all devices (see PEAK_FLOPS).

    Causal halving makes it lower than figures that bill the whole square of attention (Chowdhery et al. 2022, appendix B).
    Raises ValueError for a peak that is not positive.

    >>> model = Model.sized(width=64, depth=2, vocabulary=512, head_size=16)
    >>> round(mfu(model, 128, tokens_per_second=50_000, peak_flops=100e9), 3)
    0.449
    """
    if not peak_flops > 0:
        raise ValueError(
            f"peak_flops is the FLOPs per second of all devices together, positive; got {peak_flops!r}"
        )
    return 3 * exact(model, sequence_length) / sequence_length * tokens_per_second / peak_flops
