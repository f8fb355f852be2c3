"""Keyed permutations of 0 .. size - 1, evaluated index by index without a table."""

from functools import lru_cache

import numpy as np

# Rounds of the Feistel network. Four make a pseudo-random permutation (Luby and Rackoff
# 1988); two more cost little.
ROUNDS = 6


def permute(indices: np.ndarray, size: int, keys: tuple[int, ...]) -> np.ndarray:
    """int64: the images of `indices` under the permutation that `keys` define.

    A Feistel network permutes 0 .. 2^bits - 1, where 2^bits is the smallest power of
    two that holds `size`. An image of `size` or more is permuted again until it is
    smaller (cycle walking: Black and Rogaway 2002, section 3), fewer than two times on
    average.

    >>> sorted(permute(np.arange(5), 5, permutation_keys(0, 0)).tolist())
    [0, 1, 2, 3, 4]
    """
    # Both halves of the network need at least one bit.
    bits = max(2, int(size - 1).bit_length())
    images = _feistel(indices.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(images >= size)
    while outside.size:
        images[outside] = _feistel(images[outside], bits, keys)
        outside = outside[images[outside] >= size]
    return images.astype(np.int64)


@lru_cache(maxsize=64)
def permutation_keys(*numbers: int) -> tuple[int, ...]:
    """One key per round, derived from `numbers`, for instance a seed and an epoch."""
    keys = np.random.SeedSequence(numbers).generate_state(ROUNDS, np.uint64)
    return tuple(int(key) for key in keys)


def _feistel(x: np.ndarray, bits: int, keys: tuple[int, ...]) -> np.ndarray:
    """One pass of the network over uint64 numbers 0 .. 2^bits - 1.

    Every key makes one round. It changes one half of the bits by a function of the
    other half, which can be undone, and swaps the halves. With an odd number of bits
    the halves differ by one bit and swap their sizes, too.
    """
    low = np.uint64(bits // 2)
    high = np.uint64(bits) - low
    for key in keys:
        right = x & ((np.uint64(1) << low) - np.uint64(1))
        # Multiply and fold, so that the high bits, which are used, depend on all of
        # `right`.
        mixed = (right + np.uint64(key)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        left = (x >> low) ^ (mixed >> (np.uint64(64) - high))
        x = right << high | left
        low, high = high, low
    return x
