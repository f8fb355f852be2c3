"""Which test items occur in the training tokens? Measured by n-grams of tokens."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scalejax.data.shards import Shards
from scalejax.data.sources.records import read_records

# Brown et al. 2020 (appendix C) count n-grams of 13 words, which are longer and so
# occur less often by chance than 13 tokens.
NGRAM_TOKENS = 13

# Training tokens that are hashed at once.
BLOCK = 2**22


def ngram_overlap(shards: Shards, texts: Sequence[str], n: int = NGRAM_TOKENS) -> np.ndarray:
    """float64 [texts]: the share of each text's n-grams found in the training tokens.

    A text of fewer than `n` tokens gives nan. Texts are encoded with the tokenizer of
    the shards. N-grams are compared by a 64-bit hash: the chance of a false match is
    about 1e-7 for 1e9 training tokens and 1,000 items. Raises ValueError for shards
    without a tokenizer.
    """
    if n < 2:
        raise ValueError(f"n-grams of n = {n} tokens are too short; use n of at least 2")
    encoded = shards.tokenizer().encode(list(texts))
    item_hashes = [_ngram_hashes(np.asarray(ids, np.uint64), n) for ids in encoded]
    # Sorted, so that searchsorted finds a hash. The empty array is for an empty list of
    # texts.
    wanted = np.unique(np.concatenate([*item_hashes, np.zeros(0, np.uint64)]))
    occurs = np.zeros(len(wanted), bool)
    if len(wanted):
        for start in range(0, len(shards.train), BLOCK):
            # Blocks overlap by n - 1 tokens, so that no n-gram is cut in two.
            block = np.asarray(shards.train[start : start + BLOCK + n - 1], np.uint64)
            hashes = _ngram_hashes(block, n)
            candidates = np.searchsorted(wanted, hashes).clip(max=len(wanted) - 1)
            occurs[candidates[wanted[candidates] == hashes]] = True
    return np.array(
        [
            occurs[np.searchsorted(wanted, hashes)].mean() if len(hashes) else np.nan
            for hashes in item_hashes
        ]
    )


def file_overlap(shards: Shards, items: Path, *, field: str) -> np.ndarray:
    """`ngram_overlap` of the items in a file of records, with their text in `field`.

    Raises ValueError for items that cannot be read.
    """
    texts = [document.text for document in read_records(items, field=field, domain="", default="")]
    return ngram_overlap(shards, texts)


def _ngram_hashes(ids: np.ndarray, n: int) -> np.ndarray:
    """uint64 [len(ids) - n + 1]: a polynomial hash of every n-gram of uint64 ids."""
    # Small ids differ in few bits: mix them first, by the finalizer of a 64-bit hash
    # function. Arithmetic is modulo 2^64 throughout.
    mixed = (ids + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(29)
    count = len(ids) - n + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    hashes = mixed[:count].copy()
    for i in range(1, n):
        hashes = hashes * np.uint64(0xD6E8FEB86659FD93) + mixed[i : i + count]
    return hashes
