"""What `scalejax data` prints (mirrors scalejax/cli/text/data.py)."""

import numpy as np

from scalejax.cli.text.data import contamination_text


def test_items_that_occur_are_listed_and_those_that_are_too_short_are_counted():
    overlap = np.array([np.nan, 1.0, 0.0])
    item, summary = contamination_text(overlap, "books").split("\n")
    assert item == "line 2: 100% of its 13-token sequences"
    assert summary.startswith("1 of 3 items share 13 consecutive tokens")
    assert summary.endswith("1 have fewer than 13 tokens and were not checked")
