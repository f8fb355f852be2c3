"""Token files of other projects as they are (nanoGPT, OLMo, Megatron's .bin): flat ids, no header, no copy."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scalejax.config import Data
from scalejax.data.staging import HELD_OUT
from scalejax.data.tokenizers import Tokenizer, tokenizer
from scalejax.data.writer import token_dtype
from scalejax.files import sha256

BLOCK_TOKENS = 1_024  # held-out blocks that count as documents where no id ends a document
CHECKED = 2**22  # ids checked at once
NAMES = {"train": ("train.bin",), "validation": ("val.bin", "validation.bin")}


class Binaries(NamedTuple):
    """What a set of shards is made of."""

    train: np.ndarray
    validation: np.ndarray
    validation_starts: np.ndarray
    manifest: dict[str, Any]
    model: bytes
    """The tokenizer's."""


def is_binary(source: str) -> bool:
    """Whether the source is a .bin file, or a folder with train.bin and val.bin and no manifest."""
    path = Path(source).expanduser()
    return path.suffix == ".bin" or (
        (path / "train.bin").is_file() and not (path / "manifest.json").is_file()
    )


def open_binaries(data: Data) -> Binaries:
    """Memory-mapped ids: uint16 for vocabularies of up to 65,536, uint32 above, in this machine's byte order (little-endian).

    Of a single file the last 4% are held out. Raises ValueError when a file is missing, empty or of half an id, and for an id
    outside the vocabulary, with file and place.
    """
    tokens = None if data.tokenizer.startswith("ids:") else _named(data)
    vocabulary = tokens.vocabulary if tokens else _whole(data.tokenizer)
    train, validation, files = _splits(data.source, token_dtype(vocabulary))
    for path in files:
        check(path, token_dtype(vocabulary), vocabulary)
    if tokens is None:
        starts = np.arange(0, len(validation), BLOCK_TOKENS)
    else:
        starts = np.flatnonzero(validation[:-1] == tokens.end) + 1
        if (
            not len(starts) or starts[0] != 1
        ):  # a file may begin with an end of document, as the shards here do, or with text
            starts = np.insert(starts, 0, 0)
    digest = hashlib.sha256(b"".join(bytes.fromhex(sha256(path)) for path in files)).hexdigest()
    counts = {"train": len(train), "validation": len(validation)}
    manifest = {
        "source": data.source,
        "licence": "as of the files given",
        "attribution": f"files at {data.source}",
        "tokenizer": {
            "name": data.tokenizer,
            "hash": tokens and tokens.hash,
            "end": tokens and tokens.end,
        },
        "vocabulary": vocabulary,
        "dtype": token_dtype(vocabulary).name,
        "documents": {"validation": len(starts)},
        "tokens": counts,
        "domains": {"text": counts},
        "shares": {},
        "entropy_rate": None,
        "hash": hashlib.sha256(
            f"{digest} {vocabulary} {tokens and tokens.hash}".encode()
        ).hexdigest()[:16],
    }
    return Binaries(train, validation, starts, manifest, tokens.model if tokens else b"")


def check(path: Path, dtype: np.dtype, vocabulary: int) -> None:
    """Raises ValueError, with file and place, for an id outside the vocabulary. In blocks: a whole map would stay in memory."""
    start = 0
    with path.open("rb") as file:
        while len(ids := np.fromfile(file, dtype, CHECKED)):
            if ids.max() >= vocabulary:
                at = int(np.argmax(ids >= vocabulary))
                raise ValueError(
                    f"{path} holds id {ids[at]} at token {start + at}; its vocabulary ends at {vocabulary - 1}: "
                    "name the tokenizer that made the ids"
                )
            start += len(ids)


def _splits(source: str, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, list[Path]]:
    path = Path(source).expanduser()
    if path.suffix == ".bin":
        ids = _mapped(path, dtype)
        cut = len(ids) - max(2, round(HELD_OUT * len(ids)))
        return ids[:cut], ids[cut:], [path]
    found = {
        split: next((path / name for name in names if (path / name).is_file()), None)
        for split, names in NAMES.items()
    }
    if found["validation"] is None:
        raise ValueError(
            f"{source} holds train.bin and no val.bin: add held-out tokens, or name the file {path / 'train.bin'} itself"
        )
    train, validation = (_mapped(file, dtype) for file in found.values() if file)
    return train, validation, [file for file in found.values() if file]


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"Data.source {str(path)!r} is no file that exists (in {Path.cwd()})")
    size = path.stat().st_size
    if size < 4 * dtype.itemsize or size % dtype.itemsize:
        raise ValueError(
            f"{path} has {size} bytes: no whole number of {dtype.name} ids, or fewer than 4; the dtype follows from the "
            "vocabulary (uint16 up to 65,536 ids, uint32 above)"
        )
    return np.memmap(path, dtype, "r")


def _named(data: Data) -> Tokenizer:
    if data.tokenizer.startswith("bpe:"):
        raise ValueError(
            f"{data.source} holds ids, and {data.tokenizer} is trained on text: name the tokenizer that made the ids, or `ids:V`"
        )
    return tokenizer(data.tokenizer, [])


def _whole(name: str) -> int:
    digits = name.removeprefix("ids:")
    if not digits.isdecimal() or int(digits) < 2:
        raise ValueError(
            f"Data.tokenizer `ids:V` needs a whole number V of at least 2 ids, for instance `ids:50257`; got {name!r}"
        )
    return int(digits)
