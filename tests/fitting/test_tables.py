"""Tables are read and their values checked (mirrors scalejax/fitting/tables.py)."""

import numpy as np
import pandas as pd
import pyarrow
import pytest

from scalejax.fitting import tables

FRAME = pd.DataFrame(
    {"size": [1.0, 2.0, 3.0, np.nan], "set": ["c4", "c4", "rw", "rw"], "kept": [1, 0, 1, 1]}
)


def test_rows_with_missing_or_infinite_values_are_left_out():
    frame = pd.DataFrame(
        {"params": [1e6, 1e7, 1e8], "tokens": [1e9, np.inf, 1e9], "loss": [3.0, 2.9, np.nan]}
    )
    columns = tables.read_columns(frame, ("params", "tokens"), "loss")
    assert columns.complete.tolist() == [True, False, False]
    assert columns.target.tolist() == [3.0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, r"is 0 in row 1 \(from 0\)"),
        (-2.5, "is -2.5 in row 1"),
        ("many", r"holds text in row 1 \(from 0\): 'many'"),
        (True, r"holds text in row 1 \(from 0\): 'True'"),
        (1e308, r"is 1e\+308 in row 1 .*values up to 1e\+100"),
    ],
)
def test_zero_negative_and_huge_values_and_text_are_refused(value, message):
    frame = pd.DataFrame({"params": [1e6, value], "loss": [3.0, 2.0]})
    with pytest.raises(ValueError, match=message):
        tables.read_columns(frame, ("params",), "loss")


def test_params_of_a_results_table_include_the_head_unless_another_count_is_named():
    frame = pd.DataFrame(
        {"params": [10.0], "params_with_head": [8.0], "params_non_embedding": [6.0], "loss": [3.0]}
    )
    assert tables.read_columns(frame, ("params",), "loss").inputs[0].tolist() == [8.0]
    names = {"params": "params_non_embedding"}
    columns = tables.read_columns(frame, ("params",), "loss", names)
    assert columns.inputs[0].tolist() == [6.0]
    assert columns.names["params"] == "params_non_embedding"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n", r"no rows \(columns: a, b\)"),
        ("a,a \n1,2\n", "two columns named 'a'"),
        ("params,loss,loss\n1,2,3\n", "two columns named 'loss'"),
    ],
)
def test_a_file_without_rows_or_with_equal_names_is_refused(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        tables.read(path)


def test_what_pandas_takes_is_read_as_a_table():
    columns = {"params": [1e6, 1e7], "loss": [3.0, 2.9]}
    records = [{"params": 1e6, "loss": 3.0}, {"params": 1e7, "loss": 2.9}]
    arrow = pyarrow.table(columns)
    for table in (columns, records, arrow, pd.DataFrame(columns, index=["a", "b"])):
        pd.testing.assert_frame_equal(tables.read(table), pd.DataFrame(columns))
    with pytest.raises(ValueError, match="a float cannot be read as a table"):
        tables.read(3.0)


def test_an_unknown_column_in_an_expression_is_named():
    frame = pd.DataFrame({"params": [1e6], "loss": [3.0]})
    with pytest.raises(ValueError, match=r"no column 'ppl' for 'log\(ppl\)'"):
        tables.read_columns(frame, ("params",), "loss", {"loss": "log(ppl)"})


def test_parquet_and_csv_files_give_the_same_table(tmp_path):
    FRAME.to_csv(tmp_path / "a.csv", index=False)
    FRAME.to_parquet(tmp_path / "a.parquet")
    csv, parquet = tables.read(tmp_path / "a.csv"), tables.read(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(csv, parquet, check_dtype=False)


def test_spaces_around_names_and_values_are_ignored(tmp_path):
    (tmp_path / "typed.csv").write_text("size , set \n1, c4\n")
    table = tables.read(tmp_path / "typed.csv")
    assert list(table.columns) == ["size", "set"] and table.loc[0, "set"] == "c4"


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path, message in ((tmp_path / "c.csv", "no table at"), (tmp_path, "is a folder")):
        with pytest.raises(FileNotFoundError, match=message):
            tables.read(path)


def test_a_message_lists_the_first_columns_of_many():
    frame = pd.DataFrame({f"c{i}": [1.0] for i in range(300)})
    message = r"the table has c0, c1, .* and 276 more. Say which is loss: --columns loss=THEIRS"
    with pytest.raises(ValueError, match=message):
        tables.column_for(frame, "loss")
