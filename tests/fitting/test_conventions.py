"""Kaplan's exponent and Chinchilla's from one table (mirrors .../conventions.py)."""

import numpy as np
import pandas as pd
import pytest

from scalejax.fitting import conventions


def runs():
    """Small transformers whose loss is a law of the parameter count with the head."""
    vocabulary = 50432.0
    width = np.array([96, 160, 256, 384, 512, 768, 1024])
    depth = np.array([6, 8, 10, 12, 14, 16, 20])
    blocks, head = 12.0 * width**2 * depth, vocabulary * width
    grid = np.meshgrid(np.arange(7), np.geomspace(1e9, 1e11, 6), indexing="ij")
    size, tokens = (x.ravel() for x in grid)
    size = size.astype(int)
    frame = pd.DataFrame(
        {
            "params_non_embedding": blocks[size],
            "params_with_head": (blocks + head)[size],
            "tokens": tokens,
        }
    )
    frame["params"] = frame.params_with_head + head[size]
    loss = 1.8 + 400 * frame.params_with_head**-0.34 + 400 * frame.tokens**-0.28
    return frame.assign(loss=loss * np.exp(np.random.default_rng(0).normal(0, 1e-3, len(frame))))


def test_without_the_head_models_seem_to_grow_faster_with_compute():
    rows = conventions.compare(runs(), bootstrap=100)
    without_head, with_head, everything = rows
    assert [row.params_column for row in rows] == list(conventions.COUNTS)
    assert [row.fit.columns["params"] for row in rows] == list(conventions.COUNTS)
    true_exponent = 0.28 / 0.62
    assert with_head.low is not None and with_head.high is not None
    assert with_head.low < true_exponent < with_head.high
    assert with_head.exponent == pytest.approx(true_exponent, abs=0.01)
    assert without_head.low is not None and without_head.low > with_head.high
    assert everything.exponent < with_head.exponent


def test_flops_that_grow_more_slowly_than_the_count_make_models_grow_faster():
    frame = runs()
    frame["spent"] = 50.0 * frame.params_with_head**0.9 * frame.tokens
    flops = [conventions.NOMINAL, "spent"]
    nominal, measured = conventions.compare(frame, ["params_with_head"], flops)
    assert (nominal.flops, nominal.growth, measured.flops) == ("6ND", 1.0, "spent")
    assert measured.growth == pytest.approx(0.9, abs=1e-9)
    # The optimal sizes at two budgets, by search instead of by the formula.
    law, sizes, best = nominal.fit.params, np.geomspace(1e6, 1e14, 400_001), []
    for budget in (1e20, 1e24):
        tokens = budget / (50.0 * sizes**0.9)
        loss = law["A"] * sizes ** -law["alpha"] + law["B"] * tokens ** -law["beta"]
        best.append(sizes[np.argmin(loss)])
    exponent = np.log(best[1] / best[0]) / np.log(1e4)
    assert measured.exponent == pytest.approx(exponent, abs=1e-4)
    assert measured.exponent > nominal.exponent + 0.01


def test_a_count_that_the_table_does_not_have_is_refused():
    with pytest.raises(ValueError, match="no column 'params_of_kaplan'"):
        conventions.compare(runs(), ["params_of_kaplan"])
