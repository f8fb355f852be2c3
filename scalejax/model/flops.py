"""Training FLOPs by named convention, in Python's exact integers."""

from scalejax.config import Model
from scalejax.model.transformer import counts


def training_flops(model: Model, sequence_length: int, tokens: float) -> int:
    """Matrix products of forward and backward over `tokens` tokens: 3 x forward.

    Every product is counted at 2 FLOPs per multiply-add, the head among them; the embedding look-up and everything elementwise
    are not. Attention counts what causality needs: position t (from 0) reads t + 1 keys, half of the full square.
    """
    return 3 * forward_flops(model, sequence_length) * int(tokens) // sequence_length


def forward_flops(model: Model, sequence_length: int, *, causal: bool = True) -> int:
    """Matrix products of one sequence through the network; `causal=False` bills the whole square of attention."""
    pairs = sequence_length * (sequence_length + 1) // 2 if causal else sequence_length**2
    attention = 2 * 2 * pairs * model.heads * model.head_size
    matrices = 2 * sequence_length * counts(model).params_with_head
    return model.depth * attention + matrices


def flops_6nd(model: Model, tokens: float) -> int:
    """6 x params_with_head x tokens: forward 2, backward 4 FLOPs per parameter and token, no attention (Kaplan et al. 2020)."""
    return 6 * counts(model).params_with_head * int(tokens)
