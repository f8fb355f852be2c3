"""Ladders of model sizes."""

from scalejax import Model

TINY = [
    Model.sized(width=width, depth=2, head_size=16, vocabulary=512, qk_norm=True)
    for width in (32, 48, 64, 80)
]
"""Minutes on a laptop; below width 32 losses are not yet additive in size and tokens, and no law holds."""

TINY_NEXT = Model.sized(width=112, depth=2, head_size=16, vocabulary=512, qk_norm=True)
"""About twice the largest of TINY in non-embedding parameters."""

HAGELE = [
    Model.sized(width=width, depth=depth, head_size=64, vocabulary=50_304, tied=True)
    for width, depth in ((384, 8), (512, 8), (640, 12), (768, 12), (768, 24))
]
"""Widths and depths of five rungs of Hägele et al. 2024, 33M to 208M parameters (their MLP widths are rounded up to 256)."""

HAGELE_NEXT = Model.sized(width=1024, depth=24, head_size=64, vocabulary=50_304, tied=True)
"""Width and depth of their 360M model."""

WIDTHS = [
    Model.sized(width=width, depth=2, head_size=16, vocabulary=512) for width in (32, 64, 128, 256)
]
"""One depth, heads of one size, width doubling: for the transfer of learning rates at the scale of minutes."""

WIDE = [
    Model.sized(width=width, depth=8, head_size=64, vocabulary=50_304)
    for width in (128, 256, 512, 1024, 2048, 4096)
]
"""The same up to widths at which a learning rate is too dear to search."""
