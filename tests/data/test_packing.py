"""Flags in the bits of token ids (mirrors scalejax/data/packing.py)."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scalejax.data.batches import Batches, Mixture
from scalejax.data.packing import TokenArray, split_flags

# Id 9 ends a document.
IDS = np.array([9, 1, 2, 9, 3, 9, 4, 9], np.uint16)

# The last document has a prompt of the ids 3 and 9, and then the id 4.
LOSS_MASK = np.array([1, 1, 1, 1, 0, 0, 1, 1], np.uint8)


def test_an_end_token_starts_the_next_document_unless_it_lies_in_a_prompt():
    _, starts, loss_mask = split_flags(TokenArray(IDS, end=9).rows())
    assert starts.tolist() == (IDS == 9).tolist() and loss_mask.all()
    ids, starts, loss_mask = split_flags(TokenArray(IDS, 9, LOSS_MASK).rows())
    assert np.array_equal(ids, IDS) and ids.dtype == np.int32
    assert np.flatnonzero(starts).tolist() == [0, 3, 7]
    assert np.array_equal(loss_mask, LOSS_MASK)


def test_without_an_end_token_rows_carry_no_flags():
    rows = TokenArray(IDS).rows()
    assert np.array_equal(rows, IDS) and rows.dtype == np.int32
    ids, starts, loss_mask = split_flags(rows)
    assert np.array_equal(ids, rows) and not starts.any() and loss_mask.all(), (
        "a row without flags is one document in which every token counts"
    )


@settings(deadline=None, max_examples=30)
@given(
    size=st.integers(16, 200),
    length=st.integers(2, 5),
    cut=st.integers(1, 16),
    seed=st.integers(0, 99),
)
def test_flags_follow_their_tokens_in_any_order_and_any_split_of_rows(size, length, cut, seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 9, size).astype(np.uint16)
    loss_mask = rng.integers(0, 2, size).astype(np.uint8)
    tokens = TokenArray(ids, 3, loss_mask)
    batches = Batches(tokens, sequence_length=length, sequences=4, seed=seed)
    mixture = Mixture(
        {"a": tokens, "b": tokens[4:]},
        {"a": 0.5, "b": 0.5},
        sequence_length=length,
        sequences=4,
        seed=seed,
    )
    corpus = tokens.rows()
    windows = {corpus[i : i + length + 1].tobytes() for i in range(0, size - length, length)}
    assert {row.tobytes() for row in batches.rows(0, batches.windows)} == windows
    for source in (batches, mixture):
        parts = [source.rows(start, min(start + cut, 40)) for start in range(0, 40, cut)]
        assert np.array_equal(np.concatenate(parts), source.rows(0, 40))
