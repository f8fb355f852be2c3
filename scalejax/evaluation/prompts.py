"""Prompts of task items, identical in text and tokens to those of LLM-foundry.

LLM-foundry (llmfoundry/eval/datasets) is the scorer that Gadre et al. 2024 used.
"""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from scalejax.data.tokenizers import Tokenizer
from scalejax.evaluation.task_files import Item

# Seed of the few-shot draws, LLM-foundry's default.
FEW_SHOT_SEED = 1234

# Text between two few-shot examples, and between the last one and the item.
EXAMPLE_SEPARATOR = "\n"

# Items whose texts are encoded in one call, which uses all cores.
ITEMS_PER_CALL = 256


class Choice(NamedTuple):
    """One choice of one item."""

    item: int
    """Number of the item in its task, from 0."""
    position: int
    """Index within the item."""
    gold: bool
    """Whether this is the correct choice."""
    category: str
    """Category of the item; empty where the task has none."""
    text: str
    """The continuation as the task file has it; empty where it was made from tokens."""


class Request(NamedTuple):
    """A choice to be scored: the log-likelihood of a continuation given a context."""

    choice: Choice
    context: np.ndarray
    """Token ids before the continuation, few-shot examples included."""
    continuation: np.ndarray
    """Token ids of the continuation."""


class Prompt(NamedTuple):
    """The context texts of one item.

    The parts are encoded separately and their tokens are concatenated. Encoding the
    concatenated text could give other tokens at the seams.
    """

    examples: str
    """Few-shot examples with their answers; empty without examples."""
    contexts: list[str]
    """Text after the examples, one for each context of the item."""


def build_requests(
    items: Sequence[Item], tokenizer: Tokenizer, *, shots: int, delimiter: str
) -> Iterator[Request]:
    """Yield a request for every choice of every item, in order.

    A continuation that does not start with white space gets the `answer_prefix`. No
    special tokens are added.

    Args:
        items: all items of the task.
        tokenizer: the tokenizer of the model.
        shots: number of few-shot examples.
        delimiter: text between a context and its continuation.
    """
    prefix = answer_prefix(tokenizer, delimiter)
    prompts = build_prompts(items, shots=shots, delimiter=delimiter)
    for start in range(0, len(items), ITEMS_PER_CALL):
        block = items[start : start + ITEMS_PER_CALL]
        texts = []
        # The block comes first in zip: when it ends, no prompt of the next one is
        # consumed.
        for item, prompt in zip(block, prompts, strict=False):
            texts += prompt_texts(item, prompt, prefix)
        ids = iter(tokenizer.encode(texts))
        for number, item in enumerate(block, start):
            yield from _item_requests(number, item, ids)


def check_lengths(
    items: Sequence[Item], tokenizer: Tokenizer, window: int, *, delimiter: str
) -> None:
    """Check that every continuation fits the window with one token of context.

    Raises ValueError with the file and line of the longest continuation if one does not
    fit.
    """
    prefix = answer_prefix(tokenizer, delimiter)
    texts, locations = [], []
    for item in items:
        for continuation in item.continuations:
            texts.append(_with_prefix(continuation, prefix))
            locations.append(item.location)
    lengths = np.array([len(ids) for ids in tokenizer.encode(texts)])
    longest, too_long = int(lengths.argmax()), int((lengths >= window).sum())
    if too_long:
        others = f" ({too_long - 1} other answers do not fit either)" if too_long > 1 else ""
        raise ValueError(
            f"{locations[longest]}: an answer of {lengths[longest]} tokens leaves no context in "
            f"a window of {window} tokens{others}; shorten it, or score with a window of at "
            f"least {lengths[longest] + 1} tokens"
        )


def build_prompts(items: Sequence[Item], *, shots: int, delimiter: str) -> Iterator[Prompt]:
    """Yield the prompt of every item, in order.

    An example is its context, `delimiter` and its answer. Examples are joined by a
    newline, and the item follows after another newline. The item's own context ends
    where its text ends: trailing whitespace of the delimiter is removed, and
    `answer_prefix` puts it before the answer.
    """
    for item, examples in zip(items, few_shot_indices(items, shots), strict=True):
        example_text = EXAMPLE_SEPARATOR.join(_example(items[i], delimiter) for i in examples)
        lead = EXAMPLE_SEPARATOR if example_text else ""
        if item.format == "schema":
            tail = delimiter.rstrip() if example_text else ""
            contexts = [f"{lead}{context}{tail}" for context in item.contexts]
        else:
            contexts = [f"{lead}{context}{delimiter}".rstrip() for context in item.contexts]
        yield Prompt(example_text, contexts)


def few_shot_indices(items: Sequence[Item], shots: int) -> list[list[int]]:
    """Indices of the few-shot examples of every item, in their order in the prompt.

    Examples come from the item's own category and never include the item itself.

    Each category has one random generator that advances from item to item. The draw of
    an item therefore depends on the items before it, and part of a file does not get
    the same prompts as the whole file.
    """
    indices: list[list[int]] = [[] for _ in items]
    # A dict keeps the categories in order of appearance.
    for category in {item.category: None for item in items}:
        members = [i for i, item in enumerate(items) if item.category == category]
        generator = random.Random(FEW_SHOT_SEED)
        for position, i in enumerate(members):
            draw = _draw(generator, len(members), shots, position)
            indices[i] = [members[k] for k in draw]
    return indices


def answer_prefix(tokenizer: Tokenizer, delimiter: str) -> str:
    """The white space between a context and its answer, encoded with the answer.

    A tokenizer that attaches spaces to words, as in one token " a", gets a space, as in
    LLM-foundry. Every other tokenizer gets the white space at the end of the delimiter,
    unless it separates texts that are encoded one by one of its own accord.
    """
    if len(tokenizer.encode([" a"])[0]) == 1:
        return " "
    one, two = tokenizer.encode(["a", "a"])
    if tokenizer.decode([*one.tolist(), *two.tolist()]).strip() != "aa":
        return ""
    return delimiter[len(delimiter.rstrip()) :]


def prompt_texts(item: Item, prompt: Prompt, prefix: str) -> list[str]:
    """Texts of an item in the order of encoding: examples, contexts, answers.

    `prefix` is the `answer_prefix`.
    """
    continuations = [_with_prefix(text, prefix) for text in item.continuations]
    return [prompt.examples, *prompt.contexts, *continuations]


def _item_requests(number: int, item: Item, ids: Iterator[np.ndarray]) -> Iterator[Request]:
    """Requests of one item; takes the ids of its `prompt_texts` from `ids`."""
    examples = next(ids)
    contexts = [np.concatenate([examples, next(ids)]) for _ in item.contexts]
    continuations = [next(ids) for _ in item.continuations]
    position = 0
    for context in contexts:
        for text, continuation in zip(item.continuations, continuations, strict=True):
            choice = Choice(number, position, position == item.gold, item.category, text)
            yield Request(choice, context, continuation)
            position += 1


def _draw(generator: random.Random, size: int, shots: int, excluded: int) -> set[int]:
    """Draw `shots` indices below `size`, without `excluded`, as LLM-foundry does.

    The result is a set on purpose: the order of the examples in LLM-foundry's prompts
    is the iteration order of a Python set.
    """
    shots = min(size - 1, shots)
    if shots <= 0:
        return set()
    draw = set(generator.sample(range(size), shots))
    if excluded not in draw:
        return draw
    draw.remove(excluded)
    replacement = generator.choice(range(size))
    while replacement in draw or replacement == excluded:
        replacement = generator.choice(range(size))
    draw.add(replacement)
    return draw


def _example(item: Item, delimiter: str) -> str:
    context, answer = item.choices[item.gold]
    return f"{context}{delimiter}{answer}"


def _with_prefix(text: str, prefix: str) -> str:
    return text if text.startswith(" ") else prefix + text
