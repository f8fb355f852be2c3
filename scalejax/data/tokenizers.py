"""Tokenizers: bytes, SentencePiece and Hugging Face."""

import hashlib
import importlib
import io
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np

# Characters of the train split that BPE is trained on. They take 3 s, and small
# vocabularies need far fewer.
TRAINING_CHARACTERS = 20_000_000


class Tokenizer(Protocol):
    """Text to ids and back. Ids are 0 to vocabulary - 1."""

    vocabulary: int
    """Number of ids."""
    end: int
    """Id of the token that ends a document; text never encodes to it."""
    end_token: str
    """That token as text."""
    hash: str
    """Content hash: tokenizers of equal hash encode equally."""
    model: bytes
    """Everything `restore_tokenizer` needs: a SentencePiece model, a tokenizer.json, or
    nothing for bytes."""

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of every text, without the end of a document."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids; end tokens are left out."""
        ...


def make_tokenizer(name: str, documents: Iterable[str]) -> Tokenizer:
    """The tokenizer that `Data.tokenizer` names; `bpe:V` is trained on `documents`.

    Raises ValueError for an unknown name, for a file that is not a tokenizer, and for
    too little text to learn V pieces from.
    """
    if name == "byte":
        return Bytes()
    if name.startswith("bpe:"):
        return train_bpe(documents, pieces=_number_of_pieces(name))
    if name == "own" or name.startswith("ids:"):
        raise ValueError(
            f"Data.tokenizer {name!r} is for sources that hold tokens already; text needs `byte`, "
            "`bpe:V` or the path of a tokenizer"
        )
    try:
        return restore_tokenizer(read_model(Path(name).expanduser()))
    except ValueError as error:
        raise ValueError(f"Data.tokenizer {name!r}: {error}") from error


def is_path(name: str) -> bool:
    """Whether `Data.tokenizer` is the path of a tokenizer, whatever files there are."""
    return name not in ("byte", "own") and not name.startswith(("bpe:", "ids:"))


def read_model(path: Path) -> bytes:
    """The bytes of the tokenizer at a path, as `restore_tokenizer` takes them.

    A folder with vocab.json and merges.txt is GPT-2's byte-level BPE; it is converted
    to a tokenizer.json. The `eos_token` of a tokenizer_config.json beside a
    tokenizer.json ends documents. Raises ValueError when there is no tokenizer at the
    path, and when the tokenizer does not have that token.
    """
    if path.is_dir() and (path / "tokenizer.json").is_file():
        path = path / "tokenizer.json"
    if path.is_dir() and (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
        return _gpt2_model(path)
    if not path.is_file():
        raise ValueError(
            "this is not the name of a tokenizer, and no tokenizer exists at this path; use "
            "`byte`, `bpe:V`, or the path of a SentencePiece model, of a tokenizer.json, or of a "
            "folder with vocab.json and merges.txt"
        )
    if not (model := path.read_bytes()):
        raise ValueError(f"{path} is empty; get the file again")
    config = path.with_name("tokenizer_config.json")
    if path.name == "tokenizer.json" and config.is_file():
        return with_end_token(model, path, config)
    return model


def restore_tokenizer(model: bytes) -> Tokenizer:
    """The tokenizer with this `model`.

    Empty bytes are the byte tokenizer, JSON is a Hugging Face tokenizer, and anything
    else a SentencePiece model. Raises ValueError when the bytes are neither.
    """
    if not model:
        return Bytes()
    return SentencePiece(model) if is_sentencepiece(model) else HuggingFace(model)


def is_sentencepiece(model: bytes) -> bool:
    """Whether a tokenizer is not the one of bytes, which has no model, and not JSON."""
    return bool(model) and model.lstrip()[:1] != b"{"


class Bytes:
    """UTF-8 bytes as ids 0 to 255, and id 256 for the end of a document.

    >>> Bytes().encode(["hé"])[0].tolist()
    [104, 195, 169]
    """

    vocabulary = 257
    end = 256
    end_token = "<|endoftext|>"
    hash = hashlib.sha256(b"bytes, end 256").hexdigest()
    model = b""

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of every text, without the end of a document."""
        return [np.frombuffer(text.encode(), np.uint8) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids, without end tokens; invalid UTF-8 becomes U+FFFD."""
        return bytes(int(i) for i in ids if i < 256).decode("utf-8", errors="replace")


class SentencePiece:
    """A SentencePiece model; its end-of-sentence piece ends a document.

    Raises ValueError when the bytes are not a SentencePiece model, and for a model
    without an end-of-sentence piece.
    """

    def __init__(self, model: bytes):
        from sentencepiece import SentencePieceProcessor

        try:
            self._processor = SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(f"this is not a SentencePiece model: {error}") from error
        if self._processor.eos_id() < 0:
            raise ValueError(
                "this SentencePiece model has no end-of-sentence piece, which ends a document; "
                "train it with eos_id >= 0"
            )
        self.model = model
        self.vocabulary: int = self._processor.vocab_size()
        self.end: int = self._processor.eos_id()
        self.end_token: str = self._processor.id_to_piece(self.end)
        self.hash = hashlib.sha256(model).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of every text, without the end of a document; uses all cores."""
        ids = self._processor.encode(list(texts), out_type=int, num_threads=_cores())
        return [np.asarray(one, np.int64) for one in ids]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids, without end tokens."""
        return self._processor.decode([int(i) for i in ids if i != self.end])

    def pieces(self) -> dict[str, int]:
        """The id of every piece."""
        return {self._processor.id_to_piece(i): i for i in range(self.vocabulary)}


class HuggingFace:
    """A tokenizer.json, read with the package `tokenizers`.

    The token that `with_end_token` stored ends a document, or else the first of
    END_TOKENS that it has. Special tokens that are spelled out in a text are encoded as
    ordinary text. Raises ValueError when the bytes are not a tokenizer.json, and when
    it has none of END_TOKENS.
    """

    END_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]")

    def __init__(self, model: bytes):
        tokenizers = _import_tokenizers()
        named, self.tokenizer_json = split_end_token(model)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(self.tokenizer_json.decode())
        # The package raises plain Exceptions.
        except Exception as error:
            raise ValueError(f"this is not a Hugging Face tokenizer.json: {error}") from error
        token_to_id = self._tokenizer.token_to_id
        candidates = [named] if named else self.END_TOKENS
        ends = [token for token in candidates if token_to_id(token) is not None]
        if not ends:
            raise ValueError(
                "this tokenizer.json has no end-of-text token; add one of "
                f"{' '.join(self.END_TOKENS)} to it"
            )
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # Otherwise a text that spells the end token would end a document.
        self._tokenizer.encode_special_tokens = True
        self.model = model
        self.vocabulary: int = max(self._tokenizer.get_vocab().values()) + 1
        self.end_token: str = ends[0]
        self.end: int = token_to_id(self.end_token)
        self.hash = hashlib.sha256(model).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of every text, without the end of a document; uses all cores."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(encoding.ids, np.int64) for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids, without end tokens."""
        text_ids = [int(i) for i in ids if i != self.end]
        return self._tokenizer.decode(text_ids, skip_special_tokens=False)


# The first key of a tokenizer.json whose end-of-document token was named elsewhere.
END_KEY = b'{"scalejax_end_token": '


def with_end_token(model: bytes, path: Path, config: Path) -> bytes:
    """A tokenizer.json with the end token that its tokenizer_config.json names.

    The model is unchanged when the config names none, or the one that is used anyway.
    Raises ValueError when a file is not JSON, and when the tokenizer lacks the token.
    """
    try:
        end = json.loads(config.read_text(encoding="utf-8")).get("eos_token")
        record = json.loads(model)
        vocabulary = record["model"]["vocab"]
        tokens = {token["content"] for token in record["added_tokens"]}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{config} and {path} are not the two files of a Hugging Face tokenizer: {error!r}; "
            "get them again"
        ) from error
    # A Unigram model lists pairs of a piece and its score.
    tokens |= set(
        vocabulary if isinstance(vocabulary, dict) else (piece for piece, _ in vocabulary)
    )
    end = end.get("content") if isinstance(end, dict) else end
    if end is None or end == next((t for t in HuggingFace.END_TOKENS if t in tokens), None):
        return model
    if end not in tokens:
        raise ValueError(
            f"{config} says that {end!r} ends a document, but {path} has no such token; correct "
            "eos_token, or remove tokenizer_config.json"
        )
    return END_KEY + json.dumps(end).encode() + b"," + model.lstrip()[1:]


def split_end_token(model: bytes) -> tuple[str, bytes]:
    """The end token that `with_end_token` stored, or "", and the tokenizer.json."""
    if not model.startswith(END_KEY):
        return "", model
    end, length = json.JSONDecoder().raw_decode(model[len(END_KEY) :].decode())
    # JSON as `with_end_token` writes it is ASCII, so characters are bytes.
    return end, b"{" + model[len(END_KEY) + length + 1 :]


def lost_text(tokenizer: Tokenizer, texts: Iterable[str]) -> tuple[float, str]:
    """What does not come back when texts are encoded and decoded.

    Returns the share of characters that are lost, and up to ten of them. White space,
    case, accents and Unicode's compatible forms are not counted: many tokenizers change
    them on purpose.
    """
    lost, total = Counter[str](), 0
    for text in texts:
        before = _characters(text)
        total += before.total()
        lost += before - _characters(tokenizer.decode(tokenizer.encode([text])[0].tolist()))
    return lost.total() / max(total, 1), "".join(sorted(lost, key=lost.__getitem__)[-10:])


def _characters(text: str) -> "Counter[str]":
    """How often each character occurs, without white space and accents."""
    characters = "".join(unicodedata.normalize("NFKD", text).casefold().split())
    return Counter(each for each in characters if not unicodedata.combining(each))


def train_bpe(documents: Iterable[str], *, pieces: int) -> SentencePiece:
    """Train SentencePiece BPE with `pieces` ids in total.

    The tokenizer is lossless: bytes stand in for rare characters, and a line end is
    always a piece of its own. Equal documents give an equal model, bit for bit. Raises
    ValueError when there is too little text for so many pieces.
    """
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_training_lines(documents),
            model_writer=model,
            model_type="bpe",
            vocab_size=pieces,
            character_coverage=0.9995,
            # The next four settings make the tokenizer lossless.
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            # SentencePiece is trained on lines, so it never sees a line end.
            user_defined_symbols=["\n"],
            unk_id=0,
            eos_id=1,
            bos_id=-1,
            pad_id=-1,
            max_sentence_length=2**20,
            # One thread: the model must be equal bit for bit whenever the documents
            # are.
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"SentencePiece could not train `bpe:{pieces}` on this text: {reason}; use another "
            "number of pieces (256 of them are single bytes) or `byte`"
        ) from error
    return SentencePiece(model.getvalue())


def _training_lines(documents: Iterable[str]) -> Iterator[str]:
    """The lines of the first TRAINING_CHARACTERS characters, in whole documents."""
    characters = 0
    for document in documents:
        yield from (line for line in document.split("\n") if line)
        characters += len(document)
        if characters > TRAINING_CHARACTERS:
            return


def _number_of_pieces(name: str) -> int:
    digits = name.removeprefix("bpe:")
    if not digits.isdecimal() or int(digits) < 300:
        raise ValueError(
            f"Data.tokenizer {name!r} does not give a number of pieces; write `bpe:V` with a whole "
            "number V of at least 300 (256 pieces are single bytes)"
        )
    return int(digits)


def _gpt2_model(folder: Path) -> bytes:
    """GPT-2's vocab.json and merges.txt as a tokenizer.json.

    GPT-2 uses byte-level BPE, and does not put a space before a text.
    """
    tokenizers = _import_tokenizers()
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    try:
        bpe = tokenizers.models.BPE.from_file(str(vocabulary), str(merges))
    # The package raises plain Exceptions.
    except Exception as error:
        raise ValueError(
            f"vocab.json and merges.txt in {folder} are not a byte-level BPE: {error}"
        ) from error
    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    if "<|endoftext|>" in json.loads(vocabulary.read_text(encoding="utf-8")):
        tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer.to_str().encode()


def _import_tokenizers() -> ModuleType:
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise ValueError(
            "a Hugging Face tokenizer needs the package tokenizers; run `pip install tokenizers`"
        ) from error


def _cores() -> int:
    """Cores that this process may use, which a scheduler may restrict."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
