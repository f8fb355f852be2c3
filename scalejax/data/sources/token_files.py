"""Token files of other projects (nanoGPT, OLMo, Megatron's .bin), used as they are.

They hold token ids without a header: uint16 for vocabularies of up to 65,536 ids and
uint32 above, in the byte order of this machine. Nothing is copied.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scalejax.config import Data
from scalejax.data.shards import Manifest, Shards, check_ids, token_dtype
from scalejax.data.sources.source import ReadySource
from scalejax.data.staging import HELD_OUT
from scalejax.data.tokenizers import Tokenizer, make_tokenizer
from scalejax.files import sha256

# Where no id ends a document, held-out blocks of this many tokens count as documents.
BLOCK_TOKENS = 1_024

VALIDATION_NAMES = ("val.bin", "validation.bin")

# First bytes of files that hold more than ids.
HEADERS = {
    b"\x93NUMPY": "a NumPy .npy file",
    # 20240520 and 20240801 as int32, followed by 1,016 bytes of header.
    (20240520).to_bytes(4, "little"): "an llm.c token file (1,024 bytes)",
    (20240801).to_bytes(4, "little"): "an llm.c token file (1,024 bytes)",
    b"MMIDIDX": "a Megatron index; its ids are in the .bin file of the same name",
    b"PK\x03\x04": "a zip archive, such as a NumPy .npz or a torch file",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
}
# Bytes at the start of a file whose format is checked.
CHECKED_BYTES = 2**20


class TokenSplits(NamedTuple):
    """Memory-mapped ids, and the files that they lie in."""

    train: np.ndarray
    validation: np.ndarray
    files: list[Path]


@dataclass(frozen=True)
class TokenFiles(ReadySource):
    """A .bin file, or a folder of train.bin and val.bin."""

    path: Path

    def open(self, data: Data) -> Shards:
        """The ids, memory-mapped, with the tokenizer that `data` names.

        The last 4% of a single file are held out, unless `Data.validation` names
        another one. Raises ValueError when a file is missing, empty or ends within an
        id, when it has a header or ids of another dtype, when both files are equal,
        and, with file and place, for an id outside the vocabulary.
        """
        tokenizer, vocabulary = self._vocabulary(data.tokenizer)
        dtype = token_dtype(vocabulary)
        train, validation, files = self._splits(dtype, data.validation)
        for path in files:
            _check_format(path, dtype)
            check_ids(path, dtype, vocabulary)
        starts = document_starts(validation, tokenizer.end if tokenizer else None)
        counts = {"train": len(train), "validation": len(validation)}
        tokenizer_hash = tokenizer.hash if tokenizer else None
        manifest: Manifest = {
            "source": self.name,
            "licence": "as of the files given",
            "attribution": f"files at {self.name}",
            "tokenizer": {
                "name": data.tokenizer,
                "hash": tokenizer_hash,
                "end": tokenizer.end if tokenizer else None,
            },
            "vocabulary": vocabulary,
            "dtype": dtype.name,
            "documents": {"validation": len(starts)},
            "tokens": counts,
            "domains": {"text": counts},
            "shares": {},
            "entropy_rate": None,
            "hash": _content_hash(files, vocabulary, tokenizer_hash),
        }
        return Shards(
            folder=self.path,
            train=train,
            validation=validation,
            validation_starts=starts,
            # The size of a document's text is not known.
            validation_bytes=np.zeros_like(starts),
            manifest=manifest,
            model=tokenizer.model if tokenizer else b"",
        )

    def _vocabulary(self, tokenizer: str) -> tuple[Tokenizer | None, int]:
        """The tokenizer that `Data.tokenizer` names, or None, and the vocabulary."""
        if tokenizer.startswith("ids:"):
            return None, _number_of_ids(tokenizer)
        if tokenizer.startswith("bpe:"):
            raise ValueError(
                f"{self.name} holds token ids, but Data.tokenizer {tokenizer!r} is trained on "
                "text; name the tokenizer that made the ids, or `ids:V` for V ids without one"
            )
        loaded = make_tokenizer(tokenizer, [])
        return loaded, loaded.vocabulary

    def _splits(self, dtype: np.dtype, held_out: str) -> TokenSplits:
        if held_out:
            return self._named_splits(dtype, Path(held_out).expanduser())
        if self.path.suffix == ".bin":
            ids = _memory_map(self.path, dtype)
            # A split needs two tokens at least: an input and a target.
            cut = len(ids) - max(2, round(HELD_OUT * len(ids)))
            return TokenSplits(ids[:cut], ids[cut:], [self.path])
        train = self.path / "train.bin"
        candidates = (self.path / name for name in VALIDATION_NAMES)
        validation = next((path for path in candidates if path.is_file()), None)
        if validation is None:
            raise ValueError(
                f"{self.name} holds train.bin and no val.bin; add held-out tokens, or name the "
                f"file {train} itself"
            )
        files = [train, validation]
        return TokenSplits(_memory_map(train, dtype), _memory_map(validation, dtype), files)

    def _named_splits(self, dtype: np.dtype, held_out: Path) -> TokenSplits:
        """The splits when `Data.validation` names the file of held-out ids."""
        train = self.path if self.path.suffix == ".bin" else self.path / "train.bin"
        if held_out.suffix != ".bin" or held_out.resolve() == train.resolve():
            raise ValueError(
                f"Data.validation {str(held_out)!r} must be another .bin file of ids than "
                f"{train}, made by the same tokenizer"
            )
        files = [train, held_out]
        return TokenSplits(_memory_map(train, dtype), _memory_map(held_out, dtype), files)


def document_starts(ids: np.ndarray, end: int | None) -> np.ndarray:
    """int64: the offset of every document, given the id that ends one.

    >>> document_starts(np.array([5, 6, 9, 7, 9]), end=9).tolist()
    [0, 3]
    >>> document_starts(np.array([9, 5, 6, 9, 7, 9]), end=9).tolist()
    [1, 4]
    """
    if end is None:
        return np.arange(0, len(ids), BLOCK_TOKENS)
    # The last id may end a document without starting another one.
    starts = np.flatnonzero(ids[:-1] == end) + 1
    # A file may begin with text, or with the end of a document as scalejax's shards do.
    if not len(starts) or starts[0] != 1:
        starts = np.insert(starts, 0, 0)
    return starts


def _content_hash(files: list[Path], vocabulary: int, tokenizer_hash: str | None) -> str:
    """16 hex digits over the ids and what they mean.

    Raises ValueError when the held-out file is a copy of the other.
    """
    digests = [sha256(path) for path in files]
    if len(set(digests)) < len(files):
        raise ValueError(
            f"{' and '.join(map(str, files))} hold the same ids, but text that is trained on "
            "cannot be held out; give other held-out ids, or name a single .bin file, whose end "
            "is then held out"
        )
    joined = bytes.fromhex("".join(digests))
    content = f"{hashlib.sha256(joined).hexdigest()} {vocabulary} {tokenizer_hash}"
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _memory_map(path: Path, dtype: np.dtype) -> np.ndarray:
    if not path.is_file():
        raise ValueError(
            f"Data.source {str(path)!r} does not exist in {Path.cwd()}; give the path of a "
            ".bin file"
        )
    size = path.stat().st_size
    if size < 4 * dtype.itemsize or size % dtype.itemsize:
        raise ValueError(
            f"{path} has {size} bytes, which is not a whole number of {dtype.name} ids, or fewer "
            "than 4 of them; the dtype follows from the vocabulary (uint16 up to 65,536 ids, "
            "uint32 above), so name the tokenizer that made the ids"
        )
    return np.memmap(path, dtype, "r")


def _check_format(path: Path, dtype: np.dtype) -> None:
    """Raise ValueError for a file with a header, or with ids of a wider dtype.

    Both would be read without any other error: zeros and the halves of a number are
    valid ids.
    """
    with path.open("rb") as file:
        start = file.read(CHECKED_BYTES)
    for magic, name in HEADERS.items():
        if start.startswith(magic):
            raise ValueError(
                f"{path} begins with the header of {name}; expected ids from the first byte "
                f"on, as {dtype.name}: write the ids alone, with "
                f"`ids.astype(numpy.{dtype.name}).tofile(path)`"
            )
    # The high parts of wider ids are zero as long as the vocabulary is small.
    ids = np.frombuffer(start, dtype, len(start) // dtype.itemsize)
    for wider in ("int64", "int32"):
        parts = np.dtype(wider).itemsize // dtype.itemsize
        columns = ids[: len(ids) // parts * parts].reshape(-1, parts)
        if parts > 1 and len(columns) >= 8 and columns[:, 0].any() and not columns[:, 1:].any():
            raise ValueError(
                f"{path} looks like {wider}: in groups of {parts}, all {dtype.name} ids but the "
                f"first are 0. Expected {dtype.name}, which the vocabulary asks for; convert the "
                f"file with `numpy.fromfile(path, numpy.{wider}).astype(numpy.{dtype.name})"
                ".tofile(new_path)`"
            )


def _number_of_ids(tokenizer: str) -> int:
    digits = tokenizer.removeprefix("ids:")
    if not digits.isdecimal() or int(digits) < 2:
        raise ValueError(
            f"Data.tokenizer {tokenizer!r} does not give a number of ids; write `ids:V` with a "
            "whole number V of at least 2, for instance `ids:50257`"
        )
    return int(digits)
