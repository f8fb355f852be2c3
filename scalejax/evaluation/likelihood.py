"""Forward passes that score every token of a sequence, or spans of it.

These are pure functions of a network and a batch, which training/evaluate.py compiles.
The loss that training takes the gradient of is training/loss.py.

Shape suffixes: b sequences, t input positions, d width, v vocabulary, c chunks of
positions, k spans of a row, w positions of a span, s = k x w positions whose logits a
row needs. `rows` are int32 [b, t + 1]: the inputs are rows[:, :-1], and the targets
rows[:, 1:].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from scalejax.data.packing import split_flags
from scalejax.model.transformer import Transformer

# The largest number of logits in a device's memory at once: 64 MiB in float32. A batch
# with more is processed in chunks of positions, because all its logits are often larger
# than the network.
MAX_LOGITS = 2**24


class UnpackedRows(NamedTuple):
    """Rows of token ids, and what separates the documents packed into them."""

    ids: jax.Array
    """Token ids, int32 [b, t + 1]."""
    segments_bt: jax.Array | None
    """Document number of every input token; None when rows are read as one document."""
    loss_mask_bt: jax.Array | None
    """Whether each target counts in the loss; None when all of them do."""


def token_losses(model: Transformer, rows: jax.Array, packing: str) -> jax.Array:
    """Cross-entropy of every target, float32 [b, t], in nats.

    At most MAX_LOGITS logits exist at once on a device.

    Under the packing `documents`, losses of targets outside the loss mask are returned
    too; the caller leaves them out of its mean.
    """
    ids, segments_bt, _ = unpack_rows(rows, packing)
    x_btd = model.hidden(ids[:, :-1], segments_bt)
    return _in_chunks(model, x_btd, ids[:, 1:])[0]


def span_scores(
    model: Transformer, rows: jax.Array, starts_bk: jax.Array, counts_bk: jax.Array, width: int
) -> tuple[jax.Array, jax.Array]:
    """Log-likelihood of spans of tokens, and whether greedy decoding gives them.

    Span k of a row holds its tokens start .. start + count - 1. The first array,
    float32 [b, k], is the sum over these tokens, in nats, given all tokens before each.
    The second, bool [b, k], says whether every token of the span is the most likely
    one.

    No count exceeds `width`: logits are computed at k x width positions of a row, not
    at all of them. When a row holds several spans, it is packed: the start of each
    prompt is marked (data/packing.py), and no prompt attends to another.
    """
    packing = "documents" if starts_bk.shape[1] > 1 else "concatenate"
    ids, segments_bt, _ = unpack_rows(rows, packing)
    x_btd = model.hidden(ids[:, :-1], segments_bt)

    # The hidden state at position i predicts token i + 1. Spans shorter than `width`
    # read beyond their end, perhaps beyond the row; `inside_bkw` discards those
    # positions below.
    positions_bkw = starts_bk[..., None] - 1 + jnp.arange(width)
    positions_bs = jnp.minimum(positions_bkw, x_btd.shape[1] - 1).reshape(len(rows), -1)
    x_bsd = jnp.take_along_axis(x_btd, positions_bs[..., None], axis=1)
    targets_bs = jnp.take_along_axis(ids, positions_bs + 1, axis=1)
    losses_bs, greedy_bs = _in_chunks(model, x_bsd, targets_bs)

    inside_bkw = jnp.arange(width) < counts_bk[..., None]
    losses_bkw = losses_bs.reshape(inside_bkw.shape)
    greedy_bkw = greedy_bs.reshape(inside_bkw.shape)
    log_likelihood_bk = -jnp.sum(losses_bkw, axis=2, where=inside_bkw)
    return log_likelihood_bk, jnp.all(greedy_bkw, axis=2, where=inside_bkw)


def unpack_rows(rows: jax.Array, packing: str) -> UnpackedRows:
    """Separate token ids from the flags in their high bits: document starts, loss mask.

    Under the packing `concatenate` rows carry neither, and attention crosses documents.
    """
    if packing == "concatenate":
        return UnpackedRows(rows, None, None)
    ids, starts, loss_mask = split_flags(rows)
    return UnpackedRows(ids, jnp.cumsum(starts[:, :-1], axis=1), loss_mask[:, 1:])


def _head(
    model: Transformer, x_btd: jax.Array, targets_bt: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of every position, and whether its target is the top prediction."""
    logits_btv = model.logits(x_btd)
    is_target_btv = targets_bt[..., None] == jnp.arange(logits_btv.shape[-1])
    target_bt = jnp.sum(logits_btv, axis=-1, where=is_target_btv)
    return jax.nn.logsumexp(logits_btv, axis=-1) - target_bt, target_bt >= logits_btv.max(axis=-1)


def chunk_count(length: int, *, logits_per_position: int, most: int) -> int:
    """Return the smallest number of equal chunks with at most `most` logits each.

    length: the number of positions. If it has no suitable divisor, every chunk is one
    position.
    """
    for chunks in range(1, length):
        positions = length // chunks
        if length % chunks == 0 and positions * logits_per_position <= most:
            return chunks
    return length


def split_positions(array: jax.Array, chunks: int) -> jax.Array:
    """Split [b, t, ...] into chunks of positions, [c, b, t / c, ...]."""
    b, t = array.shape[:2]
    return array.reshape(b, chunks, t // chunks, *array.shape[2:]).swapaxes(0, 1)


def _in_chunks(
    model: Transformer, x_btd: jax.Array, targets_bt: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Apply the head to all positions, in chunks that respect MAX_LOGITS."""
    b, t = targets_bt.shape
    # Each device holds only its own part of the logits.
    chunks = chunk_count(t, logits_per_position=model.logits_per_position(b), most=MAX_LOGITS)
    if chunks == 1:
        return _head(model, x_btd, targets_bt)
    _, (first_cbt, second_cbt) = jax.lax.scan(
        lambda _, chunk: (None, _head(model, *chunk)),
        None,
        (split_positions(x_btd, chunks), split_positions(targets_bt, chunks)),
    )
    return first_cbt.swapaxes(0, 1).reshape(b, t), second_cbt.swapaxes(0, 1).reshape(b, t)
