"""Text becomes ids and comes back (mirrors scalejax/data/tokenizers.py)."""

import json
import random

import pytest

from scalejax.data.preparation import write
from scalejax.data.tokenizer_json import tokenizer_files
from scalejax.data.tokenizers import (
    Bytes,
    HuggingFace,
    SentencePiece,
    lost_text,
    make_tokenizer,
    restore_tokenizer,
    train_bpe,
)

ODD_TEXTS = [
    "",
    "plain",
    "  two blanks  ",
    "a\n\nb\n",
    "tab\tand\xa0space",
    "naïve café",
    "日本語 🙂",
    "</s> <unk> <0x41>",
]

WORDS = (
    "the of and scaling law model token loss width depth batch rate warm cool trunk branch fit row"
)


def documents(count: int = 60) -> list[str]:
    words = WORDS.split()
    rng = random.Random(0)
    return [" ".join(rng.choices(words, k=80)) + ".\nA second line é." for _ in range(count)]


@pytest.fixture(scope="module")
def bpe() -> SentencePiece:
    return train_bpe(documents(), pieces=320)


def test_bytes_round_trip():
    for text, ids in zip(ODD_TEXTS, Bytes().encode(ODD_TEXTS), strict=True):
        assert len(ids) == len(text.encode()) and Bytes().decode(ids) == text
        assert Bytes.end not in ids


def test_a_trained_bpe_round_trips_text_that_it_never_saw(bpe):
    for text, ids in zip(ODD_TEXTS, bpe.encode(ODD_TEXTS), strict=True):
        assert bpe.decode(ids) == text
        assert bpe.end not in ids and all(0 <= i < bpe.vocabulary for i in ids)


def test_a_trained_bpe_shortens_text(bpe):
    text = documents()[0]
    assert len(bpe.encode([text])[0]) < 0.6 * len(text.encode())


def test_a_line_end_is_always_a_piece_of_its_own(bpe):
    one, two, both = bpe.encode(["law", "fit", "law\nfit"])
    assert [*one, *both[len(one) : len(one) + 1], *two] == list(both)


def test_training_twice_gives_the_same_model_bit_for_bit(bpe):
    assert bpe.vocabulary == 320
    assert train_bpe(documents(), pieces=320).hash == bpe.hash
    assert train_bpe(documents(59), pieces=320).hash != bpe.hash


def test_a_saved_model_is_the_same_tokenizer(bpe, tmp_path):
    path = tmp_path / "own.model"
    path.write_bytes(bpe.model)
    loaded = make_tokenizer(str(path), [])
    assert loaded.hash == bpe.hash
    assert loaded.encode(ODD_TEXTS)[5].tolist() == bpe.encode(ODD_TEXTS)[5].tolist()


@pytest.mark.parametrize("name", ["bpe:", "bpe:many", "bpe:299", "bpe:-400", "bites", "own"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match=r"Data\.tokenizer"):
        make_tokenizer(name, documents())


def test_a_file_that_is_not_a_model_is_refused(tmp_path):
    (tmp_path / "text.model").write_text("not a model")
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        make_tokenizer(str(tmp_path / "text.model"), [])


def test_too_little_text_for_so_many_pieces_is_refused():
    with pytest.raises(ValueError, match="could not train `bpe:4000`"):
        make_tokenizer("bpe:4000", ["a few words", "and a few more"])


@pytest.fixture(scope="module")
def tokenizers():
    return pytest.importorskip(
        "tokenizers", reason="Hugging Face tokenizers need the package `tokenizers`"
    )


@pytest.fixture
def gpt2(tokenizers, tmp_path):
    """A folder with vocab.json and merges.txt as GPT-2 has, trained on documents()."""
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator(documents(), vocab_size=400, special_tokens=["<|endoftext|>"])
    trained.save_model(str(tmp_path))
    return tmp_path


@pytest.mark.data
def test_gpt2s_files_are_a_lossless_tokenizer(gpt2, tokenizers):
    ours = make_tokenizer(str(gpt2), [])
    vocabulary = json.loads((gpt2 / "vocab.json").read_text())
    assert ours.vocabulary == len(vocabulary) > 300 and ours.end == vocabulary["<|endoftext|>"]
    theirs = tokenizers.ByteLevelBPETokenizer(str(gpt2 / "vocab.json"), str(gpt2 / "merges.txt"))
    texts = [*ODD_TEXTS, *documents()]
    for text, ids in zip(texts, ours.encode(texts), strict=True):
        assert ids.tolist() == theirs.encode(text).ids and ours.decode(ids.tolist()) == text
    restored = restore_tokenizer(ours.model)
    assert isinstance(restored, HuggingFace) and restored.hash == ours.hash


@pytest.mark.data
def test_text_that_spells_the_end_token_does_not_end_a_document(gpt2):
    ours = make_tokenizer(str(gpt2), [])
    (ids,) = ours.encode(["a <|endoftext|> b"])
    assert ours.end not in ids and ours.decode(ids.tolist()) == "a <|endoftext|> b"


@pytest.mark.data
def test_a_tokenizer_json_is_read_from_the_file_or_its_folder(gpt2, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(make_tokenizer(str(gpt2), []).model)
    assert make_tokenizer(str(path), []).hash == make_tokenizer(str(tmp_path), []).hash


@pytest.mark.data
@pytest.mark.parametrize("as_record", [False, True])
def test_the_end_token_of_tokenizer_config_json_is_used(gpt2, tokenizers, tmp_path, as_record):
    path, config = tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"
    made = tokenizers.Tokenizer.from_str(make_tokenizer(str(gpt2), []).model.decode())
    made.add_special_tokens(["<|stop|>"])
    path.write_text(made.to_str())
    usual = make_tokenizer(str(tmp_path), [])
    assert usual.end_token == "<|endoftext|>"
    config.write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    assert make_tokenizer(str(path), []).hash == usual.hash
    config.write_text(
        json.dumps({"eos_token": {"content": "<|stop|>"} if as_record else "<|stop|>"})
    )
    other = make_tokenizer(str(path), [])
    assert (other.end_token, other.end) == ("<|stop|>", made.token_to_id("<|stop|>"))
    restored = restore_tokenizer(other.model)
    assert restored.end == other.end and restored.hash == other.hash != usual.hash
    assert tokenizer_files(restored)["tokenizer.json"] == path.read_bytes()
    config.write_text(json.dumps({"eos_token": "<|absent|>"}))
    with pytest.raises(ValueError, match=r"tokenizer_config\.json says that '<\|absent\|>' ends"):
        make_tokenizer(str(path), [])


def test_text_that_does_not_come_back_is_found(bpe):
    assert lost_text(Bytes(), ODD_TEXTS) == (0.0, "")
    assert lost_text(bpe, ODD_TEXTS) == (0.0, "")

    class WithoutX(Bytes):
        """Bytes that drop every x."""

        def encode(self, texts):
            return super().encode([text.lower().replace("x", "") for text in texts])

    assert lost_text(WithoutX(), ["xaxb", "Xc"]) == (0.5, "x")


@pytest.mark.data
def test_a_tokenizer_that_loses_text_is_refused_by_name(tokenizers, tmp_path, capsys):
    """The first tokenizer lacks most letters, the second only a rare one."""
    letters = "abcdefghijklmnopqrstuvwxyz 0123456789"
    text = [{"text": f"{i} quick zebras jump over a lazy dog " * 9} for i in range(60)]
    for name, alphabet in (("few", letters[:9]), ("most", letters)):
        vocabulary = {letter: i for i, letter in enumerate(alphabet)}
        made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
        made.add_special_tokens(["</s>"])
        made.save(str(tmp_path / f"{name}.json"))
    with pytest.raises(ValueError, match=r"few\.json loses \d\d\.\d\d% of the characters"):
        write(text, tmp_path / "a", tokenizer=str(tmp_path / "few.json"))
    assert not (tmp_path / "a").exists()
    write(text, tmp_path / "b", tokenizer=str(tmp_path / "most.json"))
    assert "warning" not in capsys.readouterr().err
    text[0] = {"text": text[0]["text"] + "\N{SNOWMAN}"}
    write(text, tmp_path / "c", tokenizer=str(tmp_path / "most.json"))
    assert "warning: the tokenizer" in capsys.readouterr().err


@pytest.mark.data
def test_files_that_are_not_tokenizers_are_refused_by_name(tokenizers, tmp_path):
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(ValueError, match=r"t\.json'?: this is not a Hugging Face tokenizer\.json"):
        make_tokenizer(str(tmp_path / "t.json"), [])
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "merges.txt").write_text("a b c d")
    with pytest.raises(ValueError, match=r"are not a byte-level BPE|no end-of-text token"):
        make_tokenizer(str(tmp_path), [])
    no_end = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0}, merges=[])).to_str()
    (tmp_path / "t.json").write_text(no_end)
    with pytest.raises(ValueError, match="has no end-of-text token"):
        make_tokenizer(str(tmp_path / "t.json"), [])
