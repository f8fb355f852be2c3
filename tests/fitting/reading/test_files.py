"""Files of many dialects give one table (mirrors .../fitting/reading/files.py)."""

import bz2
import gzip
import io
import json

import numpy as np
import pandas as pd
import pytest

from scalejax.fitting import tables

FRAME = pd.DataFrame({"params": [5e7, 1e8], "tokens": [1e9, 3.5e9], "loss": [3.913, 3.71]})
CSV = FRAME.to_csv(index=False)
RECORDS = FRAME.to_dict("records")


def parquet():
    buffer = io.BytesIO()
    FRAME.to_parquet(buffer)
    return buffer.getvalue()


SAVED_BY_NUMPY = "# params tokens loss\n5e7 1e9 3.913\n1e8 3.5e9 3.71\n"
JSON_LINES = "\n".join(map(json.dumps, RECORDS)) + "\n"

DIALECTS = {
    "comma": CSV.encode(),
    "tab": CSV.replace(",", "\t").encode(),
    "bar": CSV.replace(",", "|").encode(),
    "semicolon": CSV.replace(",", ";").encode(),
    "decimal commas": CSV.replace(",", ";").replace(".", ",").encode(),
    "tabs and decimal commas": CSV.replace(",", "\t").replace(".", ",").encode(),
    "spaces": b"params   tokens  loss\n5e7  1e9   3.913\n1e8 3.5e9 3.71\n",
    "numpy.savetxt": SAVED_BY_NUMPY.encode(),
    "comments": ("# my sweep, 2026\n" + CSV.replace("5000", "# later\n5000", 1)).encode(),
    "byte-order mark": CSV.encode("utf-8-sig"),
    "UTF-16": CSV.encode("utf-16"),
    "UTF-16 without a mark": CSV.encode("utf-16-le"),
    "Windows": CSV.replace("\n", "\r\n").encode(),
    "gzip": gzip.compress(CSV.encode()),
    "bzip2": bz2.compress(CSV.encode()),
    "records": json.dumps(RECORDS).encode(),
    "columns": json.dumps(FRAME.to_dict("list")).encode(),
    "rows by number": str(FRAME.to_json()).encode(),
    "split": str(FRAME.to_json(orient="split")).encode(),
    "records in an object": json.dumps({"name": "sweep", "runs": RECORDS}).encode(),
    "lines": JSON_LINES.encode(),
    "Parquet": parquet(),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_gives_the_same_numbers(tmp_path, dialect):
    # The content decides, whatever the file is called.
    path = tmp_path / "table.txt"
    path.write_bytes(DIALECTS[dialect])
    table = tables.read(path)
    assert list(table.columns) == list(FRAME.columns)
    for name in FRAME.columns:
        np.testing.assert_array_equal(tables.numeric_column(table, name), FRAME[name])


def test_three_digits_after_a_comma_are_decimals_between_semicolons(tmp_path):
    path = tmp_path / "german.csv"
    path.write_text("params;loss\n1000;3,913\n2000;3,710\n")
    assert tables.read(path)["loss"].tolist() == [3.913, 3.71]
    # Between tabs the same text is ambiguous and keeps its usual meaning, thousands.
    path.write_text("params\tloss\n1000\t3,913\n2000\t3,710\n")
    assert tables.numeric_column(tables.read(path), "loss").tolist() == [3913.0, 3710.0]


def test_numbers_may_have_suffixes_groups_and_more_digits_than_an_integer_holds(tmp_path):
    path = tmp_path / "typed.csv"
    path.write_text('size,seen,flops\n50M,"50,000,000",36893488147419103232\n1.3B,"7,000",1e9\n')
    table = tables.read(path)
    assert tables.numeric_column(table, "size").tolist() == [50e6, 1.3e9]
    assert tables.numeric_column(table, "seen").tolist() == [5e7, 7e3]
    assert tables.numeric_column(table, "flops").tolist() == [2.0**65, 1e9]


def test_names_and_values_may_hold_the_separator(tmp_path):
    path = tmp_path / "quoted.csv"
    path.write_text('"val, loss","run"\n3.9,"a, b"\n3.7,"c#1"\n')
    table = tables.read(path)
    assert table["run"].tolist() == ["a, b", "c#1"]
    assert tables.read_columns(table, (), "loss", {"loss": "`val, loss`"}).target.tolist() == [
        3.9,
        3.7,
    ]


@pytest.mark.parametrize("text", ["0,1e9,3.9,\n1,1e9,3.7,\n", "1,234,5,3.9\n2,345,5,3.7\n"])
def test_rows_that_are_longer_than_their_header_are_refused(tmp_path, text):
    # pandas would read the second value of each row as the params.
    path = tmp_path / "table.csv"
    path.write_text("params,tokens,loss\n" + text)
    with pytest.raises(ValueError, match="rows have more fields than its header; remove"):
        tables.read(path)


def test_names_of_rows_as_r_writes_them_are_no_column(tmp_path):
    path = tmp_path / "r.csv"
    for rows in ('"1",5e7,3.9\n"2",1e8,3.7\n', '"a",5e7,3.9\n"b",1e8,3.7\n'):
        path.write_text('"params","loss"\n' + rows)
        assert tables.read(path)["params"].tolist() == [5e7, 1e8]


def test_nested_objects_become_columns(tmp_path):
    path = tmp_path / "wandb.jsonl"
    path.write_text(
        '{"config": {"lr": 0.01}, "loss": 3.0}\n{"config": {"lr": 0.02}, "loss": 2.9}\n'
    )
    assert tables.read(path)["config.lr"].tolist() == [0.01, 0.02]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as CSV"),
        (b"a,b\n1,2\n1,2,3,4\n", "cannot be read as CSV"),
        (b"[1, 2]", "cannot be read as JSON: it holds no list of objects"),
        (b'[{"a": 1}, {"a": ', "cannot be read as JSON"),
        (b'{"a": 1}\n{"a": \n', "cannot be read as JSON"),
        (b"PAR1 and no more", "cannot be read as Parquet"),
        (b"\x1f\x8b\x08 broken", "cannot be read as text"),
        (b"PK\x03\x04\x00\x00", "it is a binary file"),
        (b"loss\n\xff\xfa\xfb", "cannot be read as text"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        tables.read(path)
