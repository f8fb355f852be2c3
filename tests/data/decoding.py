"""Reads documents back out of token shards."""

import numpy as np

from scalejax.data.shards import Shards


def documents(tokens: np.ndarray, end: int | None) -> list[list[int]]:
    """The ids of every document between two end tokens."""
    assert end is not None and tokens[0] == tokens[-1] == end
    parts = np.split(tokens, np.flatnonzero(tokens == end))
    return [part[1:].tolist() for part in parts[1:-1]]


def texts(tokens: np.ndarray, shards: Shards) -> list[str]:
    """The text of every document."""
    return [shards.tokenizer().decode(ids) for ids in documents(tokens, shards.end)]
