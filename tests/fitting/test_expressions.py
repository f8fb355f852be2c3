"""Expressions choose rows and do nothing else (mirrors .../fitting/expressions.py)."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalejax.fitting.expressions import chosen_rows, row_mask

FRAME = pd.DataFrame(
    {"size": [1.0, 2.0, 3.0, np.nan], "set": ["c4", "c4", "rw", "rw"], "kept": [1, 0, 1, 1]}
)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("size >= 2", [0, 1, 1, 0]),
        ("size > -1 and set == 'c4'", [1, 1, 0, 0]),
        ("set == 'rw' or size < 2", [1, 0, 1, 1]),
        ("not (kept == 1)", [0, 1, 0, 0]),
        ("size in (1, 3) and set in ['c4', 'rw']", [1, 0, 1, 0]),
        ("set not in ('c4',)", [0, 0, 1, 1]),
        ("size != 2 and not set == 'rw'", [1, 0, 0, 0]),
        (None, [1, 1, 1, 1]),
    ],
)
def test_an_expression_chooses_rows(expression, expected):
    assert row_mask(FRAME, expression).tolist() == [bool(x) for x in expected]


def test_a_choice_of_no_rows_is_refused():
    assert chosen_rows(FRAME, "size >= 2").index.tolist() == [1, 2]
    with pytest.raises(ValueError, match="--where 'size > 9' leaves no rows of 4"):
        chosen_rows(FRAME, "size > 9")
    with pytest.raises(ValueError, match="the table has no rows"):
        chosen_rows(FRAME.iloc[:0], None)


def test_a_column_of_any_name_can_be_written_in_backticks():
    frame = pd.DataFrame({"size (B)": [1, 2], "class": ["a`b", "c"]})
    assert row_mask(frame, "`size (B)` >= 1 and `class` == 'a`b'").tolist() == [True, False]
    with pytest.raises(ValueError, match="no column 'size'"):
        row_mask(frame, "`size` > 1")


def test_the_last_row_of_each_run_is_chosen():
    frame = pd.DataFrame(
        {"run": ["a", "b", "a", "b"], "step": [10, 20, 20, 10], "loss": [3.0, np.nan, 2.0, 2.5]}
    )
    assert row_mask(frame, "last(run, step)").tolist() == [False, True, True, False]
    # Run b has no loss at its last step.
    assert row_mask(frame, "last(run, step, loss)").tolist() == [False, False, True, True]
    assert row_mask(frame, "last(run, step) and loss > 1").tolist() == [False, False, True, False]


def test_a_missing_value_of_a_nullable_column_is_no_value_and_differs_from_all():
    frame = pd.DataFrame(
        {
            "size": pd.array([1, 2, None], dtype="Int64"),
            "set": pd.array(["c4", "rw", None], dtype="string"),
        }
    )
    assert row_mask(frame, "size >= 1 and set == 'c4'").tolist() == [True, False, False]
    assert row_mask(frame, "size != 1 and set != 'c4'").tolist() == [False, True, True]


def test_numbers_that_are_written_as_text_are_compared_as_numbers():
    frame = pd.DataFrame({"size": ["50M", "1.3B"]})
    assert row_mask(frame, "size > 1e8").tolist() == [False, True]
    assert row_mask(frame, "size in (5e7, 1)").tolist() == [True, False]
    assert row_mask(frame, "size == '50M'").tolist() == [True, False]


@pytest.mark.parametrize(
    "expression",
    [
        "last(set)",
        "last(set, width)",
        "last('set', size)",
        "__import__('os').system('true') == 0",
        "size > set",
        "1 < size < 3",
        "size + 1 > 2",
        "size > max(1, 2)",
        "size",
        "width > 3",
        "size > 'big'",
        "set == 3",
        "size in 3",
        "size == (1, 2)",
        "size >",
        "",
        "size == [x for x in (1, 2)]",
        "set == f'{size}'",
        "kept == None",
        "`size > 1",
        "kept > `size`",
        "(" * 3000 + "size > 1" + ")" * 3000,
    ],
)
def test_everything_else_is_refused(expression):
    with pytest.raises(ValueError):
        row_mask(FRAME, expression)


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_text_chooses_rows_or_is_refused(text):
    try:
        mask = row_mask(FRAME, text)
    except ValueError:
        return
    assert mask.shape == (4,) and mask.dtype == bool
