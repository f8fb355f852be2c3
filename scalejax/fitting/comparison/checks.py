"""What makes two tables of runs incomparable, or their comparison doubtful."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scalejax.fitting import tables
from scalejax.fitting.reading import diagnoses

if TYPE_CHECKING:
    from pandas import DataFrame

# Columns of a results table that say how text becomes tokens.
TOKENIZER_COLUMNS = ("tokenizer", "vocabulary")

# Two tables whose FLOPs are this many times apart are in different units.
OTHER_UNITS = 1e3

# Losses in the ratio of nats to bits, to within this fraction, are in different units.
UNIT_TOLERANCE = 0.01

# A ratio of losses says something of units when its median is over this many runs.
MIN_ROWS = 4


def check_tokenizers(frames: Sequence["DataFrame"], target: str) -> None:
    """Raise ValueError if losses per token are those of different tokens.

    target: the table's name of the loss, which is per token unless it says otherwise.
    """
    if diagnoses.is_per_byte(target):
        return
    for name in TOKENIZER_COLUMNS:
        if not all(name in frame.columns for frame in frames):
            continue
        a, b = (sorted({*tables.labels(frame.dropna(subset=[name]), name)}) for frame in frames)
        if a != b:
            raise ValueError(
                f"A has the {name} {', '.join(a)} and B has {', '.join(b)}: losses per token of "
                "different tokens cannot be compared. Compare bits per byte: --columns "
                "loss=bits_per_byte"
            )


def check_units(flops: Sequence[np.ndarray]) -> None:
    """Raise ValueError if the tables count params, tokens or FLOPs in different units.

    flops: of the rows of A and of B, as their laws count them.
    """
    (low_a, high_a), (low_b, high_b) = ((x.min(), x.max()) for x in flops)
    gap = max(low_a / high_b, low_b / high_a)
    if gap > OTHER_UNITS:
        raise ValueError(
            f"the runs of A cost {low_a:.3g} to {high_a:.3g} FLOPs and those of B {low_b:.3g} to "
            f"{high_b:.3g}, {gap:.1g} times apart; give params, tokens and FLOPs in the same units "
            "in both tables"
        )


def check_loss_units(ratios: np.ndarray) -> None:
    """Raise ValueError if one table has its losses in nats and the other in bits.

    ratios: of the losses of B to those of A, of paired runs.
    """
    if len(ratios) < MIN_ROWS:
        return
    typical = float(np.median(ratios))
    for exact, bits in ((np.log(2), "A"), (1 / np.log(2), "B")):
        if abs(typical / exact - 1) < UNIT_TOLERANCE:
            raise ValueError(
                f"the losses of B are {typical:.3f} times those of A at equal runs, which is the "
                f"ratio of nats to bits. Convert {bits} to nats: multiply its losses by log(2)"
            )


def held_out_reasons(frames: Sequence["DataFrame"]) -> list[str]:
    """Say that two studies may not have measured their losses on the same text."""
    if not all({"data_hash", "validation"} <= {*frame.columns} for frame in frames):
        return []
    texts = [{*frame["validation"].fillna("")} for frame in frames]
    shards = [{*frame["data_hash"]} for frame in frames]
    if shards[0] == shards[1] or (texts[0] == texts[1] and texts[0] != {""}):
        return []
    return [
        "A and B may not have measured their losses on the same text: their data differ and name "
        "no common Data.validation, so that part of the gain may be an easier text"
    ]
