"""Text to token ids and back: bytes, SentencePiece BPE trained here or loaded, or a Hugging Face tokenizer from its files."""

import hashlib
import importlib
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

TRAINING_CHARACTERS = 20_000_000  # of the train split that BPE learns from: 3 s, and far more than small vocabularies need


class Tokenizer(Protocol):
    """What the shards need of a tokenizer: ids are 0 .. vocabulary - 1, and `end` ends a document."""

    vocabulary: int
    """Number of ids."""
    end: int
    """Id of the end-of-document token; text never encodes to it."""
    end_token: str
    """Its name."""
    hash: str
    """Content hash: equal hashes encode equally."""
    model: bytes
    """All that `restore` needs: a SentencePiece model, a tokenizer.json, or nothing for bytes."""

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class Bytes:
    """The bytes of UTF-8 as ids 0 .. 255, and 256 as the end of a document.

    >>> Bytes().encode(["hé"])[0].tolist()
    [104, 195, 169]
    """

    vocabulary = 257
    end = 256
    end_token = "<|endoftext|>"
    hash = hashlib.sha256(b"bytes, end 256").hexdigest()
    model = b""

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of every text, without the end of a document."""
        return [np.frombuffer(text.encode(), np.uint8) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids; ends of documents are left out, bytes that are no UTF-8 become U+FFFD."""
        return bytes(int(i) for i in ids if i < 256).decode("utf-8", errors="replace")


class Pieces:
    """A SentencePiece model; its end-of-sentence piece ends a document.

    Raises ValueError when the bytes are no SentencePiece model, or one without an end-of-sentence piece.
    """

    def __init__(self, model: bytes):
        from sentencepiece import SentencePieceProcessor

        try:
            self._processor = SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(f"this is not a SentencePiece model: {error}") from error
        if self._processor.eos_id() < 0:
            raise ValueError(
                "this SentencePiece model has no end-of-sentence piece, which ends a document; train it with eos_id >= 0"
            )
        self.model = model
        self.vocabulary: int = self._processor.vocab_size()
        self.end: int = self._processor.eos_id()
        self.end_token: str = self._processor.id_to_piece(self.end)
        self.hash = hashlib.sha256(model).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of every text, without the end of a document; on all cores, texts being independent of one another."""
        ids = self._processor.encode(list(texts), out_type=int, num_threads=_cores())
        return [np.asarray(one, np.int64) for one in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids; ends of documents are left out."""
        return self._processor.decode([int(i) for i in ids if i != self.end])


class HuggingFace:
    """A tokenizer.json (package `tokenizers`); its end-of-text token ends a document. Special tokens in text are read as text.

    Raises ValueError when the bytes are no such file, or when it has none of the tokens that END_TOKENS lists.
    """

    END_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]")

    def __init__(self, model: bytes):
        tokenizers = _tokenizers()
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(model.decode())
        except Exception as error:  # the package raises plain Exception
            raise ValueError(f"this is not a Hugging Face tokenizer.json: {error}") from error
        ends = [
            token for token in self.END_TOKENS if self._tokenizer.token_to_id(token) is not None
        ]
        if not ends:
            raise ValueError(
                f"this tokenizer.json has no end-of-text token: add one of {' '.join(self.END_TOKENS)} to it"
            )
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = (
            True  # text that spells a special token is text: it never ends a document
        )
        self.model = model
        self.vocabulary: int = max(self._tokenizer.get_vocab().values()) + 1
        self.end_token: str = ends[0]
        self.end: int = self._tokenizer.token_to_id(self.end_token)
        self.hash = hashlib.sha256(model).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of every text, without the end of a document; on all cores."""
        return [
            np.asarray(one.ids, np.int64)
            for one in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids; ends of documents are left out."""
        return self._tokenizer.decode(
            [int(i) for i in ids if i != self.end], skip_special_tokens=False
        )


def tokenizer(name: str, documents: Iterable[str]) -> Tokenizer:
    """The tokenizer that `Data.tokenizer` names; `bpe:V` is trained on `documents`.

    Raises ValueError for an unknown name, a file that is no tokenizer (named), or too little text for V pieces.
    """
    if name == "byte":
        return Bytes()
    if name.startswith("bpe:"):
        return train_bpe(documents, pieces=_whole(name))
    if name == "own" or name.startswith("ids:"):
        raise ValueError(
            f"Data.tokenizer `{name}` is for tokens that exist already; text needs `byte`, `bpe:V` or the path of a tokenizer"
        )
    try:
        return restore(saved(Path(name).expanduser()))
    except ValueError as error:
        raise ValueError(f"Data.tokenizer {name!r}: {error}") from error


def saved(path: Path) -> bytes:
    """The bytes of a tokenizer at a path, as `restore` takes them.

    A folder with vocab.json and merges.txt is GPT-2's byte-level BPE, given back as a tokenizer.json. Raises ValueError when
    nothing of the kind is there.
    """
    if path.is_dir() and (path / "tokenizer.json").is_file():
        path = path / "tokenizer.json"
    if path.is_dir() and (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
        return _gpt2(path)
    if not path.is_file():
        raise ValueError(
            "neither `byte`, nor `bpe:V`, nor the path of a SentencePiece model, of a tokenizer.json, or of a folder with "
            "vocab.json and merges.txt"
        )
    if not (model := path.read_bytes()):
        raise ValueError(f"{path} is empty; get the file again")
    return model


def restore(model: bytes) -> Tokenizer:
    """The tokenizer whose `.model` these bytes are: bytes when empty, Hugging Face when JSON, else SentencePiece."""
    if not model:
        return Bytes()
    return HuggingFace(model) if model.lstrip()[:1] == b"{" else Pieces(model)


def _gpt2(folder: Path) -> bytes:
    """GPT-2's tokenizer as a tokenizer.json: byte-level BPE, no blank put before a text."""
    tokenizers = _tokenizers()
    try:
        bpe = tokenizers.models.BPE.from_file(
            str(folder / "vocab.json"), str(folder / "merges.txt")
        )
    except Exception as error:  # the package raises plain Exception
        raise ValueError(
            f"vocab.json and merges.txt in {folder} are not a byte-level BPE: {error}"
        ) from error
    made = tokenizers.Tokenizer(bpe)
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    if "<|endoftext|>" in json.loads((folder / "vocab.json").read_text(encoding="utf-8")):
        made.add_special_tokens(["<|endoftext|>"])
    return made.to_str().encode()


def _tokenizers() -> Any:
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise ValueError(
            "a Hugging Face tokenizer needs the package `tokenizers`: pip install tokenizers"
        ) from error


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def train_bpe(documents: Iterable[str], *, pieces: int) -> Pieces:
    """SentencePiece BPE of `pieces` ids in all: lossless (bytes stand in for rare characters), a line end is always a piece.

    Equal documents give an equal model, bit for bit.
    """
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_lines(documents),
            model_writer=model,
            model_type="bpe",
            vocab_size=pieces,
            character_coverage=0.9995,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            user_defined_symbols=["\n"],
            unk_id=0,
            eos_id=1,
            bos_id=-1,
            pad_id=-1,
            max_sentence_length=2**20,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"SentencePiece could not train `bpe:{pieces}` on this text: {reason}; try other numbers of pieces (256 of them are "
            "single bytes) or `byte`"
        ) from error
    return Pieces(model.getvalue())


def _lines(documents: Iterable[str]) -> Iterable[str]:
    characters = 0
    for document in documents:
        yield from (line for line in document.split("\n") if line)
        characters += len(document)
        if characters > TRAINING_CHARACTERS:
            return


def _whole(name: str) -> int:
    digits = name.removeprefix("bpe:")
    if not digits.isdecimal() or int(digits) < 300:
        raise ValueError(
            f"Data.tokenizer `bpe:V` needs a whole number V of at least 300 pieces (256 are single bytes); got {name!r}"
        )
    return int(digits)
