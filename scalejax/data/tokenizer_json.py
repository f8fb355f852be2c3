"""Hugging Face tokenizer files: writes ours, with the same ids, and reads their ids."""

import importlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from scalejax.data.tokenizers import (
    Bytes,
    HuggingFace,
    SentencePiece,
    Tokenizer,
    is_sentencepiece,
    split_end_token,
)

Json = dict[str, object]

# SentencePiece writes a space as this character.
SPACE = "\u2581"


class AddedToken(NamedTuple):
    """A token that is matched before the BPE model sees the text."""

    id: int
    content: str
    special: bool
    """Whether decoding may leave it out."""


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """The files that `transformers.AutoTokenizer.from_pretrained` reads, by name.

    These are tokenizer.json and tokenizer_config.json, and for a SentencePiece model
    also tokenizer.model. Special tokens that are spelled out in a text are encoded as
    ordinary text, as they were in training.

    Raises ValueError for a SentencePiece model that tokenizer.json cannot express: it
    must be a BPE model with byte_fallback that leaves the text unchanged.
    """
    files = {}
    if isinstance(tokenizer, HuggingFace):
        files["tokenizer.json"] = tokenizer.tokenizer_json
    elif isinstance(tokenizer, SentencePiece):
        files["tokenizer.json"] = _to_bytes(_sentencepiece_json(tokenizer))
        files["tokenizer.model"] = tokenizer.model
    else:
        files["tokenizer.json"] = _to_bytes(_bytes_json())
    config: Json = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": tokenizer.end_token,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }
    return files | {"tokenizer_config.json": _to_bytes(config)}


def token_ids(model: bytes, path: Path) -> dict[str, int]:
    """The id of every token, which is spelled as in a tokenizer.json.

    `model` is what `restore_tokenizer` takes; it comes from `path`, which messages
    name. No package is needed to read a tokenizer.json. Raises ValueError when the
    bytes are no tokenizer.

    >>> token_ids(b"", Path())["A"]
    65
    """
    if is_sentencepiece(model):
        return SentencePiece(model).pieces()
    try:
        record: Any = json.loads(split_end_token(model)[1]) if model else _bytes_json()
        vocabulary = record["model"]["vocab"]
        # A Unigram model lists pairs of a piece and its score, by id.
        if isinstance(vocabulary, list):
            vocabulary = {piece: number for number, (piece, _) in enumerate(vocabulary)}
        return vocabulary | {token["content"]: token["id"] for token in record["added_tokens"]}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a Hugging Face tokenizer.json: {error!r}") from error


def _bytes_json() -> Json:
    """The byte tokenizer as a byte-level BPE without merges; byte b has id b."""
    byte_level: Json = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return _tokenizer_json(
        added_tokens=[AddedToken(Bytes.end, Bytes.end_token, special=True)],
        normalizer=None,
        pre_tokenizer=byte_level,
        decoder=byte_level,
        model=_bpe_model(
            vocabulary={character: byte for byte, character in enumerate(_byte_characters())},
            merges=[],
            byte_fallback=False,
        ),
    )


def _sentencepiece_json(tokenizer: SentencePiece) -> Json:
    """A SentencePiece BPE model as a tokenizer.json with the same vocabulary."""
    # protobuf makes the classes of this module when it is imported, so no type checker
    # sees them.
    protobuf: Any = importlib.import_module("sentencepiece.sentencepiece_model_pb2").ModelProto
    proto, kinds = protobuf.FromString(tokenizer.model), protobuf.SentencePiece
    pieces = list(enumerate(proto.pieces))
    user_defined = {i: piece.piece for i, piece in pieces if piece.type == kinds.USER_DEFINED}
    _check_lossless_bpe(proto, user_defined)
    special_kinds = (kinds.UNKNOWN, kinds.CONTROL)
    special = {i: piece.piece for i, piece in pieces if piece.type in special_kinds}
    scores = {piece.piece: piece.score for _, piece in pieces if piece.type == kinds.NORMAL}
    return _tokenizer_json(
        added_tokens=[
            *(AddedToken(i, piece, special=True) for i, piece in special.items()),
            *(AddedToken(i, piece, special=False) for i, piece in user_defined.items()),
        ],
        normalizer={"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        pre_tokenizer=None,
        decoder={
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        model=_bpe_model(
            vocabulary={piece.piece: i for i, piece in pieces},
            merges=_merges(scores),
            byte_fallback=True,
        ),
    )


def _check_lossless_bpe(proto: Any, user_defined: dict[int, str]) -> None:
    """Raise ValueError for a model that tokenizer.json cannot express."""
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    changes_text = (
        normalizer.name != "identity"
        or normalizer.add_dummy_prefix
        or normalizer.remove_extra_whitespaces
    )
    if (
        trainer.model_type != trainer.BPE
        or not trainer.byte_fallback
        or changes_text
        or SPACE in "".join(user_defined.values())
    ):
        raise ValueError(
            "this SentencePiece model has no equal tokenizer.json; it must be a BPE model with "
            "byte_fallback, normalization `identity`, no dummy prefix, and spaces left as they are"
        )


def _merges(scores: dict[str, float]) -> list[list[str]]:
    """The list of merges that is equivalent to the scores of a SentencePiece BPE model.

    SentencePiece merges the two neighbouring pieces whose union has the highest score.
    That is a BPE merge list: every way to split a piece in two pieces, by descending
    score.
    """
    splits = [
        (-score, piece[:cut], piece[cut:])
        for piece, score in scores.items()
        for cut in range(1, len(piece))
    ]
    merges = [split for split in splits if split[1] in scores and split[2] in scores]
    # By score only, and stable: equal scores keep the order of the vocabulary.
    merges.sort(key=lambda split: split[0])
    return [[left, right] for _, left, right in merges]


def _tokenizer_json(
    *,
    added_tokens: list[AddedToken],
    normalizer: Json | None,
    pre_tokenizer: Json | None,
    decoder: Json,
    model: Json,
) -> Json:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "post_processor": None,
        "added_tokens": [_added_token(token) for token in sorted(added_tokens)],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "decoder": decoder,
        "model": model,
    }


def _bpe_model(*, vocabulary: dict[str, int], merges: list[list[str]], byte_fallback: bool) -> Json:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": byte_fallback,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": merges,
    }


def _added_token(token: AddedToken) -> Json:
    return {
        "id": token.id,
        "content": token.content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": token.special,
    }


def _byte_characters() -> list[str]:
    """The character in which GPT-2 writes each byte.

    It is the byte's own character if that is printable, and otherwise the next
    character from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    substitutes = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(substitutes)) for byte in range(256)]


def _to_bytes(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
