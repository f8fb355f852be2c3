"""Runs of a hyperparameter sweep, and the grid of settings that a cell of it covers.

A cell holds the runs of one size and one number of tokens.

Shapes: [rows] one entry per run; [settings] one per pair of learning rate and batch
size.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Sweep(NamedTuple):
    """Finished runs of a sweep; all values are positive."""

    params: Float[np.ndarray, " rows"]
    """Non-embedding parameters."""
    tokens: Float[np.ndarray, " rows"]
    """Training tokens."""
    learning_rate: Float[np.ndarray, " rows"]
    """Peak learning rate."""
    batch_tokens: Float[np.ndarray, " rows"]
    """Batch size, in tokens per step."""
    loss: Float[np.ndarray, " rows"]
    """Nats per token."""
    beta2: Float[np.ndarray, " rows"]
    """Adam's beta2, below 1; one value where it was not swept."""

    def cells(self) -> "list[Sweep]":
        """The runs of each (params, tokens)."""
        sizes = np.stack([self.params, self.tokens])
        _, cell = np.unique(sizes, axis=1, return_inverse=True)
        return [Sweep(*(x[cell == c] for x in self)) for c in range(cell.max() + 1)]

    def swept(self) -> tuple[str, ...]:
        """Which of learning_rate and batch_tokens vary within a cell.

        Where one batch size per cell was trained at several rates, only the rate has an
        optimum to find. A sweep that varies nothing is judged by both.
        """
        cells = self.cells()
        varies = {
            name: any(len(np.unique(getattr(cell, name))) > 1 for cell in cells)
            for name in ("learning_rate", "batch_tokens")
        }
        if varies["learning_rate"] and not varies["batch_tokens"]:
            return ("learning_rate",)
        return ("learning_rate", "batch_tokens")


class Settings(NamedTuple):
    """The settings of a cell: pairs of learning rate and batch size."""

    log_lr_batch: Float[np.ndarray, "settings 2"]
    """log of the learning rate and log of the batch size."""
    lowest_loss: Float[np.ndarray, " settings"]
    """Lowest loss over beta2 and over repeated runs."""


def settings(cell: Sweep) -> Settings:
    """Return the distinct settings of a cell, each with its lowest loss."""
    pairs = np.stack([np.log(cell.learning_rate), np.log(cell.batch_tokens)], 1)
    pairs, setting = np.unique(pairs, axis=0, return_inverse=True)
    lowest = np.full(len(pairs), np.inf)
    np.minimum.at(lowest, setting.ravel(), cell.loss)
    return Settings(pairs, lowest)
