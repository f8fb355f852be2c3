"""Everything that is measured of a model: held-out loss, bits per byte, and top-1 error downstream."""

import functools
from collections.abc import Callable

import numpy as np

from scalejax.config import Measure, Run
from scalejax.data.shards import Shards
from scalejax.evaluation.loss import evaluate_loss
from scalejax.evaluation.scoring import score
from scalejax.evaluation.tasks import Items, continuation_items

CHOICE_TOKENS = 16
"""Length of a candidate: long enough that the true continuation can be told apart, short enough for small models to err."""


def held_out_loss(
    token_losses: Callable[[np.ndarray], np.ndarray], shards: Shards, run: Run, measure: Measure
) -> dict[str, float]:
    """`loss` and `loss_se` (nats per token) and `bits_per_byte` (absent where the source has no bytes)."""
    length, sequences = run.data.sequence_length, run.sequences
    found = evaluate_loss(token_losses, shards, sequence_length=length, tokens=measure.tokens, sequences=sequences)
    row = {"loss": found.loss, "loss_se": found.loss_se}
    return row if found.bits_per_byte is None else row | {"bits_per_byte": found.bits_per_byte}


def check(shards: Shards, run: Run, measure: Measure) -> None:
    """Raises ValueError when there is too little held-out text to measure; before training, not after it."""
    if measure.items:
        _items(shards, measure.items, run.data.sequence_length)


def downstream(token_losses: Callable[[np.ndarray], np.ndarray], shards: Shards, run: Run, measure: Measure) -> dict[str, float]:
    """`top1_error`, its standard error and its chance line on the continuation task; {} when no item is asked for."""
    if not measure.items:
        return {}
    length = run.data.sequence_length
    scores = score(token_losses, _items(shards, measure.items, length), sequence_length=length, sequences=run.sequences)
    error = {"top1_error": scores.top1_error, "top1_error_se": scores.top1_error_se, "top1_chance": scores.chance}
    return error | {"error_continuation": scores.top1_error}


@functools.lru_cache(maxsize=4)
def _items(shards: Shards, items: int, length: int) -> Items:
    return continuation_items(shards, items=items, context=length - CHOICE_TOKENS, continuation=CHOICE_TOKENS, seed=0)
