"""Log-likelihoods of continuations: rows in buckets of length, each distinct row scored once, float32."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

TOKENS_AT_ONCE = {"cpu": 2_048, "accelerator": 16_384}
"""Tokens of a call, about: what a core's cache holds (8,192 take 1.1 of the time at rows of 128, 1.6 at 576), or enough for
matrix products at full speed; little to waste on the last rows of a task."""
SHORTEST = 32
"""Tokens of the shortest bucket."""
BUCKETS = 5
"""Lengths of row, each half of the next: with long and short answers apart, at most ten programs are compiled."""

SpanScores = Callable[[np.ndarray, np.ndarray, np.ndarray, int], tuple[Any, Any]]
"""(rows int32 [b, t + 1], starts int32 [b], counts int32 [b], width) -> (float32 [b], bool [b]): log-likelihood in nats of tokens
start .. start + count - 1 of every row given those before them, summed, and whether each of them is the likeliest.
Counts are at most `width`, and starts at least 1."""


class Likelihoods(NamedTuple):
    """What a model made of some requests, one entry for each."""

    log_likelihood: np.ndarray
    """float32: of the continuation given its context, nats, summed over its tokens."""
    tokens: np.ndarray
    """int32: of the continuation."""
    greedy: np.ndarray
    """bool: whether every token of the continuation is the likeliest given all before it."""
    cut: np.ndarray
    """int32: tokens that the context lost on its left."""


def score(
    span_scores: SpanScores, requests: Iterable[tuple[np.ndarray, np.ndarray]], *, window: int, multiple: int = 1
) -> Likelihoods:
    """Scores (context ids, continuation ids) pairs; a pair longer than `window` tokens loses the beginning of its context.

    Rows are padded to one of a few lengths, and every call has as many rows as its length allows, a multiple of `multiple` (the
    devices along the batch). Padding stands after the tokens that count, where a causal model cannot see it. Equal requests are
    scored once, so that equal choices tie exactly.

    Raises ValueError for an empty context or continuation, and for a continuation that leaves no room for a token of context.
    """
    batches = _Batches(span_scores, window, multiple)
    place: list[int] = []
    known: dict[bytes, int] = {}
    tokens, cuts = [], []
    for number, (context, continuation) in enumerate(requests):
        cut = max(0, len(context) + len(continuation) - window)
        _check(number, len(context), len(continuation), window)
        row = np.concatenate([context[cut:], continuation]).astype(np.int32)
        start = len(context) - cut
        key = hashlib.blake2b(row.tobytes() + start.to_bytes(4), digest_size=16).digest()
        if key not in known:
            known[key] = len(known)
            batches.add(known[key], row, start)
        place.append(known[key])
        tokens.append(len(continuation))
        cuts.append(cut)
    sums, greedy = batches.finish(len(known))
    return Likelihoods(sums[place], np.array(tokens, np.int32), greedy[place], np.array(cuts, np.int32))


def lengths(window: int) -> list[int]:
    """The lengths of row, in input tokens, ascending.

    >>> lengths(2048), lengths(100)
    ([128, 256, 512, 1024, 2048], [50, 100])
    """
    halves = [-(-window // 2**k) for k in range(BUCKETS)]
    return sorted({length for length in halves if length >= min(SHORTEST, window)})


class _Batches:
    """Rows that wait for their batch, and the calls that have been made: none is awaited before the end."""

    def __init__(self, span_scores: SpanScores, window: int, multiple: int):
        self._span_scores = span_scores
        self._lengths = lengths(window)
        self._multiple = multiple
        self._tokens = TOKENS_AT_ONCE["cpu" if jax.default_backend() == "cpu" else "accelerator"]
        self._waiting: dict[tuple[int, int], list[tuple[int, np.ndarray, int]]] = {}
        self._called: list[tuple[list[int], Any, Any]] = []

    def add(self, number: int, row: np.ndarray, start: int) -> None:
        """A row of tokens whose continuation begins at `start`; calls the model when a batch is full."""
        length = next(length for length in self._lengths if len(row) - 1 <= length)
        width = SHORTEST if len(row) - start <= SHORTEST <= length else length
        waiting = self._waiting.setdefault((length, width), [])
        waiting.append((number, row, start))
        if len(waiting) == self._rows(length):
            self._call(length, width)

    def finish(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(sums float32 [count], greedy bool [count]) of the rows numbered 0 .. count - 1."""
        for length, width in [key for key, waiting in self._waiting.items() if waiting]:
            self._call(length, width)
        sums, greedy = np.zeros(count, np.float32), np.zeros(count, bool)
        for numbers, some_sums, some_greedy in self._called:
            sums[numbers] = np.asarray(some_sums)[: len(numbers)]
            greedy[numbers] = np.asarray(some_greedy)[: len(numbers)]
        return sums, greedy

    def _rows(self, length: int) -> int:
        return max(1, self._tokens // length // self._multiple) * self._multiple

    def _call(self, length: int, width: int) -> None:
        batch = self._waiting.pop((length, width))
        rows = np.zeros((self._rows(length), length + 1), np.int32)
        starts, counts = np.ones(len(rows), np.int32), np.zeros(len(rows), np.int32)
        for i, (_, row, start) in enumerate(batch):
            rows[i, : len(row)] = row
            starts[i], counts[i] = start, len(row) - start
        self._called.append(([number for number, _, _ in batch], *self._span_scores(rows, starts, counts, width)))


def _check(number: int, context: int, continuation: int, window: int) -> None:
    if not continuation:
        raise ValueError(f"request {number} has an empty continuation: nothing to score")
    if not context:
        raise ValueError(f"request {number} has an empty context; give the end-of-document token, which precedes every document")
    if continuation >= window:
        raise ValueError(
            f"request {number} has a continuation of {continuation} tokens: with one of context it does not fit "
            f"a window of {window}; shorten it or take a longer window"
        )
