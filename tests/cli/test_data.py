"""`scalejax data`: unusable input is exit 2 with one message, and writes nothing.

Mirrors scalejax/cli/data.py.
"""

import functools
import gzip
import json

import numpy as np
import pytest

from scalejax.config import Data
from scalejax.data.preparation import prepare

GOOD = [json.dumps({"text": f"document {i} is fine"}).encode() + b"\n" for i in range(50)]
ARCHIVE = gzip.compress(b"".join(GOOD))

# file -> (content, a part of the message)
MALFORMED = {
    "utf8.jsonl": (b"".join(GOOD) + b'{"text": "\xff"}\n', "utf8.jsonl, line 51 is not UTF-8"),
    "utf8.txt": (b"fine\n\n\xff", "utf8.txt is not UTF-8 text: byte 6 is 0xff"),
    "empty.jsonl": (
        b"".join(GOOD) + b'{"text": ""}\n',
        "empty.jsonl, line 51: the document is empty; remove",
    ),
    "giant.jsonl": (
        b'{"text": "' + b"x" * 50_000_000 + b'"}\n',
        "giant.jsonl, line 1: the record is longer than 20,000,000 bytes; cut",
    ),
    "short.jsonl.gz": (ARCHIVE[: len(ARCHIVE) // 2], "short.jsonl.gz cannot be read beyond line"),
    "short.jsonl.zst": (b"\x28\xb5\x2f\xfd\x00", "short.jsonl.zst cannot be read beyond line 0"),
    "field.jsonl": (
        b'{"body": "x"}\n',
        "field.jsonl, line 1: no field 'text'; the fields are body; set Data.field",
    ),
    "bom.jsonl": (
        b"\xef\xbb\xbf" + GOOD[0],
        "bom.jsonl, line 1 begins with a byte-order mark; save",
    ),
    "half.jsonl": (
        b"".join(GOOD) + b'{"text": "half',
        "the file ends within this line: get the file again, or remove the line",
    ),
    "json.jsonl": (b"".join(GOOD) + b'{"text": half"}\n', "json.jsonl, line 51 is not JSON"),
    "nothing.jsonl": (b"", "nothing.jsonl holds no text; get the file again"),
}


@pytest.fixture
def call(call, monkeypatch, tmp_path):
    """Run `scalejax data` with a cache of its own."""
    monkeypatch.setenv("SCALEJAX_CACHE", str(tmp_path / "cache"))
    return functools.partial(call, "data")


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_corpus_is_refused(call, tmp_path, name):
    content, message = MALFORMED[name]
    (tmp_path / name).write_bytes(content)
    source = ("--source", tmp_path / name, "--tokenizer", "byte")
    code, out, err = call("prepare", *source, "--out", tmp_path / "shards")
    assert (code, out) == (2, "") and message in err and "Traceback" not in err
    assert not (tmp_path / "shards").exists()
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


# --tokenizer -> (content of a file of that name, a part of the message)
UNUSABLE_TOKENIZERS = {
    "empty.model": (b"", "empty.model is empty; get the file again"),
    "junk.model": (b"junk", "junk.model': this is not a SentencePiece model"),
    "ids:7": (None, "'ids:7' is for sources that hold tokens already; text needs `byte`"),
    "absent.model": (None, "absent.model': this is not the name of a tokenizer, and no tokenizer"),
}


@pytest.mark.parametrize("name", UNUSABLE_TOKENIZERS)
def test_an_unusable_tokenizer_is_refused(call, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, message = UNUSABLE_TOKENIZERS[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    (tmp_path / "good.jsonl").write_bytes(b"".join(GOOD))
    source = ("--source", "good.jsonl", "--tokenizer", name)
    code, out, err = call("prepare", *source, "--out", tmp_path / "shards")
    assert (code, out) == (2, "") and message in err and "Traceback" not in err
    assert not (tmp_path / "shards").exists() and not list((tmp_path / "cache").glob("*/*"))


def test_ids_of_another_tokenizer_are_refused(call, tmp_path):
    np.arange(1_000, dtype=np.uint16).tofile(tmp_path / "ids.bin")
    code, _, err = call("prepare", "--source", tmp_path / "ids.bin", "--tokenizer", "ids:500")
    message = (
        "ids.bin holds id 500 at token 500; its vocabulary ends at 499; name the tokenizer that "
        "made the ids"
    )
    assert code == 2 and message in err


def test_a_source_with_its_own_tokenizer_needs_no_tokenizer_option(call, tmp_path):
    (tmp_path / "good.jsonl").write_bytes(b"".join(GOOD))
    shards = tmp_path / "shards"
    text = ("--source", tmp_path / "good.jsonl", "--tokenizer", "byte")
    assert call("prepare", *text, "--out", shards)[0] == 0
    assert call("prepare", "--source", shards)[:2] == (0, f"{shards}\n")
    assert call("prepare", "--source", shards, "--tokenizer", "byte")[0] == 2


def test_u2028_inside_a_text_does_not_end_a_record(call, tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"a\u2028b {i}"}, ensure_ascii=False) + "\n" for i in range(9))
    )
    assert call("prepare", "--source", path, "--tokenizer", "byte")[0] == 0


def test_contamination_names_the_items_that_occur_in_the_corpus(call, tmp_path):
    corpus, items = tmp_path / "corpus.jsonl", tmp_path / "items.jsonl"
    texts = [f"sentence {i} of this corpus says that {i * i} is the square" for i in range(30)]
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    items.write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in [texts[3], "quite another text"])
    )
    source = ("--source", corpus, "--tokenizer", "byte")
    code, out, _ = call("contamination", *source, "--items", items)
    assert code == 0 and out.startswith("line 1: ")
    assert "1 of 2 items share 13 consecutive tokens" in out
    code, _, err = call("contamination", *source)
    assert code == 2 and "--items FILE.jsonl" in err


def test_two_sources_are_refused(call):
    code, _, err = call("prepare", "--seqio", "module:task", "--tfds", "c4/en")
    assert code == 2 and "give one" in err


def test_prepared_shards_are_a_source_that_a_run_can_name(call, tmp_path):
    (tmp_path / "text.txt").write_text(
        "\n\n".join(f"Paragraph {i} says something of its own. " * 60 for i in range(40))
    )
    source = ("--source", tmp_path / "text.txt", "--tokenizer", "byte")
    code, out, _ = call("prepare", *source, "--out", tmp_path / "shards")
    assert code == 0
    data = Data(source=out.strip(), tokenizer="own", sequence_length=16)
    assert prepare(data).vocabulary >= 256
