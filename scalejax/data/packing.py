"""Document starts and loss masks, stored in the two high bits of int32 token ids."""

from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    import jax

# The flags lie above the ids, so a vocabulary may have up to 2^29 (537 million) ids.
# Bit 31, the sign, stays clear. One int32 array per batch then carries everything the
# loss needs.
DOCUMENT_START = 1 << 30
NO_LOSS = 1 << 29
ID_BITS = NO_LOSS - 1


@dataclass(frozen=True, eq=False)
class TokenArray:
    """Token ids and, for packed documents, what tells the documents apart."""

    ids: np.ndarray
    """Token ids [tokens], or windows of them [windows, length + 1]."""
    end: int | None = None
    """Id of the token that ends a document and starts the next; None sets no flags."""
    loss_mask: np.ndarray | None = None
    """uint8, shaped like `ids`: 0 for a token of a prompt, which does not count in the
    loss. None: every token counts."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, span: slice) -> "TokenArray":
        mask = None if self.loss_mask is None else self.loss_mask[span]
        return TokenArray(self.ids[span], self.end, mask)

    def windows(self, length: int) -> "TokenArray":
        """Views of length + 1 consecutive tokens each, [windows, length + 1].

        Neighbouring windows share one token: the last target of one is the first input
        of the next.
        """
        mask = None if self.loss_mask is None else _windows(self.loss_mask, length)
        return TokenArray(_windows(self.ids, length), self.end, mask)

    def rows(self, index: np.ndarray | slice | EllipsisType = ...) -> np.ndarray:
        """The ids at `index` as int32, with flags when `end` is given.

        The end token of one document is the first input of the next. The first token of
        every document is therefore predicted from the end token only, and no token is
        predicted from another document: all of them can count in the loss. An end token
        inside a prompt does not end a document.

        >>> tokens = TokenArray(np.array([9, 1, 2, 9, 3]), end=9)
        >>> ids, starts, loss_mask = split_flags(tokens.rows())
        >>> ids.tolist(), starts.astype(int).tolist(), loss_mask.all().item()
        ([9, 1, 2, 9, 3], [1, 0, 0, 1, 0], True)
        """
        ids = self.ids[index].astype(np.int32)
        if self.end is None:
            return ids
        starts = ids == self.end
        if self.loss_mask is not None:
            in_prompt = self.loss_mask[index] == 0
            starts &= ~in_prompt
            np.bitwise_or(ids, NO_LOSS, out=ids, where=in_prompt)
        return np.bitwise_or(ids, DOCUMENT_START, out=ids, where=starts)


@overload
def split_flags(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...
@overload
def split_flags(rows: "jax.Array") -> "tuple[jax.Array, jax.Array, jax.Array]": ...
def split_flags(rows: Any) -> tuple[Any, Any, Any]:
    """Split int32 rows into (ids int32, document starts bool, loss mask bool).

    Works on numpy and JAX arrays. Rows without flags are one document in which every
    token counts.
    """
    return rows & ID_BITS, rows & DOCUMENT_START != 0, rows & NO_LOSS == 0


def _windows(flat: np.ndarray, length: int) -> np.ndarray:
    # Slicing a memmap object costs microseconds each time; slicing a plain array does
    # not.
    plain = np.asarray(flat)
    return np.lib.stride_tricks.sliding_window_view(plain, length + 1)[::length]
