"""Ladders of model sizes."""

from scalejax import Model

# Four sizes that train in minutes on a laptop. Below width 32 the loss is not yet a sum
# of a term in size and a term in tokens, so no law fits.
TINY = [
    Model.sized(width=width, depth=2, head_size=16, vocabulary=512, qk_norm=True)
    for width in (32, 48, 64, 80)
]

# The next rung: about twice the non-embedding parameters of the largest TINY.
TINY_NEXT = Model.sized(width=112, depth=2, head_size=16, vocabulary=512, qk_norm=True)

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
