"""Text becomes documents: cleaned, deduplicated, or refused by name (mirrors scalejax/data/sources.py)."""

import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalejax.config import Data
from scalejax.data.preparation import prepare
from scalejax.data.sources import text_files


def documents(text: str) -> list[str]:
    return list(text_files.split_documents([text]))


def read(source: str, wheels) -> list[str]:
    return [document.text for document in text_files.read(Data(source=source), wheels).documents]


def test_a_file_is_one_document_up_to_the_size_and_paragraphs_beyond():
    paragraph = "x" * 1_500
    assert documents("a\n\nb") == ["a\n\nb"]
    assert documents("\n\n".join([paragraph] * 5)) == [paragraph + "\n\n" + paragraph] * 2 + [
        paragraph
    ]
    assert [len(part) for part in documents("y" * 150_000)] == [65_536, 65_536, 18_928]


def test_splitting_loses_no_word():
    text = "\n\n".join(f"paragraph {i} " + "word " * (i * 37 % 400) for i in range(60))
    assert " ".join(documents(text)).split() == text.split()


def test_cleaning_keeps_the_words_and_drops_what_is_invisible():
    assert text_files.clean("\ufeffone\x00 two \t\r\n\r\r\n\n three\x1b[0m") == "one two\n\n three[0m"
    assert text_files.clean("naïve\tcafé — ≤ 日本") == "naïve\tcafé — ≤ 日本"


def test_a_folder_is_read_in_the_order_of_names_and_fingerprinted_by_content(tmp_path):
    (tmp_path / "b.md").write_text("second")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "c.py").write_text("print()")
    assert [path.name for path in text_files.text_files(str(tmp_path))] == ["a.txt", "b.md"]
    before = text_files.fingerprint(str(tmp_path))
    (tmp_path / "c.py").write_text("other")
    assert text_files.fingerprint(str(tmp_path)) == before
    (tmp_path / "b.md").write_text("other")
    assert text_files.fingerprint(str(tmp_path)) != before


def test_bytes_that_are_no_utf8_are_refused_with_file_and_offset(tmp_path):
    (tmp_path / "good.txt").write_text("fine")
    (tmp_path / "bad.txt").write_bytes("caf\u00e9 ".encode() + b"\xff\xfe")
    with pytest.raises(ValueError, match=r"bad\.txt is not UTF-8 text: byte 6 is 0xff"):
        read(str(tmp_path), tmp_path)


@pytest.mark.skipif(
    sys.platform != "linux", reason="a file that no one can read is at hand on Linux alone"
)
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"/proc/self/mem cannot be read: Input/output error"):
        read("/proc/self/mem", tmp_path)


@pytest.mark.parametrize("text", ["", " \n\n \t", "only one document"])
def test_a_corpus_of_fewer_than_two_documents_is_refused(tmp_path, text):
    (tmp_path / "only.txt").write_text(text)
    with pytest.raises(ValueError, match=r"holds [01] document\(s\)"):
        prepare(Data(source=str(tmp_path / "only.txt"), tokenizer="byte"), tmp_path / "cache")


def test_a_source_that_is_nowhere_is_refused_with_what_would_be_right(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"neither `english`, nor `mini`, `synthetic:V`, .*, nor a file or folder that exists",
    ):
        read("englsh", tmp_path)
    with pytest.raises(ValueError, match="holds no text file"):
        read(str(tmp_path), tmp_path)


@given(
    text=st.text(alphabet="aé\n \u2028日", max_size=80),
    cuts=st.lists(st.integers(0, 80), max_size=4),
)
def test_documents_do_not_depend_on_where_the_blocks_end(text, cuts):
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    blocks = [text[a:b] for a, b in pairwise(edges)]
    assert " ".join(text_files.split_documents(blocks)).split() == text.split()


@pytest.mark.parametrize("before", range(5))
@pytest.mark.parametrize("lead", ["", "é", "日", "🙂"])
def test_the_byte_that_is_no_utf8_is_found_at_the_edge_of_a_block(
    tmp_path, monkeypatch, before, lead
):
    monkeypatch.setattr(text_files, "BLOCK", 4)
    good = "x" * before + lead
    (tmp_path / "bad.txt").write_bytes(good.encode() + b"\xff and more")
    with pytest.raises(
        ValueError, match=rf"bad\.txt is not UTF-8 text: byte {len(good.encode())} is 0xff"
    ):
        list(text_files.decoded(tmp_path / "bad.txt"))
    (tmp_path / "good.txt").write_text(good * 3)
    assert "".join(text_files.decoded(tmp_path / "good.txt")) == good * 3


def test_domains_are_the_first_folders_below_the_source(tmp_path):
    for place in ("wiki/a.txt", "code/deep/b.txt", "c.txt"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(place)
    found = {
        document.text: document.domain
        for document in text_files.read(Data(source=str(tmp_path)), tmp_path).documents
    }
    assert found == {"wiki/a.txt": "wiki", "code/deep/b.txt": "code", "c.txt": "text"}
    before = text_files.fingerprint(str(tmp_path))
    (tmp_path / "wiki").rename(tmp_path / "web")
    assert text_files.fingerprint(str(tmp_path)) != before, (
        "another domain, and the old shards would be opened"
    )
