"""Parametrizations: how hyperparameters depend on a tensor's role and the model's size.

Under muP and CompleteP a learning rate that is tuned on a small base model stays nearly
optimal for larger models. `scaling` returns one row of this table for every tensor:

| role                | init std         | learning rate | epsilon   | weight decay |
|---------------------|------------------|---------------|-----------|--------------|
| embedding           | 1                | 1             | 1/m       | 0            |
| hidden (from width) | 0.5/sqrt(fan_in) | 1/m           | 1/(m m_L) | m            |
| hidden (from MLP)   | 0.5/sqrt(fan_in) | 1/m_f         | 1/(m m_L) | m_f          |
| block_norm          | 1 (the gain)     | 1             | 1/(m m_L) | 0            |
| norm (the last one) | 1 (the gain)     | 1             | 1/m       | 0            |
| output              | 0.02             | 1             | 1/m       | 1            |
| tied                | 0.02             | 1             | 1/m       | 0            |

The row of a hidden matrix depends on its inputs, which lie on the axis `width` or on
`mlp_width`. A tied tensor serves as embedding and as head.

Learning rate, epsilon and weight decay are multipliers of the optimizer's values. The
weight decay column holds for `decay="standard"`; 0 means that the tensor is never
decayed.

- m = width / base_width and m_f = mlp_width / base_mlp_width under `mup` and
  `completep`;
- m_L = depth / base_depth under `completep`;
- every ratio that a parametrization does not define is 1.

Under Muon the learning rate of a hidden matrix has another multiplier, 1/sqrt(m) where
all widths grow as m. Muon gives the update of an n_in x n_out matrix singular values of
sqrt(max(n_in, n_out)) times the learning rate. To move outputs equally far at every
width, they must grow as sqrt(n_out / n_in) (Yang et al. 2023, arXiv 2310.17813). The
multiplier is what lies between, relative to the base. Embedding, head and gains are
trained by Adam, with the multipliers of the table.

The forward pass multiplies the logits by 1/m, every residual branch by 1/m_L, and the
products of queries and keys by sqrt(base_head_size) / head_size.

Sources. The width columns are table 8 of Yang et al. 2022 (arXiv 2203.03466), in the
one convention for the readout that also works when it is tied to the embedding:
constant init std, learning rate 1, multiplier 1/m. The depth factors are CompleteP (Dey
et al. 2025, arXiv 2505.01618), which is depth exponent 1: branches and their gradients
shrink as 1/m_L, and the learning rate does not change with depth.

Two columns follow from this choice:

- Epsilon. With this readout every gradient shrinks as 1/m: the readout's own because of
  its multiplier, the others because they flow back through it. Adam's epsilon must
  shrink with them, in all tensors. The published table scales it only in the blocks.
- Weight decay. `decay="standard"` multiplies it by the learning rate, which has a
  factor 1/m for hidden matrices. The factor m keeps the product constant in width.

The table assumes that the number of heads grows with width, at a constant head size,
and that the number of kv heads grows in proportion. If more and more query heads share
a fixed number of kv heads, nothing here keeps the gradients of keys and values at a
constant scale.
"""

from typing import Literal, NamedTuple

from scalejax.config import Model, Parametrization

Role = Literal["embedding", "hidden", "block_norm", "norm", "output", "tied"]

# Std of an untied embedding: the residual stream starts with std 1. Compared with 0.02,
# runs of 0.6 M tokens at width 48 end 0.08 nats lower and differ less between seeds.
EMBEDDING_STD = 1.0

# Std of the head, tied or not: the first logits are near zero.
HEAD_STD = 0.02

# Std of hidden matrices in units of 1/sqrt(fan_in). With this gain and `qk_norm`, the
# same runs end another 0.08 nats lower.
HIDDEN_GAIN = 0.5


class Scaling(NamedTuple):
    """The initial std of one tensor and the multipliers of its hyperparameters."""

    init_std: float
    """Std of the normal initial values; 0 for the gains of norms, which start at 1."""
    learning_rate: float
    """Multiplier of the scheduled learning rate."""
    epsilon: float
    """Multiplier of Adam's epsilon."""
    weight_decay: float
    """Multiplier of weight decay under `decay="standard"`. 0 means that the tensor is
    never decayed, in either mode."""
    muon_rate: float = 1.0
    """Multiplier of the scheduled learning rate of a hidden matrix under Muon, in place
    of `learning_rate`."""


def standard() -> Parametrization:
    """The same learning rate and epsilon for every tensor of every model.

    Hidden matrices start with std 0.5 / sqrt(fan_in).
    """
    return Parametrization(name="standard")


def mup(*, base_width: int, base_mlp_width: int = 0, base_head_size: int = 0) -> Parametrization:
    """Maximal update parametrization: the best learning rate is the same at all widths.

    At `base_width` it equals `standard()`. Give `base_mlp_width` when the MLP width is
    not exactly proportional to the width, and `base_head_size` when the size of heads
    grows instead of their number. By default each model is assumed to have the base's
    ratio of MLP width to width, and the base's head size.
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
    """CompleteP: the best learning rate is the same at all widths and depths.

    In width this is `mup`, with the same optional arguments. In depth every residual
    branch is multiplied by base_depth / depth.
    """
    return Parametrization(
        name="completep",
        base_width=base_width,
        base_depth=base_depth,
        base_mlp_width=base_mlp_width,
        base_head_size=base_head_size,
    )


def scaling(
    parametrization: Parametrization,
    model: Model,
    *,
    role: Role,
    fan_in: int,
    input_axis: str = "width",
    fan_out: int | None = None,
    output_axis: str = "width",
) -> Scaling:
    """The row of the table above for one tensor.

    `fan_in` is the number of inputs that are summed into one output, and `input_axis`
    the logical axis on which they lie. `fan_out` is the number of outputs, by default
    as many, on `output_axis`. Only Muon depends on it.

    >>> wide = Model.sized(width=256, depth=8, vocabulary=512, head_size=32)
    >>> base = completep(base_width=64, base_depth=2)
    >>> row = scaling(base, wide, role="hidden", fan_in=256)
    >>> row.init_std, row.learning_rate, row.epsilon, row.weight_decay, row.muon_rate
    (0.03125, 0.25, 0.0625, 4.0, 0.5)
    """
    m = width_ratio(parametrization, model)
    m_depth = depth_ratio(parametrization, model)
    match role:
        case "embedding":
            # A look-up sums nothing, so its learning rate does not change with width.
            return Scaling(
                init_std=EMBEDDING_STD, learning_rate=1.0, epsilon=1 / m, weight_decay=0.0
            )
        case "hidden":
            # An update of the size of the learning rate moves an output by the learning
            # rate times the number of inputs, because updates and inputs are
            # correlated. 1/m keeps that constant. The initial values are uncorrelated:
            # 1/sqrt(fan_in) is enough.
            m_in = width_ratio(parametrization, model, input_axis)
            return Scaling(
                init_std=HIDDEN_GAIN * fan_in**-0.5,
                learning_rate=1 / m_in,
                epsilon=1 / (m * m_depth),
                weight_decay=m_in,
                muon_rate=_muon_rate(
                    fan_in,
                    fan_in if fan_out is None else fan_out,
                    m_in,
                    width_ratio(parametrization, model, output_axis),
                ),
            )
        case "block_norm":
            # Gradients inside a residual branch pass through the branch multiplier.
            return Scaling(
                init_std=0.0, learning_rate=1.0, epsilon=1 / (m * m_depth), weight_decay=0.0
            )
        case "norm":
            return Scaling(init_std=0.0, learning_rate=1.0, epsilon=1 / m, weight_decay=0.0)
        case "output":
            # The logits are multiplied by 1/m, so the learning rate need not shrink.
            return Scaling(init_std=HEAD_STD, learning_rate=1.0, epsilon=1 / m, weight_decay=1.0)
        case "tied":
            return Scaling(init_std=HEAD_STD, learning_rate=1.0, epsilon=1 / m, weight_decay=0.0)


def _muon_rate(fan_in: int, fan_out: int, m_in: float, m_out: float) -> float:
    """Multiplier of Muon's learning rate for a matrix that has grown by these ratios.

    The singular values of an update are sqrt(max(fan_in, fan_out)) without it. At the
    base they are the same, and from there they grow as sqrt(fan_out / fan_in).
    """
    at_base = max(fan_in / m_in, fan_out / m_out)
    return (at_base * m_out / m_in / max(fan_in, fan_out)) ** 0.5


def width_ratio(parametrization: Parametrization, model: Model, axis: str = "width") -> float:
    """The size of an axis relative to the base model: m, or m_f for `mlp_width`."""
    if axis == "mlp_width" and parametrization.base_mlp_width:
        return model.mlp_width / parametrization.base_mlp_width
    return model.width / parametrization.base_width if parametrization.base_width else 1.0


def depth_ratio(parametrization: Parametrization, model: Model) -> float:
    """The depth relative to the base model, m_L; 1 except under `completep`."""
    return model.depth / parametrization.base_depth if parametrization.base_depth else 1.0


def output_multiplier(parametrization: Parametrization, model: Model) -> float:
    """The multiplier of the logits, tied or untied: 1/m."""
    return 1 / width_ratio(parametrization, model)


def branch_multiplier(parametrization: Parametrization, model: Model) -> float:
    """The multiplier of what attention and MLP add to the residual stream: 1/m_L."""
    return 1 / depth_ratio(parametrization, model)


def attention_multiplier(parametrization: Parametrization, model: Model) -> float:
    """The multiplier of query-key products: sqrt(base_head_size) / head_size.

    This is the usual 1/sqrt(head_size) when all models have the same head size.

    >>> model = Model.sized(width=64, depth=1, vocabulary=2, head_size=16)
    >>> attention_multiplier(standard(), model)
    0.25
    """
    base_head_size = parametrization.base_head_size or model.head_size
    # At the base the result must have the bits of `standard`, and sqrt(h) / h may
    # differ from h^-0.5 in the last one.
    if base_head_size == model.head_size:
        return model.head_size**-0.5
    return base_head_size**0.5 / model.head_size
