"""The continuation task, made from held-out text: which of four passages comes next?"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from scalejax.data.shards import Shards
from scalejax.evaluation.prompts import Choice, Request

CHOICES = 4

# Tokens of each choice: enough to tell the true continuation from the others, and few
# enough for small models to make mistakes.
CHOICE_TOKENS = 16


@dataclass(frozen=True)
class ContinuationItems:
    """Multiple-choice items made of token ids.

    All choices have the same length, so length does not reveal the correct one.
    """

    contexts: np.ndarray
    """Token ids of the contexts, int32 [items, context]."""
    choices: np.ndarray
    """Token ids of the choices, int32 [items, CHOICES, continuation]."""
    gold: np.ndarray
    """Index of the correct choice, int64 [items]."""
    documents: np.ndarray
    """Held-out document that each choice comes from, int64 [items, CHOICES]."""

    def __len__(self) -> int:
        return len(self.gold)


# Cached because every run of a study with the same data and window uses the same items.
@functools.lru_cache(maxsize=4)
def items_for_window(shards: Shards, count: int, window: int) -> ContinuationItems:
    """`count` items whose context and choice fill `window` tokens together.

    Raises ValueError for a window that leaves no context before a choice.
    """
    if window <= CHOICE_TOKENS:
        raise ValueError(
            f"Data.sequence_length is {window}, but an item of the continuation task is a choice "
            f"of {CHOICE_TOKENS} tokens after a context of at least 1; use a sequence_length of "
            f"at least {CHOICE_TOKENS + 1}, or leave out the task with Measure(items=0)"
        )
    return continuation_items(
        shards, count=count, context=window - CHOICE_TOKENS, continuation=CHOICE_TOKENS, seed=0
    )


def build_requests(items: ContinuationItems) -> Iterator[Request]:
    """Yield a request for every choice of every item. The choices have no text."""
    for i, (context, choices, gold) in enumerate(
        zip(items.contexts, items.choices, items.gold, strict=True)
    ):
        for position, continuation in enumerate(choices):
            choice = Choice(i, position, gold=bool(position == gold), category="", text="")
            yield Request(choice, context, continuation)


def continuation_items(
    shards: Shards, *, count: int, context: int, continuation: int, seed: int
) -> ContinuationItems:
    """Items that ask for the true continuation of a held-out passage.

    The three wrong choices have the same length and come from other held-out documents.
    Passages do not overlap and no two items use the same one. The four choices of an
    item differ and come from four documents. The correct choice is equally often at
    each index, in an order drawn from `seed`.

    Args:
        shards: the corpus.
        count: number of items. A held-out split with fewer passages gives fewer items.
        context: tokens of each context.
        continuation: tokens of each choice.
        seed: seed of the random choices.

    Raises:
        ValueError: if fewer than four held-out documents have context + continuation
            tokens, or if the documents repeat each other too much.
    """
    length = context + continuation
    starts, documents = _passages(shards, length)
    available = len(np.unique(documents))
    if available < CHOICES:
        raise ValueError(
            f"the continuation task needs {CHOICES} held-out documents of at least {length} "
            f"tokens; {available} of {len(shards.validation_starts)} are that long. Use more "
            "text or a shorter Data.sequence_length, or leave out the task with Measure(items=0)"
        )
    windows = np.lib.stride_tricks.sliding_window_view(shards.validation, length)
    passages = windows[starts].astype(np.int32)
    # Of equal passages only the first is used.
    first = np.sort(np.unique(passages, axis=0, return_index=True)[1])
    passages, documents = passages[first], documents[first]
    rng = np.random.default_rng([seed, context, continuation])
    chosen = rng.permutation(len(passages))[:count]
    gold = rng.permutation(np.arange(len(chosen)) % CHOICES)
    order = np.stack([_draw_choices(rng, int(i), passages[:, context:], documents) for i in chosen])
    # The true continuation comes first in `order`; rotate each row to bring it to index
    # `gold`.
    rotation = (np.arange(CHOICES) - gold[:, None]) % CHOICES
    order = np.take_along_axis(order, rotation, axis=1)
    return ContinuationItems(
        contexts=passages[chosen, :context],
        choices=passages[order][:, :, context:],
        gold=gold,
        documents=documents[order],
    )


def _passages(shards: Shards, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Token offset and document of every passage of `length` tokens.

    Passages are laid end to end from the start of each document and never cross its
    end.
    """
    ends = np.append(shards.validation_starts[1:], len(shards.validation))
    if shards.manifest["tokenizer"]["end"] is not None:
        # The last token of a document is the end-of-document token, which is not text.
        ends = ends - 1
    counts = np.maximum(ends - shards.validation_starts, 0) // length
    documents = np.repeat(np.arange(len(counts)), counts)
    index_in_document = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    return shards.validation_starts[documents] + index_in_document * length, documents


def _draw_choices(
    rng: np.random.Generator, true: int, continuations: np.ndarray, documents: np.ndarray
) -> np.ndarray:
    """Indices of the true passage and of three wrong ones, int64 [CHOICES].

    All documents differ and so do all continuations. Raises ValueError when the
    held-out text repeats itself so much that there are no four such passages.
    """
    chosen = [true]
    for i in rng.permutation(len(documents)):
        is_new_document = documents[i] not in documents[chosen]
        is_repeated = (continuations[i] == continuations[chosen]).all(axis=1).any()
        if is_new_document and not is_repeated:
            chosen.append(int(i))
            if len(chosen) == CHOICES:
                return np.array(chosen)
    raise ValueError(
        f"the held-out documents repeat one another: there are no {CHOICES} different "
        f"continuations from {CHOICES} documents. Use more text, or leave out the task "
        "with Measure(items=0)"
    )
