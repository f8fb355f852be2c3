"""Batches are a pure function of (seed, step) (mirrors scalejax/data/batches.py)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalejax.data.batches import Batches, permuted


def batches(windows: int, *, length: int = 3, sequences: int = 4, seed: int = 0) -> Batches:
    """Tokens that name their own place, so that a row tells which window it is."""
    return Batches(np.arange(windows * length + 1, dtype=np.uint32), sequence_length=length, sequences=sequences, seed=seed)


@settings(deadline=None)
@given(windows=st.integers(1, 300), epoch=st.integers(0, 5), seed=st.integers(0, 2**32))
def test_each_epoch_visits_every_window_exactly_once(windows, epoch, seed):
    rows = batches(windows, seed=seed).rows(epoch * windows, (epoch + 1) * windows)
    assert np.array_equal(np.sort(rows[:, 0]), np.arange(windows) * 3)
    assert np.array_equal(rows, rows[:, :1] + np.arange(4)), "a window is not contiguous"


@settings(deadline=None)
@given(windows=st.integers(1, 50), sequences=st.integers(1, 8), step=st.integers(0, 40), seed=st.integers(0, 9))
def test_a_batch_is_a_slice_of_one_long_run(windows, sequences, step, seed):
    source = batches(windows, sequences=sequences, seed=seed)
    whole = source.rows(0, (step + 1) * sequences)
    assert np.array_equal(source.batch_at(step), whole[-sequences:])


@given(size=st.integers(1, 5_000), keys=st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6))
@settings(deadline=None)
def test_the_permutation_is_one(size, keys):
    assert np.array_equal(np.sort(permuted(np.arange(size), size, tuple(keys))), np.arange(size))


def test_orders_of_two_epochs_and_of_two_seeds_have_nothing_in_common():
    n = 10_000
    first, second = batches(n).rows(0, n)[:, 0], batches(n).rows(n, 2 * n)[:, 0]
    other = batches(n, seed=1).rows(0, n)[:, 0]
    for a, b in ((first, second), (first, other), (first, np.arange(n)), (np.diff(first), np.diff(second))):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.05
        assert (a == b).sum() < 10
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.05, "neighbours in the run are neighbours in the text"


def test_inputs_and_targets_overlap_by_all_but_one_token():
    batch = batches(20).batch_at(2)
    assert batch.dtype == np.int32 and batch.shape == (4, 4)
    assert np.array_equal(batch[:, 1:-1], batch[:, :-1][:, 1:])
    assert np.array_equal(batch[:, 1:], batch[:, :-1] + 1)


def test_epochs_count_windows():
    assert batches(8).epochs(3) == 12 / 8


def test_numpys_global_state_is_neither_read_nor_changed():
    np.random.seed(3)
    first, after = batches(50).batch_at(1), np.random.random()
    np.random.seed(3)
    np.random.random(5)
    assert np.array_equal(first, batches(50).batch_at(1))
    np.random.seed(3)
    assert np.random.random() == after


@pytest.mark.parametrize("tokens", [0, 1, 3])
def test_fewer_tokens_than_one_window_are_refused(tokens):
    with pytest.raises(ValueError, match=r"fewer than one window of sequence_length 3 \+ 1"):
        Batches(np.zeros(tokens, np.uint16), sequence_length=3, sequences=1, seed=0)
    assert batches(1).windows == 1
