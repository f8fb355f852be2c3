"""Scores of multiple-choice items: log-likelihoods of the candidates, top-1 error with its standard error."""

import math
from dataclasses import dataclass

import numpy as np

from scalejax.evaluation.loss import TokenLosses
from scalejax.evaluation.tasks import Items


@dataclass(frozen=True)
class Scores:
    """What a model made of a task."""

    top1_error: float
    """Share of items whose likeliest candidate is not the true one; k candidates tied at the top count 1/k each."""
    top1_error_se: float
    """Standard error of `top1_error` over items."""
    chance: float
    """Error of guessing."""
    ties: int
    """Items with more than one candidate at the top."""
    log_likelihoods: np.ndarray
    """float32 [items, choices]: mean log-likelihood of a token of each candidate, nats."""
    credit: np.ndarray
    """float64 [items]: 1 for a right answer, 0 for a wrong one, 1/k for a tie that holds the true one."""


def score(token_losses: TokenLosses, items: Items, *, sequence_length: int, sequences: int) -> Scores:
    """Top-1 error by mean log-likelihood per token of each candidate after its context.

    Rows have the shape of training rows, int32 [sequences, sequence_length + 1]: context, candidate, then padding, which a causal
    model cannot see. Raises ValueError when context and candidate do not fit a row, and for a likelihood that is not finite, with
    item and candidate named.
    """
    n, choices, length = items.candidates.shape
    context = items.contexts.shape[1]
    if not 1 <= context <= sequence_length + 1 - length:
        raise ValueError(
            f"a context of {context} and a continuation of {length} tokens do not fit a row of {sequence_length} + 1 tokens"
        )
    rows = np.zeros((math.ceil(n * choices / sequences) * sequences, sequence_length + 1), np.int32)
    rows[: n * choices, :context] = np.repeat(items.contexts, choices, axis=0)
    rows[: n * choices, context : context + length] = items.candidates.reshape(n * choices, length)
    losses = np.concatenate([token_losses(rows[i : i + sequences]) for i in range(0, len(rows), sequences)])
    likelihoods = -losses[: n * choices, context - 1 : context - 1 + length].mean(axis=1).reshape(n, choices)
    if not np.isfinite(likelihoods).all():
        item, candidate = np.argwhere(~np.isfinite(likelihoods))[0]
        raise ValueError(f"the log-likelihood of item {item}, candidate {candidate} is {likelihoods[item, candidate]}")
    return _scores(likelihoods, items.gold)


def _scores(likelihoods: np.ndarray, gold: np.ndarray) -> Scores:
    n, choices = likelihoods.shape
    at_top = likelihoods == likelihoods.max(axis=1, keepdims=True)
    credit = at_top[np.arange(n), gold] / at_top.sum(axis=1)
    return Scores(
        top1_error=float(1 - credit.mean()),
        top1_error_se=float(credit.std() / math.sqrt(n)),
        chance=1 - 1 / choices,
        ties=int((at_top.sum(axis=1) > 1).sum()),
        log_likelihoods=likelihoods,
        credit=credit,
    )
