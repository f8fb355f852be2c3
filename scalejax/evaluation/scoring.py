"""Log-likelihoods of continuations, computed in batches of padded or packed rows.

Every distinct request is scored once, in float32.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import jax
import numpy as np

from scalejax.data.packing import DOCUMENT_START

# Approximate number of tokens per model call when rows are padded to bucket lengths. On
# CPU this is what one core's cache holds. With calls of 8,192 tokens, scoring takes 1.1
# times as long if rows have 128 tokens, and 1.6 times as long if they have 576.
BUCKETED_TOKENS_PER_CALL = 2_048

# Approximate number of tokens per model call when requests share rows. On accelerators
# this is enough for matrix products at full speed, and little is wasted on a task's
# last batch.
PACKED_TOKENS_PER_CALL = 16_384

# Number of row lengths, each half of the next one. A request goes into the shortest row
# that holds it, so padding is less than half of a row (except in the shortest rows).
# Each length has two output widths (see `_Bucket`), so at most ten programs are
# compiled.
BUCKET_COUNT = 5

# Tokens of the shortest row, and of the longest continuation that counts as short.
SHORT_LENGTH = 32


class SpanScorer(Protocol):
    """A model that scores spans of tokens in a batch of rows.

    Args:
        rows: token ids, int32 [b, t + 1]. When a row has several spans (k > 1), the
            first token of every request is marked as a document start
            (data/packing.py), and tokens before that mark do not count as context.
        starts: position in the row of each span's first token, int32 [b, k], at least
            1.
        counts: tokens of each span, int32 [b, k], at most `width`; 0 for padding.
        width: number of output positions computed per span.

    Returns:
        The log-likelihood of each span given the tokens before it, float32 [b, k], in
        nats summed over its tokens, and whether each of its tokens is the most likely
        one, bool [b, k].
    """

    def __call__(
        self, rows: np.ndarray, starts: np.ndarray, counts: np.ndarray, width: int, /
    ) -> tuple[jax.Array | np.ndarray, jax.Array | np.ndarray]: ...


class Likelihoods(NamedTuple):
    """Scores of a list of requests, one entry per request."""

    log_likelihood: np.ndarray
    """Log-likelihood of the continuation in nats, summed over its tokens, float32."""
    tokens: np.ndarray
    """Tokens of the continuation, int32."""
    greedy: np.ndarray
    """Whether every token of the continuation is the most likely one, bool."""
    cut: np.ndarray
    """Tokens removed from the beginning of the context to fit the window, int32."""


def prefers_packing() -> bool:
    """Whether requests should share rows on this machine.

    On accelerators, short rows leave matrix products too small to run at full speed, so
    requests are packed. On CPU, attention over the whole window, most of it masked,
    would cost more than the padding that packing saves.
    """
    return jax.default_backend() != "cpu"


def score(
    span_scorer: SpanScorer,
    requests: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    window: int,
    batch_multiple: int = 1,
    packed: bool = False,
) -> Likelihoods:
    """Score (context ids, continuation ids) pairs.

    A pair longer than `window` tokens loses the beginning of its context. Equal
    requests are scored once, so that equal choices tie exactly.

    Without `packed`, each request has a row of its own, padded to one of a few lengths.
    With `packed`, all rows have `window` tokens, and requests with short continuations
    share rows. Padding comes after the tokens that count, where a causal model cannot
    see it. The number of rows of a call is a multiple of `batch_multiple`, the number
    of devices along the batch.

    Raises ValueError for an empty context or continuation, and for a continuation that
    leaves no room for a token of context.
    """
    batcher = _Batcher(span_scorer, window, batch_multiple, packed)
    index_of: dict[bytes, int] = {}
    indices: list[int] = []
    lengths: list[int] = []
    cuts: list[int] = []
    for number, (context, continuation) in enumerate(requests):
        _check(number, len(context), len(continuation), window)
        cut = max(0, len(context) + len(continuation) - window)
        tokens = np.concatenate([context[cut:], continuation]).astype(np.int32)
        start = len(context) - cut
        # The start is part of the key: the same tokens split elsewhere are another
        # request.
        key = hashlib.blake2b(tokens.tobytes() + start.to_bytes(4), digest_size=16).digest()
        if key not in index_of:
            index_of[key] = len(index_of)
            batcher.add(index_of[key], tokens, start)
        indices.append(index_of[key])
        lengths.append(len(continuation))
        cuts.append(cut)
    log_likelihood, greedy = batcher.finish(len(index_of))
    return Likelihoods(
        log_likelihood[indices],
        np.array(lengths, np.int32),
        greedy[indices],
        np.array(cuts, np.int32),
    )


def bucket_lengths(window: int) -> list[int]:
    """Row lengths in input tokens, ascending.

    >>> bucket_lengths(2048), bucket_lengths(100)
    ([128, 256, 512, 1024, 2048], [50, 100])
    """
    # -(-a // b) is a / b rounded up, so that the longest row holds the whole window.
    halves = [-(-window // 2**k) for k in range(BUCKET_COUNT)]
    return sorted({length for length in halves if length >= min(SHORT_LENGTH, window)})


class _Bucket(NamedTuple):
    """A shape of rows: one compiled program.

    The width is SHORT_LENGTH for short continuations: logits are then computed at 32
    positions per span instead of at every position of the row. With large vocabularies
    the output layer is most of a small model's work.
    """

    length: int
    """Input tokens per row."""
    width: int
    """Output positions per span."""


@dataclass
class _Row:
    """Requests laid end to end in one row."""

    numbers: list[int] = field(default_factory=list)
    """Number of each request."""
    requests: list[np.ndarray] = field(default_factory=list)
    """Tokens of each request, context and continuation."""
    starts: list[int] = field(default_factory=list)
    """Position in the row at which each continuation begins."""
    tokens: int = 0
    """Tokens in the row so far."""

    def add(self, number: int, request: np.ndarray, start: int) -> None:
        """Append a request whose continuation begins at its token `start`."""
        self.numbers.append(number)
        self.requests.append(request)
        self.starts.append(self.tokens + start)
        self.tokens += len(request)


class _Call(NamedTuple):
    """A call of the model whose results may still be on their way."""

    numbers: np.ndarray
    """Request in each span, int [b, k]; -1 for padding."""
    log_likelihood: jax.Array | np.ndarray
    greedy: jax.Array | np.ndarray


class _Batcher:
    """Fills rows with requests, and calls the model on full batches of rows.

    No result is awaited before `finish`. JAX dispatches calls asynchronously, so the
    device works while the host prepares the next batch.
    """

    def __init__(self, span_scorer: SpanScorer, window: int, batch_multiple: int, packed: bool):
        self._span_scorer = span_scorer
        self._lengths = [window] if packed else bucket_lengths(window)
        self._batch_multiple = batch_multiple
        self._packed = packed
        self._waiting: dict[_Bucket, list[_Row]] = {}
        self._calls: list[_Call] = []

    def add(self, number: int, request: np.ndarray, start: int) -> None:
        """Add a request, after calling the model if its batch is full."""
        bucket = self._bucket(len(request), len(request) - start)
        rows = self._waiting.setdefault(bucket, [])
        if not rows or not self._has_room(rows[-1], bucket, len(request)):
            if len(rows) == self._rows_per_call(bucket):
                self._call(bucket)
            rows.append(_Row())
        rows[-1].add(number, request, start)

    def finish(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihoods, float32 [count], and greedy flags, bool [count]."""
        for bucket in self._waiting:
            self._call(bucket)
        log_likelihood, greedy = np.zeros(count, np.float32), np.zeros(count, bool)
        for call in self._calls:
            used = call.numbers >= 0
            log_likelihood[call.numbers[used]] = np.asarray(call.log_likelihood)[used]
            greedy[call.numbers[used]] = np.asarray(call.greedy)[used]
        return log_likelihood, greedy

    def _bucket(self, tokens: int, continuation: int) -> _Bucket:
        # The last token is only predicted, never an input: a row of `length` inputs
        # holds length + 1 tokens.
        length = next(length for length in self._lengths if tokens - 1 <= length)
        is_short = continuation <= SHORT_LENGTH <= length
        return _Bucket(length, SHORT_LENGTH if is_short else length)

    def _has_room(self, row: _Row, bucket: _Bucket, tokens: int) -> bool:
        has_free_span = len(row.numbers) < self._spans_per_row(bucket)
        return has_free_span and row.tokens + tokens <= bucket.length + 1

    def _rows_per_call(self, bucket: _Bucket) -> int:
        tokens = PACKED_TOKENS_PER_CALL if self._packed else BUCKETED_TOKENS_PER_CALL
        multiple = self._batch_multiple
        return max(1, tokens // bucket.length // multiple) * multiple

    def _spans_per_row(self, bucket: _Bucket) -> int:
        # spans x width never exceeds the row length, so packing computes no more logits
        # than one request per row at full width does.
        return bucket.length // bucket.width if self._packed else 1

    def _call(self, bucket: _Bucket) -> None:
        """Call the model on the waiting rows of a bucket, padded to the full batch."""
        shape = (self._rows_per_call(bucket), self._spans_per_row(bucket))
        tokens = np.zeros((shape[0], bucket.length + 1), np.int32)
        # Padding spans have no tokens. They start at 1 because a start of 0 has no
        # context.
        starts, counts = np.ones(shape, np.int32), np.zeros(shape, np.int32)
        numbers = np.full(shape, -1)
        for i, row in enumerate(self._waiting[bucket]):
            tokens[i, : row.tokens] = np.concatenate(row.requests)
            sizes = np.array([len(request) for request in row.requests])
            ends, spans = np.cumsum(sizes), len(sizes)
            # Marks keep packed requests from seeing each other; a single request has
            # none.
            tokens[i, ends - sizes] += DOCUMENT_START * (shape[1] > 1)
            numbers[i, :spans] = row.numbers
            starts[i, :spans] = row.starts
            counts[i, :spans] = ends - row.starts
        self._calls.append(_Call(numbers, *self._span_scorer(tokens, starts, counts, bucket.width)))
        self._waiting[bucket].clear()


def _check(number: int, context: int, continuation: int, window: int) -> None:
    if not continuation:
        raise ValueError(
            f"request {number} has an empty continuation, so there is nothing to score"
        )
    if not context:
        raise ValueError(
            f"request {number} has an empty context; expected at least one token. Give the "
            "end-of-document token, which precedes every document"
        )
    if continuation >= window:
        raise ValueError(
            f"request {number} has a continuation of {continuation} tokens, which does not fit "
            f"a window of {window} tokens together with one token of context; shorten the "
            "continuation or use a longer window"
        )
