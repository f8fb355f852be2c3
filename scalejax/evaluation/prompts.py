"""Prompts as LLM-foundry builds them (llmfoundry/eval/datasets, the scorer of Gadre et al. 2024), text and tokens."""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from scalejax.data.tokenizers import Tokenizer
from scalejax.evaluation.task_files import Item

SEED = 1234  # of the few-shot draws, LLM-foundry's default
BETWEEN = "\n"  # examples
ITEMS_AT_ONCE = 256  # encoded in one call, on all cores


class Answer(NamedTuple):
    """One choice of one item: a continuation to be scored after its context."""

    item: int
    """Number of its item, from 0."""
    choice: int
    """Index within the item."""
    gold: bool
    """Whether it is the true one."""
    category: str
    """That of its item."""
    text: str
    """The answer as it stands in the file; empty where it is made of tokens."""
    context: np.ndarray
    """Token ids of all that comes before, few-shot examples included."""
    continuation: np.ndarray
    """Token ids of the answer."""


class Prompt(NamedTuple):
    """The texts of one item. They are encoded one by one and then joined, never encoded together."""

    examples: str
    """Few-shot examples with their answers; empty without any."""
    contexts: list[str]
    """What follows them, one for each context of the item."""


def answers(
    items: Sequence[Item], tokenizer: Tokenizer, *, shots: int, delimiter: str
) -> Iterator[Answer]:
    """Every choice of every item, in order; prompts from `shots` examples, `delimiter` between context and answer.

    An answer gets a blank in front iff the tokenizer has " a" as one token and it has none yet. No special token is added.
    """
    blank = wants_blank(tokenizer)
    built = prompts(items, shots=shots, delimiter=delimiter)
    for start in range(0, len(items), ITEMS_AT_ONCE):
        block = items[start : start + ITEMS_AT_ONCE]
        texts = [
            text
            for item, prompt in zip(block, built, strict=False)
            for text in _texts(item, prompt, blank)
        ]
        ids = iter(tokenizer.encode(texts))
        for number, item in enumerate(block, start):
            examples = next(ids)
            contexts = [np.concatenate([examples, next(ids)]) for _ in item.contexts]
            continuations = [next(ids) for _ in item.answers]
            parts = [(context, i) for context in contexts for i in range(len(continuations))]
            for choice, (context, i) in enumerate(parts):
                yield Answer(
                    number,
                    choice,
                    choice == item.gold,
                    item.category,
                    item.answers[i],
                    context,
                    continuations[i],
                )


def check(items: Sequence[Item], tokenizer: Tokenizer, window: int) -> None:
    """Raises ValueError, with file and line of the longest, when answers leave no room for a token before them in `window`."""
    blank = wants_blank(tokenizer)
    ids = tokenizer.encode([_led(answer, blank) for item in items for answer in item.answers])
    places = [item.place for item in items for _ in item.answers]
    sizes = np.array([len(one) for one in ids])
    longest, too_long = int(sizes.argmax()), int((sizes >= window).sum())
    if too_long:
        others = f", and neither do {too_long - 1} shorter ones" if too_long > 1 else ""
        raise ValueError(
            f"{places[longest]}: an answer of {sizes[longest]} tokens leaves no context in a window of {window}{others}; "
            f"shorten it, or score with a window of at least {sizes[longest] + 1} tokens"
        )


def prompts(items: Sequence[Item], *, shots: int, delimiter: str) -> Iterator[Prompt]:
    """The prompt of every item, in order.

    An example is its context, `delimiter` and its answer; examples are joined by a newline, and the item follows after one. The
    context of the item itself ends where its text ends: blanks of the delimiter are dropped.
    """
    for item, drawn in zip(items, few_shots(items, shots), strict=True):
        examples = BETWEEN.join(_example(items[i], delimiter) for i in drawn)
        lead = BETWEEN if examples else ""
        if item.format == "schema":
            tail = delimiter.rstrip() if examples else ""
            yield Prompt(examples, [f"{lead}{context}{tail}" for context in item.contexts])
        else:
            yield Prompt(
                examples, [f"{lead}{context}{delimiter}".rstrip() for context in item.contexts]
            )


def few_shots(items: Sequence[Item], shots: int) -> list[list[int]]:
    """Numbers of the examples of every item, from its own category, in the order in which they stand in the prompt.

    One generator a category, advanced item by item: the draw of an item depends on those before it, so that a part of a file
    does not get the prompts of the whole.
    """
    drawn: list[list[int]] = [[] for _ in items]
    for category in {item.category: None for item in items}:
        members = [i for i, item in enumerate(items) if item.category == category]
        generator = random.Random(SEED)
        for at, number in enumerate(members):
            drawn[number] = [members[i] for i in _draw(generator, len(members), shots, at)]
    return drawn


def wants_blank(tokenizer: Tokenizer) -> bool:
    """Whether words of this tokenizer carry the blank before them: " a" is one token."""
    return len(tokenizer.encode([" a"])[0]) == 1


def _draw(generator: random.Random, size: int, shots: int, at: int) -> set[int]:
    """`shots` of range(size) without `at`. A set on purpose: the order of the examples is the order of its iteration."""
    shots = min(size - 1, shots)
    if shots <= 0:
        return set()
    drawn = set(generator.sample(range(size), shots))
    if at not in drawn:
        return drawn
    drawn.remove(at)
    while (other := generator.choice(range(size))) in drawn or other == at:
        pass
    drawn.add(other)
    return drawn


def _example(item: Item, delimiter: str) -> str:
    context, answer = item.pairs[item.gold]
    return f"{context}{delimiter}{answer}"


def _texts(item: Item, prompt: Prompt, blank: bool) -> list[str]:
    return [prompt.examples, *prompt.contexts, *(_led(answer, blank) for answer in item.answers)]


def _led(answer: str, blank: bool) -> str:
    return f" {answer}" if blank and not answer.startswith(" ") else answer
