"""Held-out loss and bits per byte, each with a standard error."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scalejax.data.packing import split_flags
from scalejax.data.shards import Shards

# Maps int32 [rows, length + 1] to float32 [rows, length]: the cross-entropy in nats of
# token t + 1 of a row given its tokens 0 to t.
TokenLosses = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Loss:
    """Held-out loss of a model on one domain, or on all of them."""

    loss: float
    """Mean cross-entropy, nats per token."""
    loss_se: float | None
    """Standard error of `loss` over documents; None when a single document was read."""
    bits_per_byte: float | None
    """Bits per UTF-8 byte of text; None for a synthetic source, which has no bytes."""
    bits_per_byte_se: float | None
    """Standard error of `bits_per_byte` over documents; None when that is undefined."""
    tokens: int
    """Number of tokens predicted."""


@dataclass(frozen=True)
class LossResult(Loss):
    """The loss on all held-out tokens that were read, and on each domain."""

    domains: dict[str, Loss]
    """Loss on each domain that was read; empty when the corpus has a single domain."""


def evaluate_loss(
    token_losses: TokenLosses,
    shards: Shards,
    *,
    sequence_length: int,
    tokens: int,
    sequences: int,
    packing: str = "concatenate",
) -> LossResult:
    """Loss on the first held-out tokens, read in windows without overlap.

    Held-out documents are in the order of their hashes, so the first tokens are a
    sample of all domains.

    Args:
        token_losses: the model; every call has `sequences` rows.
        shards: the corpus.
        sequence_length: tokens that a row predicts.
        tokens: number of held-out tokens to predict; all of them if there are fewer.
        sequences: rows per call. Rows and tokens beyond the end are padding and do not
            count.
        packing: as Data.packing. With `documents`, rows carry document starts and loss
            masks (data/packing.py), and masked tokens do not count.
    """
    rows, counted = held_out_tokens(shards, tokens, packing)
    losses = _losses(token_losses, rows, sequence_length, sequences) * counted
    # Target i is token i + 1 of the split; find the document that it is in.
    positions = np.arange(1, len(rows))
    document = np.searchsorted(shards.validation_starts, positions, side="right") - 1
    documents = int(document[-1]) + 1
    nats = np.bincount(document, losses, minlength=documents)
    counts = np.bincount(document, counted, minlength=documents)
    text_bytes = _bytes_read(counts, shards)
    domains: dict[str, Loss] = {}
    if len(shards.domains) > 1:
        domain_of_document = shards.validation_domains[:documents]
        for number, name in enumerate(shards.domains):
            part = domain_of_document == number
            if counts[part].any():
                domains[name] = _loss(nats[part], counts[part], text_bytes[part])
    return LossResult(**vars(_loss(nats, counts, text_bytes)), domains=domains)


def held_out_tokens(shards: Shards, tokens: int, packing: str) -> tuple[np.ndarray, np.ndarray]:
    """The first held-out tokens, and which of them count in the loss as targets.

    They are int32 [n + 1], with flags, and bool [n] for the n targets. n is `tokens`,
    or fewer if there are not as many.
    """
    rows = shards.tokens("validation", packing)[: tokens + 1].rows()
    _, _, counted = split_flags(rows[1:])
    return rows, counted


def clustered_standard_error(sums: np.ndarray, counts: np.ndarray) -> float | None:
    """Standard error of the ratio sum(sums) / sum(counts) over independent clusters.

    For m clusters d it is sqrt(m / (m - 1) sum_d (s_d - R n_d)^2) / sum_d n_d, where R
    is the ratio (Cochran 1977, eq. 6.13). The clusters here are documents: the losses
    of one document's tokens vary together, so a standard error over tokens would be too
    small.

    Returns None for a single cluster.

    >>> round(clustered_standard_error(np.array([2.0, 4.0]), np.array([2, 2])), 3)
    0.5
    """
    sums, counts = sums[counts > 0], counts[counts > 0]
    m = len(counts)
    if m < 2:
        return None
    residuals = sums - sums.sum() / counts.sum() * counts
    return float(np.sqrt(m / (m - 1) * np.square(residuals).sum()) / counts.sum())


def _loss(nats: np.ndarray, counts: np.ndarray, text_bytes: np.ndarray) -> Loss:
    """The loss from the nats, tokens and bytes of each document."""
    bits_per_byte, bits_per_byte_se = None, None
    if text_bytes.any():
        bits = nats / math.log(2)
        bits_per_byte = float(bits.sum() / text_bytes.sum())
        bits_per_byte_se = clustered_standard_error(bits, text_bytes)
    return Loss(
        loss=float(nats.sum() / counts.sum()),
        loss_se=clustered_standard_error(nats, counts),
        bits_per_byte=bits_per_byte,
        bits_per_byte_se=bits_per_byte_se,
        tokens=int(counts.sum()),
    )


def _losses(
    token_losses: TokenLosses, tokens: np.ndarray, length: int, sequences: int
) -> np.ndarray:
    """Loss of every token but the first, float64 [len(tokens) - 1]."""
    targets = len(tokens) - 1
    windows = math.ceil(targets / length)
    padded = np.zeros(math.ceil(windows / sequences) * sequences * length + 1, np.int32)
    padded[: len(tokens)] = tokens
    # Neighbouring windows share a token: the last target of one is the first input of
    # the next.
    rows = np.lib.stride_tricks.sliding_window_view(padded, length + 1)[::length]
    batches = [token_losses(rows[i : i + sequences]) for i in range(0, len(rows), sequences)]
    return np.concatenate(batches).astype(np.float64).ravel()[:targets]


def _bytes_read(counts: np.ndarray, shards: Shards) -> np.ndarray:
    """Bytes of every document that was read, float64 [documents].

    A document that was read in part counts in proportion to its tokens.
    """
    starts = np.append(shards.validation_starts, len(shards.validation))
    return counts / np.diff(starts)[: len(counts)] * shards.validation_bytes[: len(counts)]
