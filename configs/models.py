"""Ladders of model sizes."""

from scalejax import Model


def open_lm(width: int, depth: int, heads: int) -> Model:
    """Return a model of OpenLM, with its vocabulary and its rounding of the MLP width.

    Porian et al. 2024 and Gadre et al. 2024 train these models.
    """
    return Model(
        width=width,
        depth=depth,
        heads=heads,
        kv_heads=heads,
        head_size=width // heads,
        # 8/3 of the width, rounded up to a multiple of 256.
        mlp_width=256 * -(-8 * width // 768),
        vocabulary=50_432,
        qk_norm=True,
    )


# Four sizes that train in minutes on a laptop.
TINY = [
    Model.sized(width=width, depth=2, head_size=16, vocabulary=512, qk_norm=True)
    for width in (32, 48, 64, 80)
]

# The three smallest of them and a width of 16: a factor of nine in parameters. Down
# here the gain from more tokens depends on the size, so that Chinchilla's sum of two
# terms does not fit and an interaction of the two does.
LADDER = [
    Model.sized(width=16, depth=2, head_size=16, vocabulary=512, qk_norm=True),
    *TINY[:3],
]

# The next rung: one and a half times the parameters of the largest.
LADDER_NEXT = TINY[3]

# The widths and depths of five rungs of Hägele et al. 2024, 33M to 208M parameters.
# Their MLP widths are rounded up to multiples of 256, ours are not.
HAGELE = [
    Model.sized(width=width, depth=depth, head_size=64, vocabulary=50_304, tied=True)
    for width, depth in ((384, 8), (512, 8), (640, 12), (768, 12), (768, 24))
]

# The width and depth of their 360M model.
HAGELE_NEXT = Model.sized(width=1024, depth=24, head_size=64, vocabulary=50_304, tied=True)

# Doubling widths at one depth and one head size, to see whether a learning rate
# transfers.
WIDTHS = [
    Model.sized(width=width, depth=2, head_size=16, vocabulary=512) for width in (32, 64, 128, 256)
]

# Doubling depths of the narrowest of them.
DEPTHS = [
    Model.sized(width=32, depth=depth, head_size=16, vocabulary=512) for depth in (2, 4, 8, 16)
]

# Five close widths, and one that is four times the largest. Heads of 8 divide them all.
NARROW = [
    Model.sized(width=width, depth=2, head_size=8, vocabulary=512, qk_norm=True)
    for width in (32, 40, 48, 56, 64)
]
NARROW_NEXT = Model.sized(width=256, depth=2, head_size=8, vocabulary=512, qk_norm=True)

# Eight of the ten widths of Yao et al. 2023, at their 12 layers and heads of 64: seven
# to fit and the widest to forecast.
YAO = [
    Model.sized(width=width, depth=12, head_size=64, vocabulary=50_304, tied=True)
    for width in (128, 256, 384, 512, 640, 768, 896, 3072)
]

# The same up to widths at which a learning-rate sweep is too expensive.
WIDE = [
    Model.sized(width=width, depth=8, head_size=64, vocabulary=50_304)
    for width in (128, 256, 512, 1024, 2048, 4096)
]

# The sizes of Luo et al. 2025: 25M, 100M and 400M parameters without the embedding and
# the head. Their release names no widths and depths.
LUO = [
    Model.sized(width=width, depth=depth, head_size=64, vocabulary=50_304)
    for width, depth in ((512, 8), (768, 14), (1_280, 20))
]

# Widths below and around TINY in steps of less than a factor two in size. With 512
# tokens in the vocabulary the head is 55% of the smallest and 25% of the largest.
ISOFLOP = [
    Model.sized(width=width, depth=2, head_size=8, vocabulary=512, qk_norm=True)
    for width in (16, 24, 32, 40, 48, 64)
]
ISOFLOP_NEXT = Model.sized(width=96, depth=2, head_size=8, vocabulary=512, qk_norm=True)

# The sixteen sizes of Porian et al. 2024, 5M to 902M parameters. They do not publish
# the number of heads; their code assumes four.
PORIAN = [
    open_lm(width, depth, heads=4)
    for width, depth in (
        *((96, 3), (128, 4), (160, 5), (224, 6), (288, 8), (320, 9), (384, 10), (480, 12)),
        *((576, 14), (640, 15), (704, 18), (832, 21), (1024, 23), (1120, 26), (1312, 26)),
        (1504, 30),
    )
]

# The six sizes of Gadre et al. 2024, 11M to 6.9B parameters.
GADRE = [
    open_lm(width, depth, heads)
    for width, depth, heads in (
        *((96, 8, 4), (512, 8, 4), (576, 24, 8), (1024, 24, 8), (2048, 24, 16), (4096, 32, 32)),
    )
]
