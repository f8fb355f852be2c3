"""Keyed permutations without a table (mirrors scalejax/data/permutation.py)."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scalejax.data.permutation import permute


@given(size=st.integers(1, 5_000), keys=st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6))
@settings(deadline=None)
def test_every_index_has_exactly_one_image(size, keys):
    assert np.array_equal(np.sort(permute(np.arange(size), size, tuple(keys))), np.arange(size))
