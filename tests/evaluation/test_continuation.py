"""The continuation task is fair, balanced and without duplicates.

Mirrors scalejax/evaluation/continuation.py.
"""

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from scalejax.data.shards import Manifest, Shards
from scalejax.evaluation.continuation import continuation_items, items_for_window

END = 99


def shards(documents: list[list[int]]) -> Shards:
    """Held-out documents, each ended by END, as shards of text lay them out."""
    tokens = np.array(
        [END, *(token for document in documents for token in [*document, END])], np.uint16
    )
    starts = np.cumsum([1, *(len(document) + 1 for document in documents[:-1])])
    manifest = {"vocabulary": 100, "tokenizer": {"end": END}, "entropy_rate": None}
    return Shards(
        Path(), tokens, tokens, starts, np.ones(len(documents), np.int64), cast(Manifest, manifest)
    )


def random_documents(count: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 90, rng.integers(5, 60)).tolist() for _ in range(count)]


HELD_OUT = random_documents(40)


@pytest.fixture
def items():
    return continuation_items(shards(HELD_OUT), count=64, context=6, continuation=3, seed=0)


def contains(document: list[int], passage: np.ndarray) -> bool:
    return any(document[i : i + len(passage)] == passage.tolist() for i in range(len(document)))


def test_the_gold_choice_continues_its_context(items):
    assert len(items) == 64 and items.choices.shape == (64, 4, 3)
    for context, choices, gold, documents in zip(
        items.contexts, items.choices, items.gold, items.documents, strict=True
    ):
        assert contains(HELD_OUT[documents[gold]], np.concatenate([context, choices[gold]]))


def test_choices_come_from_different_documents_and_differ(items):
    for choices, documents in zip(items.choices, items.documents, strict=True):
        assert len(set(documents)) == 4
        assert len({tuple(choice) for choice in choices}) == 4
        assert all(
            contains(HELD_OUT[d], choice) for d, choice in zip(documents, choices, strict=True)
        )


def test_gold_is_equally_often_at_each_index(items):
    assert np.bincount(items.gold).tolist() == [16] * 4
    assert len(set(items.gold[:8])) > 1, "gold indices come in blocks"


def test_no_two_items_use_the_same_passage(items):
    passages = [
        (*c, *x[g])
        for c, x, g in zip(items.contexts.tolist(), items.choices.tolist(), items.gold, strict=True)
    ]
    assert len(set(passages)) == len(passages)


def test_no_passage_crosses_the_end_of_a_document(items):
    assert END not in items.contexts and END not in items.choices


def test_items_depend_only_on_the_seed(items):
    again = continuation_items(shards(HELD_OUT), count=64, context=6, continuation=3, seed=0)
    other = continuation_items(shards(HELD_OUT), count=64, context=6, continuation=3, seed=1)
    for name in ("contexts", "choices", "gold", "documents"):
        assert np.array_equal(getattr(items, name), getattr(again, name))
        assert not np.array_equal(getattr(items, name), getattr(other, name))


def test_a_short_corpus_gives_fewer_items():
    few = continuation_items(shards(HELD_OUT), count=10_000, context=6, continuation=3, seed=0)
    assert len(few) == sum(len(document) // 9 for document in HELD_OUT)


def test_equal_passages_give_one_item_and_never_equal_choices():
    same = list(range(9))
    repeated = continuation_items(
        shards([same, same, *HELD_OUT]), count=10_000, context=6, continuation=3, seed=0
    )
    assert (repeated.contexts == same[:6]).all(axis=1).sum() == 1


def test_too_few_long_documents_are_refused_with_the_required_length():
    with pytest.raises(
        ValueError, match=r"needs 4 held-out documents of at least 9 tokens; 3 of 5 are that long"
    ):
        continuation_items(
            shards([[1] * 9, [2] * 20, [3] * 9, [4] * 8, [5]]),
            count=4,
            context=6,
            continuation=3,
            seed=0,
        )


def test_documents_that_repeat_each_other_are_refused():
    alike = [[i] * 6 + [1, 2, 3] for i in range(6)]
    with pytest.raises(ValueError, match="repeat one another"):
        continuation_items(shards(alike), count=4, context=6, continuation=3, seed=0)


def test_blocks_of_symbols_need_no_end_token():
    tokens = np.random.default_rng(0).integers(0, 90, 64).astype(np.uint16)
    manifest = {"vocabulary": 90, "tokenizer": {"end": None}, "entropy_rate": 2.0}
    blocks = Shards(
        Path(), tokens, tokens, np.arange(0, 64, 8), np.zeros(8, np.int64), cast(Manifest, manifest)
    )
    items = continuation_items(blocks, count=8, context=5, continuation=3, seed=0)
    assert len(items) == 8 and set(items.documents[np.arange(8), items.gold]) == set(range(8))


@pytest.mark.parametrize("window", [8, 12, 16])
def test_a_sequence_without_room_for_a_context_is_refused(window):
    message = rf"sequence_length is {window}, .* at least 17, or .* Measure\(items=0\)"
    with pytest.raises(ValueError, match=message):
        items_for_window(shards(HELD_OUT), 64, window)
    assert items_for_window(shards(HELD_OUT), 64, 17).contexts.shape[1] == 1
