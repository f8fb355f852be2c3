"""Which test items are in the training tokens? Runs of n equal tokens tell."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scalejax.data.shards import Shards
from scalejax.data.sources.records import read_records

N = 13  # tokens in a row; Brown et al. 2020 (appendix C) count 13 words, which is stricter
BLOCK = 2**22  # training tokens hashed at once


def contaminated(shards: Shards, texts: Sequence[str], n: int = N) -> np.ndarray:
    """float64 [texts]: share of each text's runs of `n` tokens that occur in the training tokens; nan for a shorter text.

    Texts are encoded as the shards were. Runs meet by a 64-bit hash: a false meeting has odds of about 1e-7 in 1e9 tokens and
    1,000 items. Raises ValueError for shards without a tokenizer.
    """
    if n < 2:
        raise ValueError(f"runs of n tokens need n of at least 2; got {n}")
    runs = [
        _hashes(np.asarray(ids, np.uint64), n) for ids in shards.tokenizer().encode(list(texts))
    ]
    wanted = np.unique(np.concatenate([*runs, np.zeros(0, np.uint64)]))
    met = np.zeros(len(wanted), bool)
    for start in range(0, len(shards.train), BLOCK):
        hashes = _hashes(np.asarray(shards.train[start : start + BLOCK + n - 1], np.uint64), n)
        found = np.searchsorted(wanted, hashes).clip(max=max(len(wanted) - 1, 0))
        if len(wanted):
            met[found[wanted[found] == hashes]] = True
    return np.array(
        [met[np.searchsorted(wanted, run)].mean() if len(run) else np.nan for run in runs]
    )


def report(shards: Shards, items: Path, *, field: str) -> str:
    """The lines of `scalejax data contamination`: one per item met, then the count. Raises ValueError for unreadable items."""
    texts = [document.text for document in read_records(items, field=field, domain="", default="")]
    shares = contaminated(shards, texts)
    met = [
        f"line {line}: {share:.0%} of its runs of {N} tokens"
        for line, share in enumerate(shares.tolist(), 1)
        if share > 0
    ]
    short = int(np.isnan(shares).sum())
    told = f"{len(met)} of {len(texts)} items share {N} tokens in a row with the training tokens of {shards.manifest['source']}"
    return "\n".join([*met, told + (f"; {short} are too short to tell" if short else "")])


def _hashes(ids: np.ndarray, n: int) -> np.ndarray:
    """uint64 [len(ids) - n + 1]: a polynomial hash of every run, over ids that are mixed first."""
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
