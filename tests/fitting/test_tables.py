"""Tables are read, chosen from and checked without evaluating anything (mirrors scalejax/study/tables.py)."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalejax.fitting import tables

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
    ],
)
def test_an_expression_chooses_rows(expression, expected):
    assert tables.row_mask(FRAME, expression).tolist() == [bool(x) for x in expected]


def test_a_column_of_any_name_stands_in_backticks():
    frame = pd.DataFrame({"size (B)": [1, 2], "class": ["a`b", "c"]})
    assert tables.row_mask(frame, "`size (B)` >= 1 and `class` == 'a`b'").tolist() == [True, False]
    with pytest.raises(ValueError, match="no column 'size'"):
        tables.row_mask(frame, "`size` > 1")


@pytest.mark.parametrize(
    "expression",
    [
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
def test_anything_else_is_refused(expression):
    with pytest.raises(ValueError):
        tables.row_mask(FRAME, expression)


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_no_text_does_more_than_choose_rows_or_be_refused(text):
    try:
        mask = tables.row_mask(FRAME, text)
    except ValueError:
        return
    assert mask.shape == (4,) and mask.dtype == bool


def test_missing_and_infinite_values_are_left_out():
    frame = pd.DataFrame(
        {"params": [1e6, 1e7, 1e8], "tokens": [1e9, np.inf, 1e9], "loss": [3.0, 2.9, np.nan]}
    )
    assert tables.read_columns(frame, ("params", "tokens"), "loss").kept.tolist() == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, r"is 0 in row 1 \(from 0\)"),
        (-2.5, "is -2.5 in row 1"),
        ("many", r"holds text in row 1 \(from 0\): 'many'"),
        (True, r"holds text in row 1 \(from 0\): 'True'"),
    ],
)
def test_zero_negative_and_text_are_refused(value, said):
    frame = pd.DataFrame({"params": [1e6, value], "loss": [3.0, 2.0]})
    with pytest.raises(ValueError, match=said):
        tables.read_columns(frame, ("params",), "loss")


def test_params_of_a_results_table_count_the_head_unless_another_count_is_named():
    frame = pd.DataFrame(
        {"params": [10.0], "params_with_head": [8.0], "params_non_embedding": [6.0], "loss": [3.0]}
    )
    assert tables.read_columns(frame, ("params",), "loss").inputs[0].tolist() == [8.0]
    named = tables.read_columns(frame, ("params",), "loss", {"params": "params_non_embedding"})
    assert named.inputs[0].tolist() == [6.0] and named.names["params"] == "params_non_embedding"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read as CSV"),
        ("a,b\n", r"no rows \(columns: a, b\)"),
        ("a,b\n1,2\n1,2,3,4\n", "cannot be read as CSV"),
        ("a;b\n1,5;2\n", "separates its columns by ';'; expected commas"),
        ("a\tb\n1\t2\n", "separates its columns by"),
        ("a,a \n1,2\n", "two columns named 'a'"),
    ],
)
def test_what_is_not_a_table_is_refused(tmp_path, content, said):
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=said):
        tables.read(path)


def test_parquet_and_csv_hold_the_same_table(tmp_path):
    FRAME.to_csv(tmp_path / "a.csv", index=False)
    FRAME.to_parquet(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(
        tables.read(tmp_path / "a.csv"), tables.read(tmp_path / "a.parquet"), check_dtype=False
    )
    (tmp_path / "b.csv").write_text("size , set \n1, c4\n")  # as people type it
    assert list(tables.read(tmp_path / "b.csv").columns) == ["size", "set"]
    for path, said in ((tmp_path / "c.csv", "no table at"), (tmp_path, "is a folder")):
        with pytest.raises(FileNotFoundError, match=said):
            tables.read(path)


def test_a_message_names_the_first_columns_of_many():
    frame = pd.DataFrame({f"c{i}": [1.0] for i in range(300)})
    with pytest.raises(
        ValueError,
        match=r"the table has c0, c1, .* and 276 more. Say which is loss: --columns loss=THEIRS",
    ):
        tables.column_for(frame, "loss")
