"""Records are read unchanged or refused (mirrors scalejax/data/sources/records.py)."""

import gzip
import json
import re
from pathlib import Path

import pandas as pd
import pyarrow
import pytest

from scalejax.data.sources import records
from scalejax.data.sources.records import UnusableRecords, read_records

TEXTS = ["plain", "two\nlines", "a\u2028line\u2029separator\x85", "日本 🙂", " \ufeff inside"]
LINES = "".join(
    json.dumps({"text": text, "meta": {"set": f"s{i}"}}, ensure_ascii=False) + "\n"
    for i, text in enumerate(TEXTS)
)


def write_plain(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)


def write_zst(path: Path, raw: bytes) -> None:
    with pyarrow.output_stream(str(path), compression="zstd") as file:
        file.write(raw)


def write_gz(path: Path, raw: bytes) -> None:
    path.write_bytes(gzip.compress(raw))


WRITERS = {
    ".jsonl": write_plain,
    ".jsonl.gz": write_gz,
    ".json.gz": write_gz,
    ".jsonl.zst": write_zst,
}


def read(path: Path, *, field: str = "text", domain: str = "") -> list[tuple[str, str]]:
    documents = read_records(path, field=field, domain=domain, default="here")
    return [(document.text, document.domain) for document in documents]


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_text_is_read_as_it_was_written(tmp_path, suffix):
    path = tmp_path / f"corpus{suffix}"
    WRITERS[suffix](path, LINES.encode())
    assert read(path) == [(text, "here") for text in TEXTS]
    assert read(path, domain="meta.set") == [(text, f"s{i}") for i, text in enumerate(TEXTS)]
    assert read(path, field="meta.set")[0] == ("s0", "here")


def test_all_frames_of_a_zst_file_are_read(tmp_path):
    write_zst(tmp_path / "a.zst", LINES.encode())
    path = tmp_path / "b.jsonl.zst"
    path.write_bytes((tmp_path / "a.zst").read_bytes() * 3)
    assert [text for text, _ in read(path)] == TEXTS * 3


def test_parquet_gives_the_chosen_columns(tmp_path):
    path = tmp_path / "corpus.parquet"
    columns = {"content": TEXTS, "meta": [{"set": f"s{i}"} for i in range(5)], "other": range(5)}
    pd.DataFrame(columns).to_parquet(path)
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
# A third line that cannot be used, and what the message says about it.
BAD_LINES = [
    (
        b'{"text": "caf\xe9"}\n',
        "line 3 is not UTF-8 text: byte 13 of the line is 0xe9; convert the file to UTF-8",
    ),
    (b'{"text": " \\n\\t "}\n', "line 3: the document is empty; remove this record"),
    (b" \n" + GOOD, "line 3 is blank; remove the line"),
    (
        b'{"txt": "x"}\n',
        "line 3: no field 'text'; the fields are txt; set Data.field to one of them",
    ),
    (
        b'{"text": 7}\n',
        "line 3: the field 'text' holds int, not text; set Data.field to a field that holds text",
    ),
    (b'{"text": null}\n', "line 3: the field 'text' holds NoneType, not text"),
    (
        b'["x"]\n',
        'line 3 is list, not an object like {"text": "..."}; write one object per line',
    ),
    (
        b"\xef\xbb\xbf" + GOOD,
        "line 3 begins with a byte-order mark; save the file as UTF-8 without one",
    ),
    (
        '{"text": "x"}\u2028{"text": "y"}\n'.encode(),
        "its records are separated by U+2028: separate them by newlines",
    ),
    (
        b'{"text": "half a li',
        "the file ends within this line: get the file again, or remove the line",
    ),
    (b'{"text": x}\n', "repair the line, or remove it"),
    (
        b"[" * 100_000 + b"\n",
        "line 3 is not JSON that can be read: its brackets are nested too deeply; remove the line",
    ),
    (b'{"text": "\\ud800"}\n', "line 3: the text holds half a character"),
]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("null", "NoneType"),
        ('{"set": "a"}', "dict"),
        ("[1]", "list"),
        ("0.5", "float"),
        ('" "', "no text"),
    ],
)
def test_what_is_no_name_of_a_domain_is_refused(tmp_path, value, shown):
    """Their text would be a domain called None, or one of nearly every document."""
    path = tmp_path / "bad.jsonl"
    path.write_text(f'{{"text": "x", "set": 3}}\n{{"text": "y", "set": {value}}}\n')
    message = f"line 2: the field 'set' holds {shown}, not the name of a domain"
    with pytest.raises(ValueError, match=message):
        read(path, domain="set")
    records = read_records(
        path, field="text", domain="set", default="", on_error=UnusableRecords(skip=True).handle
    )
    assert [document.domain for document in records] == ["3"]


def test_blanks_around_the_name_of_a_domain_mean_nothing(tmp_path):
    """They do not in `Data.mixture`, which could not name such a domain."""
    path = tmp_path / "blanks.jsonl"
    path.write_text('{"text": "x", "set": " wiki"}\n{"text": "y", "set": "wiki"}\n')
    assert [domain for _, domain in read(path, domain="set")] == ["wiki", "wiki"]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_a_line_that_cannot_be_used_is_named_with_the_remedy(tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(GOOD + GOOD + line)
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        read(path)
    assert str(refusal.value).startswith(f"{path}, line 3") and len(str(refusal.value)) < 600


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_lines_that_cannot_be_used_can_be_skipped_and_counted(tmp_path, line, message):
    path, unusable = tmp_path / "bad.jsonl", UnusableRecords(skip=True)
    path.write_bytes(GOOD + line.rstrip(b"\n") + b"\n" + GOOD)
    documents = read_records(
        path, field="text", domain="", default="here", on_error=unusable.handle
    )
    # One of the bad lines is followed by a good one already.
    assert len(list(documents)) == 2 + line.endswith(GOOD) * line.startswith(b" ")
    assert unusable.count == 1


def test_a_blank_last_line_is_no_record(tmp_path):
    path = tmp_path / "blank.jsonl"
    path.write_bytes(GOOD * 2 + b"\n  \n")
    assert len(read(path)) == 2


def test_a_record_as_long_as_a_corpus_is_refused(tmp_path, monkeypatch):
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
    lines = [json.dumps({"text": f"{i * 7919 % 10007} words {i}"}) + "\n" for i in range(9_000)]
    WRITERS[suffix](path, "".join(lines).encode())
    archive = path.read_bytes()
    middle = len(archive) // 2
    damaged = {
        "cut short": archive[:middle],
        "changed": archive[:middle] + bytes(64) + archive[middle + 64 :],
        "not compressed": GOOD * 3,
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(
        ValueError,
        match=rf"corpus{suffix}.*(cannot be read beyond line \d+ .*get the file again|, line \d+)",
    ):
        read(path)


@pytest.mark.data
def test_array_records_are_read(tmp_path):
    writer = pytest.importorskip(
        "array_record.python.array_record_module", reason="array_record is not installed"
    )
    texts = [f"record number {i}" for i in range(60)]
    path = tmp_path / "x.array_record"
    file = writer.ArrayRecordWriter(str(path), "group_size:1")
    for text in texts:
        file.write(json.dumps({"text": text}).encode())
    file.close()
    assert read(path) == [(text, "here") for text in texts]
