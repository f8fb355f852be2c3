"""Token ids with marks, which travel in the upper bits of an int32: here a document starts, this token does not count."""

from dataclasses import dataclass
from typing import Any

import numpy as np

STARTS = 1 << 30
UNCOUNTED = 1 << 29
"""Ids lie below, in a vocabulary of up to 537 million."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Token ids end to end and, where `Data.packing` is `documents`, what tells their documents apart."""

    ids: np.ndarray
    """[tokens], or windows of them."""
    end: int | None = None
    """Id of the token that ends a document and starts the next one; None: rows bear no marks."""
    counted: np.ndarray | None = None
    """uint8, as `ids`: 0 for a token whose prediction does not count (of a prompt); None: all count."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, span: slice) -> "Tokens":
        return Tokens(
            self.ids[span], self.end, None if self.counted is None else self.counted[span]
        )

    def windows(self, length: int) -> "Tokens":
        """Windows of length + 1 tokens, without a copy; neighbours share a token."""

        def cut(flat: np.ndarray) -> np.ndarray:  # a memmap object costs microseconds a slice
            return np.lib.stride_tricks.sliding_window_view(np.asarray(flat), length + 1)[::length]

        return Tokens(cut(self.ids), self.end, None if self.counted is None else cut(self.counted))

    def rows(self, at: Any = ...) -> np.ndarray:
        """int32: the ids at these places, marked where there is an `end`.

        The end of one document is the first input of the next, which is therefore predicted from it alone: no token is predicted
        from another document, and none has to be left out. An `end` within a prompt ends nothing.

        >>> ids, starts, counted = unmarked(Tokens(np.array([9, 1, 2, 9, 3]), end=9).rows())
        >>> starts.astype(int).tolist(), counted.all().item()
        ([1, 0, 0, 1, 0], True)
        """
        ids = self.ids[at].astype(np.int32)
        if self.end is None:
            return ids
        starts = ids == self.end
        if self.counted is not None:
            uncounted = self.counted[at] == 0
            starts &= ~uncounted
            np.bitwise_or(ids, UNCOUNTED, out=ids, where=uncounted)
        return np.bitwise_or(ids, STARTS, out=ids, where=starts)


def unmarked(rows: Any) -> tuple[Any, Any, Any]:
    """(ids int32, starts bool, counted bool) of rows, marked or not, in numpy or JAX."""
    return rows & (UNCOUNTED - 1), rows & STARTS != 0, rows & UNCOUNTED == 0
