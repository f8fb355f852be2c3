"""Forward passes that score tokens: cross-entropy of every token, scores of answer
spans.

These are pure functions of a network and a batch. Training takes the gradient of
`cross_entropy`; evaluation compiles `token_losses` and `span_scores`.

Shape suffixes: b sequences, t input positions, d width, v vocabulary, c chunks of
positions, k spans of a row, w positions of a span, s = k x w positions whose logits a
row needs. `rows` are int32 [b, t + 1]: the inputs are rows[:, :-1], the targets rows[:,
1:].
"""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from scalejax.data.packing import split_flags
from scalejax.model.transformer import Transformer

# The largest number of logits in a device's memory at once: 64 MiB in float32. A batch
# with more is processed in chunks of positions, because all its logits are often larger
# than the network.
MAX_LOGITS = 2**24


class Head(Protocol):
    """Two arrays [b, t] from final hidden states [b, t, d] and targets [b, t]."""

    def __call__(
        self, model: Transformer, x_btd: jax.Array, targets_bt: jax.Array, /
    ) -> tuple[jax.Array, jax.Array]: ...


class UnpackedRows(NamedTuple):
    """Rows of token ids, and what separates the documents packed into them."""

    ids: jax.Array
    """Token ids, int32 [b, t + 1]."""
    segments_bt: jax.Array | None
    """Document number of every input token; None when rows are read as one document."""
    loss_mask_bt: jax.Array | None
    """Whether each target counts in the loss; None when all of them do."""


def cross_entropy(
    model: Transformer, rows: jax.Array, segments_bt: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of every target, and log Z for the z-loss; both float32 [b, t].

    Z is the sum of the exponentiated logits. At most MAX_LOGITS logits exist at once on
    a device; the backward pass computes them again.
    """
    x_btd = model.hidden(rows[:, :-1], segments_bt)
    return _in_chunks(model, x_btd, rows[:, 1:], _cross_entropy_head)


def token_losses(model: Transformer, rows: jax.Array, packing: str) -> jax.Array:
    """Cross-entropy of every target, float32 [b, t], in nats.

    Under the packing `documents`, losses of targets outside the loss mask are returned
    too; the caller leaves them out of its mean.
    """
    ids, segments_bt, _ = unpack_rows(rows, packing)
    return cross_entropy(model, ids, segments_bt)[0]


def span_scores(
    model: Transformer, rows: jax.Array, starts_bk: jax.Array, counts_bk: jax.Array, width: int
) -> tuple[jax.Array, jax.Array]:
    """Log-likelihood of answer spans, float32 [b, k], and whether greedy decoding gives
    them.

    Span k of a row holds its tokens start .. start + count - 1. The log-likelihood is
    the sum over these tokens, in nats, given all tokens before each. The second array,
    bool [b, k], says whether every token of the span is the most likely one.

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
    losses_bs, greedy_bs = _in_chunks(model, x_bsd, targets_bs, _greedy_head)

    inside_bkw = jnp.arange(width) < counts_bk[..., None]
    losses_bkw = losses_bs.reshape(inside_bkw.shape)
    greedy_bkw = greedy_bs.reshape(inside_bkw.shape)
    log_likelihood_bk = -jnp.sum(losses_bkw, axis=2, where=inside_bkw)
    return log_likelihood_bk, jnp.all(greedy_bkw, axis=2, where=inside_bkw)


def unpack_rows(rows: jax.Array, packing: str) -> UnpackedRows:
    """Separate token ids from the document starts and loss masks stored in their high
    bits.

    Under the packing `concatenate` rows carry neither, and attention crosses documents.
    """
    if packing == "concatenate":
        return UnpackedRows(rows, None, None)
    ids, starts, loss_mask = split_flags(rows)
    return UnpackedRows(ids, jnp.cumsum(starts[:, :-1], axis=1), loss_mask[:, 1:])


def _cross_entropy_head(
    model: Transformer, x_btd: jax.Array, targets_bt: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy and log Z of every position."""
    logits_btv = model.logits(x_btd)
    log_z_bt = jax.nn.logsumexp(logits_btv, axis=-1)
    # A masked sum instead of a gather: its gradient is elementwise, not a scatter.
    is_target_btv = targets_bt[..., None] == jnp.arange(logits_btv.shape[-1])
    return log_z_bt - jnp.sum(logits_btv, axis=-1, where=is_target_btv), log_z_bt


def _greedy_head(
    model: Transformer, x_btd: jax.Array, targets_bt: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of every position, and whether its target is the top prediction."""
    logits_btv = model.logits(x_btd)
    is_target_btv = targets_bt[..., None] == jnp.arange(logits_btv.shape[-1])
    target_bt = jnp.sum(logits_btv, axis=-1, where=is_target_btv)
    return jax.nn.logsumexp(logits_btv, axis=-1) - target_bt, target_bt >= logits_btv.max(axis=-1)


def _in_chunks(
    model: Transformer, x_btd: jax.Array, targets_bt: jax.Array, head: Head
) -> tuple[jax.Array, jax.Array]:
    """Apply `head` to all positions, in chunks that respect MAX_LOGITS."""
    b, t, d = x_btd.shape
    # Each device holds only its own part of the logits.
    chunks = _chunk_count(t, logits_per_position=model.logits_per_position(b))
    if chunks == 1:
        return head(model, x_btd, targets_bt)
    x_cbtd = x_btd.reshape(b, chunks, t // chunks, d).swapaxes(0, 1)
    targets_cbt = targets_bt.reshape(b, chunks, t // chunks).swapaxes(0, 1)
    graphdef, params = nnx.split(model)

    # Without the checkpoint, the scan would keep every chunk's logits for the backward
    # pass, and chunking would save nothing.
    @jax.checkpoint
    def chunk(params, x_btd, targets_bt):
        return head(nnx.merge(graphdef, params), x_btd, targets_bt)

    _, (first_cbt, second_cbt) = jax.lax.scan(
        lambda _, xs: (None, chunk(params, *xs)), None, (x_cbtd, targets_cbt)
    )
    return first_cbt.swapaxes(0, 1).reshape(b, t), second_cbt.swapaxes(0, 1).reshape(b, t)


def _chunk_count(length: int, *, logits_per_position: int) -> int:
    """The smallest number of equal chunks of positions that respects MAX_LOGITS.

    A length without a suitable divisor ends at one position per chunk.
    """
    for chunks in range(1, length):
        positions = length // chunks
        if length % chunks == 0 and positions * logits_per_position <= MAX_LOGITS:
            return chunks
    return length
