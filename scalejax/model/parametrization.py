"""How a tensor's role and the model's size set its init, learning rate, epsilon, weight decay and the forward multipliers.

m = width / base_width and m_f = mlp_width / base_mlp_width under `mup` and `completep`, m_L = depth / base_depth under
`completep`; each is 1 where it is not named:

| role                      | init std         | learning rate | epsilon    | weight decay (mode `standard`) |
|---------------------------|------------------|---------------|------------|--------------------------------|
| embedding                 | 1                | 1             | 1/m        | 0                              |
| hidden, reading width     | 0.5/sqrt(fan_in) | 1/m           | 1/(m m_L)  | m                              |
| hidden, reading mlp_width | 0.5/sqrt(fan_in) | 1/m_f         | 1/(m m_L)  | m_f                            |
| block_norm                | 1 (the gain)     | 1             | 1/(m m_L)  | 0                              |
| norm (the last one)       | 1 (the gain)     | 1             | 1/m        | 0                              |
| output                    | 0.02             | 1             | 1/m        | 1                              |
| tied (embedding and head) | 0.02             | 1             | 1/m        | 0                              |

Forward: logits x 1/m, every residual branch x 1/m_L, query-key products x sqrt(base_head_size)/head_size.

Yang et al. 2022 (arXiv 2203.03466), table 8, in the one readout convention that also works tied: constant std, learning rate 1,
multiplier 1/m. With it every gradient shrinks as 1/m, the readout's by its multiplier and all others by what flows back through
it, so one epsilon for all widths needs 1/m throughout (the published table scales the blocks alone). Weight decay multiplies the
learning rate in mode `standard`, so m keeps their product constant in width. CompleteP (Dey et al. 2025, arXiv 2505.01618) is
depth exponent 1: branches and their gradients shrink as 1/m_L, and the learning rate does not move with depth.

Heads grow in number at one size, heads x head_size and kv_heads in proportion to width: with a fixed number of kv heads under
more and more query heads nothing here keeps their gradients in place.
"""

from typing import Literal, NamedTuple

from scalejax.config import Model, Parametrization

Role = Literal["embedding", "hidden", "block_norm", "norm", "output", "tied"]

EMBEDDING_STD = 1.0
"""Of an untied embedding. A residual stream of std 1 from the start: against 0.02, runs of 0.6 M tokens at width 48 end 0.08 nats
lower, and less apart from seed to seed."""
HEAD_STD = 0.02
"""Of the head, tied or not: the first logits are near zero."""
HIDDEN_GAIN = 0.5
"""Std of hidden matrices in units of 1/sqrt(fan_in). With it and `qk_norm` the same runs end another 0.08 nats lower."""


class Scaling(NamedTuple):
    """What one tensor's role means at one size of the model."""

    init_std: float
    """Std of the normal initial values; 0 for norm gains, which start at 1."""
    learning_rate: float
    """Multiplier of the scheduled rate."""
    epsilon: float
    """Multiplier of Adam's epsilon."""
    weight_decay: float
    """Multiplier of weight decay in mode `standard`; 0: never decayed, in either mode."""


def standard() -> Parametrization:
    """The same learning rate and epsilon for every tensor at every size; hidden matrices start at std 0.5/sqrt(fan_in)."""
    return Parametrization(name="standard")


def mup(*, base_width: int, base_mlp_width: int = 0, base_head_size: int = 0) -> Parametrization:
    """Maximal update parametrization: equal to `standard` at the base; the best learning rate stays put in width.

    Name `base_mlp_width` when mlp_width does not grow exactly with width (rounding, another ratio), and `base_head_size` when
    heads grow in size and not in number; left out, each model's own ratio and head size are taken for the base's.
    """
    return Parametrization(
        name="mup",
        base_width=base_width,
        base_mlp_width=base_mlp_width,
        base_head_size=base_head_size,
    )


def completep(
    *, base_width: int, base_depth: int, base_mlp_width: int = 0, base_head_size: int = 0
) -> Parametrization:
    """CompleteP: `mup` in width, and in depth residual branches x base_depth / depth; the best rate stays put in both.

    The optional bases are those of `mup`.
    """
    return Parametrization(
        name="completep",
        base_width=base_width,
        base_depth=base_depth,
        base_mlp_width=base_mlp_width,
        base_head_size=base_head_size,
    )


def width_ratio(parametrization: Parametrization, model: Model, axis: str = "width") -> float:
    """How many times longer than at the base an axis is that matrices sum over: m, or m_f for `mlp_width`."""
    if axis == "mlp_width" and parametrization.base_mlp_width:
        return model.mlp_width / parametrization.base_mlp_width
    return model.width / parametrization.base_width if parametrization.base_width else 1.0


def depth_ratio(parametrization: Parametrization, model: Model) -> float:
    """m_L: how many times deeper than the base; 1 unless under `completep`."""
    return model.depth / parametrization.base_depth if parametrization.base_depth else 1.0


def scaling(
    parametrization: Parametrization, model: Model, *, role: Role, fan_in: int, reads: str = "width"
) -> Scaling:
    """The row of the table above for one tensor, whose inputs lie along the axis `reads`.

    >>> wide = Model.sized(width=256, depth=8, vocabulary=512, head_size=32)
    >>> scaling(completep(base_width=64, base_depth=2), wide, role="hidden", fan_in=256)
    Scaling(init_std=0.03125, learning_rate=0.25, epsilon=0.0625, weight_decay=4.0)
    """
    m, m_in, m_depth = (
        width_ratio(parametrization, model),
        width_ratio(parametrization, model, reads),
        depth_ratio(parametrization, model),
    )
    match role:
        case "embedding":
            return Scaling(
                init_std=EMBEDDING_STD, learning_rate=1.0, epsilon=1 / m, weight_decay=0.0
            )
        case "hidden":
            return Scaling(
                init_std=HIDDEN_GAIN * fan_in**-0.5,
                learning_rate=1 / m_in,
                epsilon=1 / (m * m_depth),
                weight_decay=m_in,
            )
        case "block_norm":
            return Scaling(
                init_std=0.0, learning_rate=1.0, epsilon=1 / (m * m_depth), weight_decay=0.0
            )
        case "norm":
            return Scaling(init_std=0.0, learning_rate=1.0, epsilon=1 / m, weight_decay=0.0)
        case "output":
            return Scaling(init_std=HEAD_STD, learning_rate=1.0, epsilon=1 / m, weight_decay=1.0)
        case "tied":
            return Scaling(init_std=HEAD_STD, learning_rate=1.0, epsilon=1 / m, weight_decay=0.0)


def output_multiplier(parametrization: Parametrization, model: Model) -> float:
    """Multiplier of the logits: 1/m, tied or untied."""
    return 1 / width_ratio(parametrization, model)


def branch_multiplier(parametrization: Parametrization, model: Model) -> float:
    """Multiplier of what attention and MLP add to the residual stream: 1/m_L."""
    return 1 / depth_ratio(parametrization, model)


def attention_multiplier(parametrization: Parametrization, model: Model) -> float:
    """Multiplier of query-key products: sqrt(base_head_size)/head_size, which is 1/sqrt(head_size) at one size of head.

    >>> attention_multiplier(standard(), Model.sized(width=64, depth=1, vocabulary=2, head_size=16))
    0.25
    """
    base_head_size = parametrization.base_head_size or model.head_size
    return (
        model.head_size**-0.5
        if base_head_size == model.head_size
        else base_head_size**0.5 / model.head_size
    )
