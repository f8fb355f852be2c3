"""Arithmetic on columns (mirrors scalejax/fitting/reading/arithmetic.py)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalejax.fitting.reading.arithmetic import compute, is_arithmetic

COLUMNS = {"a": np.array([1.0, 4.0]), "val, loss": np.array([2.0, 3.0])}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a*1e6", [1e6, 4e6]),
        ("1 - a/2", [0.5, -1.0]),
        ("log(exp(a)) + sqrt(a)", [2.0, 6.0]),
        ("-(a ** 2) + `val, loss`", [1.0, -13.0]),
        ("log2(a) + log10(10)", [1.0, 3.0]),
        ("`val, loss`", [2.0, 3.0]),
        ("3", [3.0, 3.0]),
    ],
)
def test_an_expression_is_computed_in_every_row(text, values):
    assert is_arithmetic(text)
    np.testing.assert_allclose(compute(text, COLUMNS.__getitem__, 2), values, rtol=1e-15)


@pytest.mark.parametrize("text", ["a", "ppl", "two words", "a +", "log("])
def test_a_name_or_broken_text_is_no_arithmetic(text):
    assert not is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "a.__class__",
        "a[0]",
        "max(a, 1)",
        "log(a, 2)",
        "log",
        "a > 1",
        "[a]",
        "'a'",
        "True",
        "lambda: a",
        "a if a else a",
        "a // 2",
        "a @ a",
        "f'{a}'",
        "-" * 5000 + "a",
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises((ValueError, KeyError)):
        compute(text, COLUMNS.__getitem__, 2)


def test_a_value_that_does_not_exist_is_not_finite_and_raises_nothing():
    values = compute("log(a - 4) + 10.0 ** 400", COLUMNS.__getitem__, 2)
    assert not np.isfinite(values).any()


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_text_gives_numbers_or_is_refused(text):
    try:
        values = compute(text, COLUMNS.__getitem__, 2)
    except (ValueError, KeyError):
        return
    assert values.shape == (2,) and values.dtype == np.float64
