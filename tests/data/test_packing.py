"""Marks on token ids (mirrors scalejax/data/packing.py)."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scalejax.data.batches import Batches, Mixture
from scalejax.data.packing import TokenArray, split_flags

IDS = np.array([9, 1, 2, 9, 3, 9, 4, 9], np.uint16)  # 9 ends a document
COUNTED = np.array(
    [1, 1, 1, 1, 0, 0, 1, 1], np.uint8
)  # the last document: a prompt of 3 and 9, then 4


def test_an_end_starts_the_next_document_unless_it_stands_within_a_prompt():
    _, starts, counted = split_flags(TokenArray(IDS, end=9).rows())
    assert starts.tolist() == (IDS == 9).tolist() and counted.all()
    ids, starts, counted = split_flags(TokenArray(IDS, 9, COUNTED).rows())
    assert np.array_equal(ids, IDS) and ids.dtype == np.int32
    assert np.flatnonzero(starts).tolist() == [0, 3, 7]
    assert np.array_equal(counted, COUNTED)


def test_without_an_end_rows_bear_no_marks():
    rows = TokenArray(IDS).rows()
    assert np.array_equal(rows, IDS) and rows.dtype == np.int32
    ids, starts, counted = split_flags(rows)
    assert np.array_equal(ids, rows) and not starts.any() and counted.all(), (
        "a row without marks is one segment that counts"
    )


@settings(deadline=None, max_examples=30)
@given(
    size=st.integers(16, 200),
    length=st.integers(2, 5),
    cut=st.integers(1, 16),
    seed=st.integers(0, 99),
)
def test_marks_are_those_of_the_place_in_the_corpus_in_any_order_and_split(size, length, cut, seed):
    rng = np.random.default_rng(seed)
    ids, counted = (
        rng.integers(0, 9, size).astype(np.uint16),
        rng.integers(0, 2, size).astype(np.uint8),
    )
    tokens = TokenArray(ids, 3, counted)
    batches = Batches(tokens, sequence_length=length, sequences=4, seed=seed)
    mixture = Mixture(
        {"a": tokens, "b": tokens[4:]},
        {"a": 0.5, "b": 0.5},
        sequence_length=length,
        sequences=4,
        seed=seed,
    )
    whole = tokens.rows()
    windows = {whole[i : i + length + 1].tobytes() for i in range(0, size - length, length)}
    assert {row.tobytes() for row in batches.rows(0, batches.windows)} == windows
    for source in (batches, mixture):
        parts = [source.rows(start, min(start + cut, 40)) for start in range(0, 40, cut)]
        assert np.array_equal(np.concatenate(parts), source.rows(0, 40))
