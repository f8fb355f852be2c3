"""How a tensor's role and the model's width set its init, learning rate, epsilon, weight decay and forward multiplier.

m = width / base_width under `mup`, 1 under `standard`:

| role      | init std          | learning rate | epsilon | weight decay (mode `standard`) | forward       |
|-----------|-------------------|---------------|---------|--------------------------------|---------------|
| embedding | 1                 | 1             | 1/m     | 0                              | 1             |
| hidden    | 0.5/sqrt(fan_in)  | 1/m           | 1/m     | m                              | 1             |
| output    | 0.02              | 1             | 1/m     | 1                              | 1/m (logits)  |
| tied      | 0.02              | 1             | 1/m     | 0                              | 1/m (logits)  |
| norm      | 1 (the gain)      | 1             | 1/m     | 0                              | 1             |

`tied` is an embedding that is the head too. Yang et al. 2022 (arXiv 2203.03466), table 8, in the one readout convention that also
works tied: constant std, learning rate 1, multiplier 1/m. With it every gradient shrinks as 1/m, the readout's by its multiplier
and all others by what flows back through it, so one epsilon for all widths needs 1/m throughout. Weight decay multiplies the
learning rate in mode `standard`, so m keeps their product constant in width. Attention logits carry 1/sqrt(head_size) at every
width: ladders grow by heads of one size.
"""

from typing import Literal, NamedTuple

from scalejax.config import Model, Parametrization

Role = Literal["embedding", "hidden", "output", "tied", "norm"]

EMBEDDING_STD = 1.0
"""Of an untied embedding. A residual stream of std 1 from the start: against 0.02, runs of 0.6 M tokens at width 48 end 0.08 nats
lower, and less apart from seed to seed."""
HEAD_STD = 0.02
"""Of the head, tied or not: the first logits are near zero."""
HIDDEN_GAIN = 0.5
"""Std of hidden matrices in units of 1/sqrt(fan_in). With it and `qk_norm` the same runs end another 0.08 nats lower."""


class Scaling(NamedTuple):
    """What one tensor's role means at one width."""

    init_std: float
    """Std of the normal initial values; 0 for norm gains, which start at 1."""
    learning_rate: float
    """Multiplier of the scheduled rate."""
    epsilon: float
    """Multiplier of Adam's epsilon."""
    weight_decay: float
    """Multiplier of weight decay in mode `standard`; 0: never decayed, in either mode."""


def standard() -> Parametrization:
    """The same learning rate and epsilon for every tensor at every width; hidden matrices start at std 0.5/sqrt(fan_in)."""
    return Parametrization(name="standard")


def mup(*, base_width: int) -> Parametrization:
    """Maximal update parametrization: equal to `standard` at `base_width`; the best learning rate stays put in width."""
    return Parametrization(name="mup", base_width=base_width)


def width_ratio(parametrization: Parametrization, width: int) -> float:
    """m: how many times wider than the base; 1 under `standard`.

    Hidden matrices that read another axis than the residual stream (heads x head_size, mlp_width) take the same m: these axes
    grow in proportion to width, as they do under `Model.sized`.
    """
    return width / parametrization.base_width if parametrization.name == "mup" else 1.0


def scaling(parametrization: Parametrization, *, role: Role, fan_in: int, width: int) -> Scaling:
    """The row of the table above for one tensor.

    >>> scaling(mup(base_width=64), role="hidden", fan_in=256, width=256)
    Scaling(init_std=0.03125, learning_rate=0.25, epsilon=0.25, weight_decay=4.0)
    """
    m = width_ratio(parametrization, width)
    match role:
        case "embedding":
            return Scaling(init_std=EMBEDDING_STD, learning_rate=1.0, epsilon=1 / m, weight_decay=0.0)
        case "hidden":
            return Scaling(init_std=HIDDEN_GAIN * fan_in**-0.5, learning_rate=1 / m, epsilon=1 / m, weight_decay=m)
        case "output":
            return Scaling(init_std=HEAD_STD, learning_rate=1.0, epsilon=1 / m, weight_decay=1.0)
        case "tied":
            return Scaling(init_std=HEAD_STD, learning_rate=1.0, epsilon=1 / m, weight_decay=0.0)
        case "norm":
            return Scaling(init_std=0.0, learning_rate=1.0, epsilon=1 / m, weight_decay=0.0)


def output_multiplier(parametrization: Parametrization, width: int) -> float:
    """Multiplier of the logits: 1/m, tied or untied."""
    return 1 / width_ratio(parametrization, width)


def attention_multiplier(model: Model) -> float:
    """Multiplier of query-key products: 1/sqrt(head_size)."""
    return model.head_size**-0.5
