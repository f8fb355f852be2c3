"""Kaplan's exponent and Chinchilla's from the same runs (mirrors scalejax/study/conventions.py)."""

import numpy as np
import pandas as pd
import pytest

from scalejax.fitting import conventions


def runs():
    """Small transformers with a vocabulary of 50,432, whose loss is a law of the count with the head."""
    width = np.array([96, 160, 256, 384, 512, 768, 1024])
    depth = np.array([6, 8, 10, 12, 14, 16, 20])
    inner, head = 12.0 * width**2 * depth, 50432.0 * width
    size, tokens = (
        x.ravel() for x in np.meshgrid(np.arange(7), np.geomspace(1e9, 1e11, 6), indexing="ij")
    )
    frame = pd.DataFrame(
        {
            "params_non_embedding": inner[size],
            "params_with_head": (inner + head)[size],
            "tokens": tokens,
        }
    )
    frame["params"] = frame.params_with_head + head[size]
    loss = 1.8 + 400 * frame.params_with_head**-0.34 + 400 * frame.tokens**-0.28
    return frame.assign(loss=loss * np.exp(np.random.default_rng(0).normal(0, 1e-3, len(frame))))


def test_leaving_the_head_out_makes_models_seem_to_grow_faster_with_compute():
    without, right, everything = conventions.compare(runs(), bootstrap=100)
    assert [row.count for row in (without, right, everything)] == list(conventions.COUNTS)
    assert right.low < 0.28 / 0.62 < right.high and right.exponent == pytest.approx(
        0.28 / 0.62, abs=0.01
    )
    assert without.low > right.high and everything.exponent < right.exponent
    assert [row.fit.columns["params"] for row in (without, right, everything)] == list(
        conventions.COUNTS
    )


def test_flops_that_grow_slower_than_the_count_make_models_grow_faster():
    frame = runs()
    size = frame.params_with_head
    frame["spent"] = 50.0 * size**0.9 * frame.tokens
    nominal, measured = conventions.compare(
        frame, ["params_with_head"], [conventions.NOMINAL, "spent"]
    )
    assert (nominal.flops, nominal.growth, measured.flops) == ("6ND", 1.0, "spent")
    assert measured.growth == pytest.approx(0.9, abs=1e-9)
    law, sizes, best = nominal.fit.params, np.geomspace(1e6, 1e14, 400_001), []
    for budget in (1e20, 1e24):  # by search, not by formula
        tokens = budget / (50.0 * sizes**0.9)
        best.append(
            sizes[np.argmin(law["A"] * sizes ** -law["alpha"] + law["B"] * tokens ** -law["beta"])]
        )
    assert measured.exponent == pytest.approx(np.log(best[1] / best[0]) / np.log(1e4), abs=1e-4)
    assert measured.exponent > nominal.exponent + 0.01


def test_a_count_that_the_table_has_not_is_refused():
    with pytest.raises(ValueError, match="no column 'params_of_kaplan'"):
        conventions.compare(runs(), ["params_of_kaplan"])
