"""Records are read as they are, or refused with file and line (mirrors scalejax/data/sources/records.py)."""

import gzip
import json
import re

import pandas as pd
import pyarrow
import pytest

from scalejax.data.sources import records
from scalejax.data.sources.records import read_records

TEXTS = ["plain", "two\nlines", "a\u2028line\u2029separator\x85", "日本 🙂", " \ufeff inside"]
LINES = "".join(
    json.dumps({"text": text, "meta": {"set": f"s{i}"}}, ensure_ascii=False) + "\n"
    for i, text in enumerate(TEXTS)
)


def zst(path, raw: bytes) -> None:
    with pyarrow.output_stream(str(path), compression="zstd") as file:
        file.write(raw)


def gz(path, raw: bytes) -> None:
    path.write_bytes(gzip.compress(raw))


WRITERS = {
    ".jsonl": lambda path, raw: path.write_bytes(raw),
    ".jsonl.gz": gz,
    ".json.gz": gz,
    ".jsonl.zst": zst,
}


def read(path, **options) -> list[tuple[str, str]]:
    return list(
        map(
            tuple,
            read_records(path, **({"field": "text", "domain": "", "default": "here"} | options)),
        )
    )


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_text_comes_out_as_it_went_in(tmp_path, suffix):
    path = tmp_path / f"corpus{suffix}"
    WRITERS[suffix](path, LINES.encode())
    assert read(path) == [(text, "here") for text in TEXTS]
    assert read(path, domain="meta.set") == [(text, f"s{i}") for i, text in enumerate(TEXTS)]
    assert read(path, field="meta.set")[0] == ("s0", "here")


def test_a_zst_of_several_frames_is_read_whole(tmp_path):
    zst(tmp_path / "a.zst", LINES.encode())
    path = tmp_path / "b.jsonl.zst"
    path.write_bytes((tmp_path / "a.zst").read_bytes() * 3)
    assert [text for text, _ in read(path)] == TEXTS * 3


def test_parquet_gives_the_chosen_columns(tmp_path):
    path = tmp_path / "corpus.parquet"
    pd.DataFrame(
        {"content": TEXTS, "meta": [{"set": f"s{i}"} for i in range(5)], "other": range(5)}
    ).to_parquet(path)
    assert read(path, field="content", domain="meta.set") == [
        (text, f"s{i}") for i, text in enumerate(TEXTS)
    ]
    with pytest.raises(
        ValueError,
        match=r"corpus\.parquet, row 1: no field 'text'; the fields are content, meta, other",
    ):
        read(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        ValueError, match=r"corpus\.parquet cannot be read beyond row 0 .*get the file again"
    ):
        read(path)


GOOD = b'{"text": "fine"}\n'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            b'{"text": "caf\xe9"}\n',
            "line 3 is not UTF-8 text: byte 13 of the line is 0xe9; convert the file first",
        ),
        (b'{"text": " \\n\\t "}\n', "line 3: the document is empty; remove this record"),
        (b"\n", "line 3 is blank; remove it"),
        (
            b'{"txt": "x"}\n',
            "line 3: no field 'text'; the fields are txt; set Data.field to one of them",
        ),
        (
            b'{"text": 7}\n',
            "line 3: the field 'text' holds int, not text; set Data.field to one that does",
        ),
        (b'{"text": null}\n', "line 3: the field 'text' holds NoneType, not text"),
        (b'["x"]\n', 'line 3 is list, not an object like {"text": ".."}; write one object a line'),
        (
            b"\xef\xbb\xbf" + GOOD,
            "line 3 begins with a byte-order mark; save the file as UTF-8 without one",
        ),
        ('{"text": "x"}\u2028{"text": "y"}\n'.encode(), "parted by U+2028: part them by newlines"),
        (
            b'{"text": "half a li',
            "the file ends within this line: get it again, or remove the line",
        ),
        (
            b"[" * 100_000 + b"\n",
            "line 3 is not JSON that can be read: brackets are nested too deep; remove the line",
        ),
        (b'{"text": "\\ud800"}\n', "line 3: the text holds half a character"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_with_the_remedy(tmp_path, line, said):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(GOOD + GOOD + line)
    with pytest.raises(ValueError, match=re.escape(said)) as refusal:
        read(path)
    assert str(refusal.value).startswith(f"{path}, line 3") and len(str(refusal.value)) < 600


def test_a_record_as_long_as_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "LONGEST_RECORD", 1_000)
    path = tmp_path / "giant.jsonl"
    path.write_bytes(GOOD + json.dumps({"text": "x" * 2_000}).encode() + b"\n")
    with pytest.raises(
        ValueError,
        match=r"giant\.jsonl, line 2: the record is longer than 1,000 bytes; cut it into documents",
    ):
        read(path)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("damage", ["cut short", "changed", "not compressed"])
def test_a_damaged_archive_is_refused_by_name(tmp_path, suffix, damage):
    path = tmp_path / f"corpus{suffix}"
    WRITERS[suffix](
        path,
        b"".join(
            json.dumps({"text": f"{i * 7919 % 10007} words {i}"}).encode() + b"\n"
            for i in range(9_000)
        ),
    )
    whole = path.read_bytes()
    middle = len(whole) // 2
    broken = {
        "cut short": whole[:middle],
        "changed": whole[:middle] + bytes(64) + whole[middle + 64 :],
        "not compressed": GOOD * 3,
    }
    path.write_bytes(broken[damage])
    with pytest.raises(
        ValueError,
        match=rf"corpus{suffix}.*(cannot be read beyond line \d+ .*get the file again|, line \d+)",
    ):
        read(path)
