"""Held-out loss with its standard error, and bits per byte."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scalejax.data.packing import split_flags
from scalejax.data.shards import Shards

TokenLosses = Callable[[np.ndarray], np.ndarray]
"""int32 [rows, length + 1] -> float32 [rows, length]: nats of token t + 1 given tokens 0 .. t of its row."""


@dataclass(frozen=True)
class Loss:
    """Held-out loss of one model on one domain, or on all."""

    loss: float
    """Mean cross-entropy, nats per token."""
    loss_se: float | None
    """Standard error of `loss` over documents; None when a single document was read."""
    bits_per_byte: float | None
    """Bits per UTF-8 byte of the text; None for a synthetic source, which has no bytes."""
    bits_per_byte_se: float | None
    """Standard error of `bits_per_byte` over documents."""
    tokens: int
    """Tokens predicted."""


@dataclass(frozen=True)
class LossResult(Loss):
    """The loss on all held-out tokens that were read, and on each domain."""

    domains: dict[str, Loss]
    """Of the domains that were met, where there are several; else empty."""


def evaluate_loss(
    token_losses: TokenLosses,
    shards: Shards,
    *,
    sequence_length: int,
    tokens: int,
    sequences: int,
    packing: str = "concatenate",
) -> LossResult:
    """Loss on the first `tokens` held-out tokens (all, when there are fewer), read in windows without overlap.

    `packing` as in Data: with `documents` the rows bear marks (data/packing.py), and the tokens of prompts do not count.
    Every call of `token_losses` has `sequences` rows; rows and tokens beyond the end are padding and do not count. Held-out
    documents lie in the order of their hashes, so that the first tokens are a sample of all domains.
    """
    targets = min(tokens, len(shards.validation) - 1)
    rows = shards.tokens("validation", packing)[: targets + 1].rows()
    _, _, counted = split_flags(rows[1:])
    losses = _losses(token_losses, rows, sequence_length, sequences) * counted
    document = (
        np.searchsorted(shards.validation_starts, np.arange(1, targets + 1), side="right") - 1
    )
    documents = int(document[-1]) + 1
    nats = np.bincount(document, losses, minlength=documents)
    counts = np.bincount(document, counted, minlength=documents)
    read = _bytes_read(counts, shards)
    domain = shards.validation_domains[:documents]
    parts = (
        {name: domain == number for number, name in enumerate(shards.domains)}
        if len(shards.domains) > 1
        else {}
    )
    domains = {
        name: _loss(nats[part], counts[part], read[part])
        for name, part in parts.items()
        if counts[part].any()
    }
    return LossResult(**vars(_loss(nats, counts, read)), domains=domains)


def _loss(nats: np.ndarray, counts: np.ndarray, read: np.ndarray) -> Loss:
    """Out of the nats, tokens and bytes of each document."""
    bits = nats / math.log(2)
    per_byte = (
        (float(bits.sum() / read.sum()), clustered_error(bits, read))
        if read.any()
        else (None, None)
    )
    return Loss(
        float(nats.sum() / counts.sum()),
        clustered_error(nats, counts),
        *per_byte,
        int(counts.sum()),
    )


def clustered_error(sums: np.ndarray, counts: np.ndarray) -> float | None:
    """Standard error of the ratio sum(sums) / sum(counts) over independent clusters; None for a single one.

    sqrt(m / (m - 1) sum (s_d - R n_d)^2) / sum n_d for m clusters (Cochran 1977, eq. 6.13): tokens of one document vary together,
    so that an error over tokens alone would be too small.

    >>> round(clustered_error(np.array([2.0, 4.0]), np.array([2, 2])), 3)
    0.5
    """
    sums, counts = sums[counts > 0], counts[counts > 0]
    m = len(counts)
    if m < 2:
        return None
    residuals = sums - sums.sum() / counts.sum() * counts
    return float(np.sqrt(m / (m - 1) * np.square(residuals).sum()) / counts.sum())


def _losses(
    token_losses: TokenLosses, tokens: np.ndarray, length: int, sequences: int
) -> np.ndarray:
    """float64 [len(tokens) - 1]: the loss of every token but the first."""
    targets = len(tokens) - 1
    windows = math.ceil(targets / length)
    padded = np.zeros(math.ceil(windows / sequences) * sequences * length + 1, np.int32)
    padded[: len(tokens)] = tokens
    rows = np.lib.stride_tricks.sliding_window_view(padded, length + 1)[::length]
    batches = [
        token_losses(rows[i : i + sequences]) for i in range(0, len(rows), sequences)
    ]  # all started before one is awaited
    return np.concatenate(batches).astype(np.float64).ravel()[:targets]


def _bytes_read(counts: np.ndarray, shards: Shards) -> np.ndarray:
    """float64 [documents]: bytes of every document read; of one read in part, in proportion to its tokens."""
    starts = np.append(shards.validation_starts, len(shards.validation))
    return counts / np.diff(starts)[: len(counts)] * shards.validation_bytes[: len(counts)]
