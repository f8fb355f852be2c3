"""The network and its parametrization."""

import math
from dataclasses import dataclass, field

from scalejax.config.checks import (
    as_integer,
    check_choice,
    check_unused,
    require,
    set_flag,
    set_integer,
    set_number,
)

# Marks a field that runs of earlier versions did not have: at its default it is left
# out of a run's identity, so that the ids of those runs stay what they are.
ADDED_LATER = {"added later": True}

# The fields that each parametrization uses.
PARAMETRIZATION_FIELDS: dict[str, set[str]] = {
    "standard": set(),
    "mup": {"base_width", "base_mlp_width", "base_head_size"},
    "completep": {"base_width", "base_mlp_width", "base_head_size", "base_depth"},
}


@dataclass(frozen=True, kw_only=True)
class Model:
    """A decoder-only transformer: RoPE, RMSNorm, SwiGLU and grouped-query attention.

    It has no biases. `Model.sized` chooses the usual proportions from few numbers.
    """

    width: int
    """Size of the residual stream."""
    depth: int
    """Number of blocks."""
    heads: int
    """Query heads per block."""
    kv_heads: int
    """Key and value heads per block. It divides `heads`; equal numbers give ordinary
    multi-head attention."""
    head_size: int
    """Features per head. It must be even, because RoPE rotates pairs of features."""
    mlp_width: int
    """Hidden size of the SwiGLU MLP."""
    vocabulary: int
    """Number of token ids, which are 0 to vocabulary - 1."""
    tied: bool = False
    """Whether the head is the transposed embedding."""
    qk_norm: bool = False
    """Whether queries and keys are normalized by an RMSNorm before RoPE."""
    rope_theta: float = field(default=10_000.0, metadata=ADDED_LATER)
    """Base of RoPE's wavelengths (Su et al. 2021, section 3.3). Longer sequences need a
    larger one."""

    def __post_init__(self):
        for name in ("width", "depth", "heads", "kv_heads", "head_size", "mlp_width"):
            set_integer(self, name, 1)
        set_integer(self, "vocabulary", 2)
        set_flag(self, "tied")
        set_flag(self, "qk_norm")
        require(
            self.heads % self.kv_heads == 0,
            "Model.heads must be a multiple of Model.kv_heads; "
            f"got {self.heads} heads and {self.kv_heads} kv_heads",
        )
        require(
            self.head_size % 2 == 0,
            "Model.head_size must be even, because RoPE rotates pairs of features; "
            f"got {self.head_size}",
        )
        set_number(self, "rope_theta", 1, math.inf, "()")

    @classmethod
    def sized(
        cls,
        *,
        width: int,
        depth: int,
        vocabulary: int,
        head_size: int,
        tied: bool = False,
        qk_norm: bool = False,
        rope_theta: float = 10_000.0,
    ) -> "Model":
        """A model of the usual proportions: multi-head attention and an 8/3 MLP ratio.

        There are width / head_size heads, and the MLP width is 8/3 of the width,
        rounded up to a multiple of 8. Raises ValueError if `head_size` does not divide
        `width`.

        >>> Model.sized(width=64, depth=2, vocabulary=512, head_size=16).mlp_width
        176
        """
        width = as_integer("Model.width", width, 1)
        head_size = as_integer("Model.head_size", head_size, 1)
        require(
            width % head_size == 0,
            f"heads do not divide: Model.width {width} is not a multiple of head_size "
            f"{head_size}; try width {max(1, round(width / head_size)) * head_size}",
        )
        heads = width // head_size
        return cls(
            width=width,
            depth=depth,
            heads=heads,
            kv_heads=heads,
            head_size=head_size,
            mlp_width=8 * math.ceil(width / 3),
            vocabulary=vocabulary,
            tied=tied,
            qk_norm=qk_norm,
            rope_theta=rope_theta,
        )


@dataclass(frozen=True, kw_only=True)
class Parametrization:
    """How init, learning rate and multipliers depend on the model's size.

    Create one with `standard()`, `mup(...)` or `completep(...)`.
    """

    name: str = "standard"
    """`standard`, `mup` or `completep`."""
    base_width: int = 0
    """Width at which `mup` and `completep` equal `standard`; 0 under `standard`."""
    base_depth: int = 0
    """Depth at which `completep` equals `standard`; 0 under the other two."""
    base_mlp_width: int = 0
    """MLP width of the base model. 0: it is proportional to the width, with the ratio
    of each model."""
    base_head_size: int = 0
    """Head size of the base model. 0: it is that of each model, so that only the number
    of heads grows."""

    def __post_init__(self):
        check_choice(self, "name", PARAMETRIZATION_FIELDS)
        check_unused(self, self.name, "parametrization", PARAMETRIZATION_FIELDS)
        for name in sorted(PARAMETRIZATION_FIELDS[self.name]):
            set_integer(self, name, 1 if name in ("base_width", "base_depth") else 0)
