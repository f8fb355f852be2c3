"""Our tokenizers as files of Hugging Face, which give the same ids."""

import importlib
import json
from typing import Any

from scalejax.data.tokenizers import Bytes, HuggingFace, Pieces, Tokenizer

BLANK = "\u2581"
"""SentencePiece's letter for a blank."""


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """What `transformers.AutoTokenizer.from_pretrained` reads, by file name: tokenizer.json and tokenizer_config.json.

    Text that spells a special token is text, as it was in training. A SentencePiece model goes along as tokenizer.model.

    Raises ValueError for a SentencePiece model that is no BPE over unchanged text with bytes for rare characters.
    """
    files = {}
    if isinstance(tokenizer, HuggingFace):
        files["tokenizer.json"] = tokenizer.model
    elif isinstance(tokenizer, Pieces):
        files |= {"tokenizer.json": _dumped(_pieces(tokenizer)), "tokenizer.model": tokenizer.model}
    else:
        files["tokenizer.json"] = _dumped(_bytes())
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": tokenizer.end_token,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }
    return files | {"tokenizer_config.json": _dumped(config)}


def _bytes() -> dict[str, Any]:
    """Byte b is the id b: the letters that GPT-2 writes bytes in, and not one merge."""
    vocabulary = {letter: byte for byte, letter in enumerate(_byte_letters())}
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return _file(
        added=[_added(Bytes.end, Bytes.end_token, special=True)],
        normalizer=None,
        pre_tokenizer=byte_level,
        decoder=byte_level,
        vocabulary=vocabulary,
        merges=[],
        byte_fallback=False,
    )


def _pieces(tokenizer: Pieces) -> dict[str, Any]:
    """SentencePiece merges the two neighbours whose union has the highest score: in order of score, that is a list of merges."""
    message = importlib.import_module(
        "sentencepiece.sentencepiece_model_pb2"
    ).ModelProto  # protobuf makes its classes at import
    proto, kinds = message.FromString(tokenizer.model), message.SentencePiece
    trained, normal = proto.trainer_spec, proto.normalizer_spec
    own = {
        i: piece.piece for i, piece in enumerate(proto.pieces) if piece.type == kinds.USER_DEFINED
    }
    as_it_is = normal.name == "identity" and not (
        normal.add_dummy_prefix or normal.remove_extra_whitespaces
    )
    if (
        trained.model_type != trained.BPE
        or not trained.byte_fallback
        or not as_it_is
        or BLANK in "".join(own.values())
    ):
        raise ValueError(
            "this SentencePiece model has no equal tokenizer.json: only a BPE with byte_fallback, normalization `identity`, no "
            "dummy prefix, and blanks left as they are has one"
        )
    special = {
        i: piece.piece
        for i, piece in enumerate(proto.pieces)
        if piece.type in (kinds.UNKNOWN, kinds.CONTROL)
    }
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type == kinds.NORMAL}
    splits = [
        (-score, piece[:at], piece[at:])
        for piece, score in scores.items()
        for at in range(1, len(piece))
    ]
    ranked = sorted(
        (split for split in splits if split[1] in scores and split[2] in scores),
        key=lambda split: split[0],
    )
    return _file(
        added=[
            *(_added(i, piece, special=True) for i, piece in special.items()),
            *(_added(i, piece, special=False) for i, piece in own.items()),
        ],
        normalizer={"type": "Replace", "pattern": {"String": " "}, "content": BLANK},
        pre_tokenizer=None,
        decoder={
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": BLANK}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        vocabulary={piece.piece: i for i, piece in enumerate(proto.pieces)},
        merges=[[left, right] for _, left, right in ranked],
        byte_fallback=True,
    )


def _file(
    *, added: list, vocabulary: dict[str, int], merges: list, byte_fallback: bool, **stages: Any
) -> dict[str, Any]:
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
    }
    model |= {
        "fuse_unk": False,
        "byte_fallback": byte_fallback,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": merges,
    }
    added = sorted(added, key=lambda token: token["id"])
    nothing = {"truncation": None, "padding": None, "post_processor": None}
    return {"version": "1.0", **nothing, "added_tokens": added, **stages, "model": model}


def _added(number: int, content: str, *, special: bool) -> dict[str, Any]:
    ways = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **ways, "special": special}


def _byte_letters() -> list[str]:
    """GPT-2's letter for every byte: itself where it can be seen, else the next letter from U+0100."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(0x100, 0x200))
    return [chr(byte if byte in seen else next(hidden)) for byte in range(256)]


def _dumped(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
