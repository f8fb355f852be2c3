"""Text to token ids and back: bytes, or SentencePiece BPE, trained here or loaded."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

TRAINING_CHARACTERS = 20_000_000  # of the train split that BPE learns from: 3 s, and far more than small vocabularies need


class Tokenizer(Protocol):
    """What the shards need of a tokenizer: ids are 0 .. vocabulary - 1, and `end` ends a document."""

    vocabulary: int
    """Number of ids."""
    end: int
    """Id of the end-of-document token; text never encodes to it."""
    hash: str
    """Content hash: equal hashes encode equally."""
    model: bytes
    """A SentencePiece model, empty for bytes."""

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class Bytes:
    """The bytes of UTF-8 as ids 0 .. 255, and 256 as the end of a document.

    >>> Bytes().encode(["hé"])[0].tolist()
    [104, 195, 169]
    """

    vocabulary = 257
    end = 256
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
        self.hash = hashlib.sha256(model).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of every text, without the end of a document."""
        return [np.asarray(ids, np.int64) for ids in self._processor.encode(list(texts), out_type=int, num_threads=1)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids; ends of documents are left out."""
        return self._processor.decode([int(i) for i in ids if i != self.end])


def tokenizer(name: str, documents: Iterable[str]) -> Tokenizer:
    """The tokenizer that `Data.tokenizer` names; `bpe:V` is trained on `documents`.

    Raises ValueError for an unknown name, a file that is no SentencePiece model, or too little text for V pieces.
    """
    if name == "byte":
        return Bytes()
    if name.startswith("bpe:"):
        return train_bpe(documents, pieces=_whole(name))
    if name == "own":
        raise ValueError(
            "Data.tokenizer `own` is for `synthetic:V` and prepared folders; text needs `byte`, `bpe:V` or a model's path"
        )
    path = Path(name).expanduser()
    if not path.is_file():
        raise ValueError(f"Data.tokenizer {name!r} is neither `byte`, nor `bpe:V`, nor the path of a SentencePiece model")
    return Pieces(path.read_bytes())


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
