"""A task made of held-out text: which of four passages goes on from here?"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from scalejax.data.shards import Shards
from scalejax.evaluation.prompts import Answer

CHOICES = 4
CHOICE_TOKENS = 16
"""Length of a candidate: long enough that the true continuation can be told apart, short enough for small models to err."""


@dataclass(frozen=True)
class Items:
    """Multiple-choice items in tokens; every candidate of a task has the same length, so that no length can give it away."""

    contexts: np.ndarray
    """int32 [items, context]"""
    candidates: np.ndarray
    """int32 [items, choices, continuation]"""
    gold: np.ndarray
    """int64 [items]: index of the true candidate."""
    documents: np.ndarray
    """int64 [items, choices]: held-out document of every candidate."""

    def __len__(self) -> int:
        return len(self.gold)


@functools.lru_cache(maxsize=4)
def for_window(shards: Shards, items: int, window: int) -> Items:
    """The items that fill `window` tokens, candidates of CHOICE_TOKENS."""
    return continuation_items(
        shards, items=items, context=window - CHOICE_TOKENS, continuation=CHOICE_TOKENS, seed=0
    )


def answers(items: Items) -> Iterator[Answer]:
    """Every candidate of every item, as tokens without a text."""
    for i, (context, candidates, gold) in enumerate(
        zip(items.contexts, items.candidates, items.gold, strict=True)
    ):
        for choice, candidate in enumerate(candidates):
            yield Answer(i, choice, bool(choice == gold), "", "", context, candidate)


def continuation_items(
    shards: Shards, *, items: int, context: int, continuation: int, seed: int
) -> Items:
    """The true continuation of a held-out passage among three passages of equal length from other held-out documents.

    Passages do not overlap, no two items hold the same one, and the four candidates of an item differ and are of four documents.
    Gold stands equally often at each of the four places, in an order drawn from `seed`. A held-out split with fewer than `items`
    passages gives as many items as it has: `len(...)` tells.

    Raises ValueError when fewer than four held-out documents are as long as context + continuation tokens.
    """
    starts, documents = _passages(shards, context + continuation)
    if len(np.unique(documents)) < CHOICES:
        raise ValueError(
            f"the continuation task needs {CHOICES} held-out documents of at least {context + continuation} tokens; "
            f"{len(np.unique(documents))} of {len(shards.validation_starts)} are that long: use more text, a shorter context, "
            "or leave the task out (Measure.items = 0)"
        )
    passages = np.lib.stride_tricks.sliding_window_view(shards.validation, context + continuation)[
        starts
    ].astype(np.int32)
    first = np.sort(
        np.unique(passages, axis=0, return_index=True)[1]
    )  # equal passages: the first one stays
    passages, documents = passages[first], documents[first]
    rng = np.random.default_rng([seed, context, continuation])
    chosen = rng.permutation(len(passages))[:items]
    gold = rng.permutation(np.arange(len(chosen)) % CHOICES)
    order = np.stack(
        [_candidates(rng, int(passage), passages[:, context:], documents) for passage in chosen]
    )
    places = (
        np.arange(CHOICES) - gold[:, None]
    )  # candidate 0 of `order` is the true one: turn it to the place of gold
    order = np.take_along_axis(order, places % CHOICES, axis=1)
    return Items(
        passages[chosen, :context], passages[order][:, :, context:], gold, documents[order]
    )


def _passages(shards: Shards, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Token offsets and documents of all passages of `length` tokens inside documents, laid end to end."""
    ends = np.append(shards.validation_starts[1:], len(shards.validation))
    if shards.manifest["tokenizer"]["end"] is not None:
        ends = ends - 1  # the end-of-document token closes a document and is no text
    counts = np.maximum(ends - shards.validation_starts, 0) // length
    documents = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    return shards.validation_starts[documents] + within * length, documents


def _candidates(
    rng: np.random.Generator, true: int, continuations: np.ndarray, documents: np.ndarray
) -> np.ndarray:
    """The true passage, then passages of other documents; documents and texts all differ.

    Raises ValueError when the held-out text repeats itself so much that there are no four.
    """
    chosen = [true]
    for passage in rng.permutation(len(documents)):
        new_document = documents[passage] not in documents[chosen]
        if new_document and not (continuations[passage] == continuations[chosen]).all(axis=1).any():
            chosen.append(int(passage))
            if len(chosen) == CHOICES:
                return np.array(chosen)
    raise ValueError(
        f"held-out documents repeat one another: there are no {CHOICES} different continuations from {CHOICES} documents; "
        "use more text, or leave the task out (Measure.items = 0)"
    )
