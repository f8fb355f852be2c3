"""Text files become documents (mirrors scalejax/data/sources/text_files.py)."""

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalejax.config import Data
from scalejax.data.preparation import prepare
from scalejax.data.sources import text_files
from scalejax.data.sources.text_files import TextFiles, decoded, split_documents


def source(path: Path) -> TextFiles:
    return TextFiles(str(path), path)


def documents(path: Path) -> dict[str, str]:
    """{text: domain} of all documents."""
    data = Data(source=str(path))
    return {each.text: each.domain for each in source(path).documents(data, Path("unused"))}


def test_a_file_is_split_at_paragraphs_and_a_huge_paragraph_is_cut():
    paragraph = "x" * 1_500
    assert list(split_documents(["a\n\nb"])) == ["a\n\nb"]
    pair = paragraph + "\n\n" + paragraph
    assert list(split_documents(["\n\n".join([paragraph] * 5)])) == [pair, pair, paragraph]
    assert [len(part) for part in split_documents(["y" * 150_000])] == [65_536, 65_536, 18_928]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_documents_end_at_blank_lines_whatever_ends_a_line(end):
    """Files from old Macs have carriage returns alone."""
    text = f"one{end}line{end} {end}".join("x" * 3_000 for _ in range(4))
    assert len(list(split_documents([text]))) == 4
    assert len(list(split_documents([text.replace(f"{end} {end}", end)]))) == 1


def test_splitting_loses_no_word():
    text = "\n\n".join(f"paragraph {i} " + "word " * (i * 37 % 400) for i in range(60))
    assert " ".join(split_documents([text])).split() == text.split()


@given(
    text=st.text(alphabet="aé\n \u2028日", max_size=80),
    cuts=st.lists(st.integers(0, 80), max_size=4),
)
def test_splitting_loses_no_word_wherever_the_blocks_end(text, cuts):
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    blocks = [text[start:stop] for start, stop in pairwise(edges)]
    assert " ".join(split_documents(blocks)).split() == text.split()


def test_a_folder_is_read_sorted_by_name_and_fingerprinted_by_content(tmp_path):
    (tmp_path / "b.md").write_text("second")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "c.py").write_text("print()")
    assert [file.path.name for file in source(tmp_path).corpus().files] == ["a.txt", "b.md"]
    before = source(tmp_path).fingerprint()
    (tmp_path / "c.py").write_text("other")
    assert source(tmp_path).fingerprint() == before
    (tmp_path / "b.md").write_text("other")
    assert source(tmp_path).fingerprint() != before


def test_a_folder_without_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has nothing to read; it must hold text"):
        source(tmp_path).fingerprint()


@pytest.mark.parametrize("name", ["b.jsonl.gz", "validation.jsonl", "b.txt"])
def test_a_file_without_text_is_refused_by_name(tmp_path, name):
    """A download failed: a part of the corpus, or its held-out text, is missing."""
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "{n} {n + 1}"}}\n' for n in range(50)))
    (tmp_path / name).write_bytes(b"")
    data = Data(source=str(tmp_path), tokenizer="byte")
    with pytest.raises(ValueError, match=rf"{name} holds no text; get the file again, or remove"):
        prepare(data)
    # Other text must not be held out in place of that which was named.
    if "validation" in name:
        with pytest.raises(ValueError, match=r"validation\.jsonl holds no text"):
            prepare(replace(data, skip_bad=True))
    else:
        assert prepare(replace(data, skip_bad=True)).manifest["documents"]["train"] > 1


def test_domains_are_the_first_folders_below_the_source(tmp_path):
    for place in ("wiki/a.txt", "code/deep/b.txt", "c.txt"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(place)
    assert documents(tmp_path) == {"wiki/a.txt": "wiki", "code/deep/b.txt": "code", "c.txt": "text"}
    before = source(tmp_path).fingerprint()
    (tmp_path / "wiki").rename(tmp_path / "web")
    assert source(tmp_path).fingerprint() != before, (
        "shards with the old name of the domain would be opened"
    )


@pytest.mark.parametrize("name", ["data.json", "data.csv", "notes.ipynb", "ids.npy"])
def test_a_file_that_is_not_plain_text_is_refused(tmp_path, name):
    (tmp_path / name).write_text('{"text": "a"}')
    with pytest.raises(ValueError, match=rf"{name} is a .* file, which is not read as plain text"):
        prepare(Data(source=str(tmp_path / name), tokenizer="byte"), tmp_path / "cache")


def test_bytes_that_are_not_utf8_are_refused_with_file_and_offset(tmp_path):
    (tmp_path / "good.txt").write_text("fine")
    (tmp_path / "bad.txt").write_bytes("caf\u00e9 ".encode() + b"\xff\xfe")
    with pytest.raises(ValueError, match=r"bad\.txt is not UTF-8 text: byte 6 is 0xff"):
        documents(tmp_path)


@pytest.mark.parametrize("before", range(5))
@pytest.mark.parametrize("lead", ["", "é", "日", "🙂"])
def test_the_offset_of_a_bad_byte_is_right_at_the_edge_of_a_block(
    tmp_path, monkeypatch, before, lead
):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 4)
    good = "x" * before + lead
    (tmp_path / "bad.txt").write_bytes(good.encode() + b"\xff and more")
    with pytest.raises(
        ValueError, match=rf"bad\.txt is not UTF-8 text: byte {len(good.encode())} is 0xff"
    ):
        list(decoded(tmp_path / "bad.txt"))
    (tmp_path / "good.txt").write_text(good * 3)
    assert "".join(decoded(tmp_path / "good.txt")) == good * 3


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux always has a file that nobody can read"
)
def test_a_file_that_cannot_be_read_is_refused_by_name():
    with pytest.raises(ValueError, match=r"/proc/self/mem cannot be read: Input/output error"):
        documents(Path("/proc/self/mem"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "only.txt holds no text"),
        (" \n\n \t", "only.txt holds no text"),
        ("only one document", r"holds 1 document\(s\)"),
    ],
)
def test_a_corpus_of_fewer_than_two_documents_is_refused(tmp_path, text, message):
    (tmp_path / "only.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        prepare(Data(source=str(tmp_path / "only.txt"), tokenizer="byte"), tmp_path / "cache")
