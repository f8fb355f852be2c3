"""Log-likelihoods of continuations: in rows of a few lengths or packed, each distinct request scored once, float32."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from scalejax.data.packing import DOCUMENT_START

TOKENS_AT_ONCE = {"bucketed": 2_048, "packed": 16_384}
"""Tokens of a call, about: what a core's cache holds (8,192 take 1.1 of the time at rows of 128, 1.6 at 576), or enough for
matrix products at full speed; little to waste on the last rows of a task."""
SHORTEST = 32
"""Tokens of the shortest bucket."""
BUCKETS = 5
"""Lengths of row, each half of the next: with long and short answers apart, at most ten programs are compiled."""

SpanScores = Callable[[np.ndarray, np.ndarray, np.ndarray, int], tuple[Any, Any]]
"""(rows int32 [b, t + 1], starts int32 [b, k], counts int32 [b, k], width) -> (float32 [b, k], bool [b, k]): log-likelihood in
nats of tokens start .. start + count - 1 of a row given those before them, summed, and whether each of them is the likeliest, for
k spans of every row. Counts are at most `width`, starts at least 1. Rows of several spans bear marks (data/packing.py) where
prompts start: what is before them does not count as given."""


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


def packs() -> bool:
    """Whether prompts had better share rows: on accelerators, where short rows leave matrix products small. On a CPU attention
    over the whole window, most of it masked, would cost more than the padding that is saved.
    """
    return jax.default_backend() != "cpu"


def score(
    span_scores: SpanScores,
    requests: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    window: int,
    multiple: int = 1,
    packed: bool = False,
) -> Likelihoods:
    """Scores (context ids, continuation ids) pairs; a pair longer than `window` tokens loses the beginning of its context.

    Rows are padded to one of a few lengths; `packed`, they are all of `window` tokens, and those of short continuations hold as
    many prompts as fit. A call has as many rows as their length allows, a multiple of `multiple` (the devices along the batch).
    Padding stands after the tokens that count, where a causal model cannot see it. Equal requests are scored once, so that equal
    choices tie exactly.

    Raises ValueError for an empty context or continuation, and for a continuation that leaves no room for a token of context.
    """
    batches = _Batches(span_scores, window, multiple, packed)
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
    return Likelihoods(
        sums[place], np.array(tokens, np.int32), greedy[place], np.array(cuts, np.int32)
    )


def lengths(window: int) -> list[int]:
    """The lengths of row, in input tokens, ascending.

    >>> lengths(2048), lengths(100)
    ([128, 256, 512, 1024, 2048], [50, 100])
    """
    halves = [-(-window // 2**k) for k in range(BUCKETS)]
    return sorted({length for length in halves if length >= min(SHORTEST, window)})


@dataclass
class _Row:
    """Prompts that share a row, end to end, each with its number and where its continuation begins in the row."""

    numbers: list[int] = field(default_factory=list)
    prompts: list[np.ndarray] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    tokens: int = 0

    def add(self, number: int, prompt: np.ndarray, start: int) -> None:
        self.numbers.append(number)
        self.prompts.append(prompt)
        self.starts.append(self.tokens + start)
        self.tokens += len(prompt)


class _Batches:
    """Rows that wait for their batch, and the calls that have been made: none is awaited before the end."""

    def __init__(self, span_scores: SpanScores, window: int, multiple: int, packed: bool):
        self._span_scores = span_scores
        self._lengths = [window] if packed else lengths(window)
        self._multiple = multiple
        self._packed = packed
        self._waiting: dict[tuple[int, int], list[_Row]] = {}
        self._called: list[tuple[np.ndarray, Any, Any]] = []

    def add(self, number: int, prompt: np.ndarray, start: int) -> None:
        """A prompt whose continuation begins at `start`; calls the model when it needs a row and the batch is full."""
        length = next(length for length in self._lengths if len(prompt) - 1 <= length)
        width = SHORTEST if len(prompt) - start <= SHORTEST <= length else length
        waiting = self._waiting.setdefault((length, width), [])
        last = waiting[-1] if waiting else None
        if (
            last is None
            or len(last.numbers) == self._spans(length, width)
            or last.tokens + len(prompt) > length + 1
        ):
            if len(waiting) == self._rows(length):
                self._call(length, width)
            waiting.append(_Row())
        waiting[-1].add(number, prompt, start)

    def finish(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(sums float32 [count], greedy bool [count]) of the prompts numbered 0 .. count - 1."""
        for length, width in self._waiting:
            self._call(length, width)
        sums, greedy = np.zeros(count, np.float32), np.zeros(count, bool)
        for numbers, some_sums, some_greedy in self._called:
            there = numbers >= 0
            sums[numbers[there]] = np.asarray(some_sums)[there]
            greedy[numbers[there]] = np.asarray(some_greedy)[there]
        return sums, greedy

    def _rows(self, length: int) -> int:
        tokens = TOKENS_AT_ONCE["packed" if self._packed else "bucketed"]
        return max(1, tokens // length // self._multiple) * self._multiple

    def _spans(self, length: int, width: int) -> int:
        """Of a row; the head is taken at no more positions than there are."""
        return length // width if self._packed else 1

    def _call(self, length: int, width: int) -> None:
        batch, spans = self._waiting[length, width], self._spans(length, width)
        rows = np.zeros((self._rows(length), length + 1), np.int32)
        starts, counts = (
            np.ones((len(rows), spans), np.int32),
            np.zeros((len(rows), spans), np.int32),
        )
        numbers = np.full((len(rows), spans), -1)
        for i, row in enumerate(batch):
            rows[i, : row.tokens] = np.concatenate(row.prompts)
            sizes = np.array([len(prompt) for prompt in row.prompts])
            ends, k = np.cumsum(sizes), len(sizes)
            rows[i, ends - sizes] += DOCUMENT_START * (spans > 1)
            numbers[i, :k], starts[i, :k], counts[i, :k] = (
                row.numbers,
                row.starts,
                ends - row.starts,
            )
        self._called.append((numbers, *self._span_scores(rows, starts, counts, width)))
        batch.clear()


def _check(number: int, context: int, continuation: int, window: int) -> None:
    if not continuation:
        raise ValueError(f"request {number} has an empty continuation: nothing to score")
    if not context:
        raise ValueError(
            f"request {number} has an empty context; give the end-of-document token, which precedes every document"
        )
    if continuation >= window:
        raise ValueError(
            f"request {number} has a continuation of {continuation} tokens: with one of context it does not fit "
            f"a window of {window}; shorten it or take a longer window"
        )
