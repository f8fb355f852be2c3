"""Batches as arithmetic: row i of a run is a window of the shards, found from (seed, i) alone."""

from functools import lru_cache

import numpy as np

ROUNDS = 6  # of the Feistel network; four make a pseudo-random permutation (Luby and Rackoff 1988), two more cost little


class Batches:
    """Windows of sequence_length + 1 tokens in an order drawn anew for every epoch.

    The shard is cut into W = (tokens - 1) // sequence_length windows; neighbours share one token, the last target of one being
    the first input of the next. Row r of a run is window P(r mod W) of epoch r // W, with a permutation P keyed by (seed, epoch)
    and computed index by index, without a table. Nothing else is state, so that any split of a step into micro-batches, and any
    number of hosts, reads the same tokens.

    Raises ValueError when there are fewer tokens than one window.
    """

    def __init__(self, tokens: np.ndarray, *, sequence_length: int, sequences: int, seed: int):
        self.windows = (len(tokens) - 1) // sequence_length
        if self.windows < 1:
            raise ValueError(
                f"{len(tokens):,} training tokens are fewer than one window of sequence_length {sequence_length} + 1: "
                "use more text or a smaller Data.sequence_length"
            )
        self.sequences = sequences
        self.seed = seed
        self._windows = np.lib.stride_tricks.sliding_window_view(tokens, sequence_length + 1)[::sequence_length]

    def batch_at(self, step: int) -> np.ndarray:
        """int32 [sequences, sequence_length + 1] of step 0, 1, ..: inputs are [:, :-1], targets [:, 1:]."""
        return self.rows(step * self.sequences, (step + 1) * self.sequences)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """int32 [stop - start, sequence_length + 1]: these rows of the run, across epochs."""
        rows = np.arange(start, stop)
        windows = np.concatenate(
            [
                permuted(rows[rows // self.windows == epoch] % self.windows, self.windows, _keys(self.seed, epoch))
                for epoch in range(start // self.windows, (stop - 1) // self.windows + 1)
            ]
        )
        return self._windows[windows].astype(np.int32)

    def epochs(self, step: int) -> float:
        """Passes over the windows made before `step`."""
        return step * self.sequences / self.windows


def permuted(indices: np.ndarray, size: int, keys: tuple[int, ...]) -> np.ndarray:
    """int64 images of `indices` under a permutation of 0 .. size - 1 keyed by `keys`: a Feistel network that walks its cycles.

    The network permutes 0 .. 2^b - 1, the least power of two that holds `size`; an image outside is permuted again until it is
    inside, fewer than two times on average (Black and Rogaway 2002, section 3).

    >>> sorted(permuted(np.arange(5), 5, (1, 2, 3, 4, 5, 6)).tolist())
    [0, 1, 2, 3, 4]
    """
    bits = max(2, int(size - 1).bit_length())
    images = _feistel(indices.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(images >= size)
    while outside.size:
        images[outside] = _feistel(images[outside], bits, keys)
        outside = outside[images[outside] >= size]
    return images.astype(np.int64)


def _feistel(x: np.ndarray, bits: int, keys: tuple[int, ...]) -> np.ndarray:
    """One pass over 0 .. 2^bits - 1: halves of `low` and `bits - low` bits change places every round."""
    low = np.uint64(bits // 2)
    high = np.uint64(bits) - low
    for key in keys:
        right = x & ((np.uint64(1) << low) - np.uint64(1))
        mixed = (right + np.uint64(key)) * np.uint64(0x9E3779B97F4A7C15)  # multiply and fold: the high bits know all of `right`
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        left = (x >> low) ^ (mixed >> (np.uint64(64) - high))
        x = right << high | left
        low, high = high, low
    return x


@lru_cache(maxsize=16)
def _keys(seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(int(key) for key in np.random.SeedSequence([seed, epoch]).generate_state(ROUNDS, np.uint64))
