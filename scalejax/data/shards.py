"""Token shards: a corpus as flat files of token ids, memory-mapped and checked."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, cast

import numpy as np

from scalejax.data.packing import TokenArray
from scalejax.data.tokenizers import Tokenizer, restore_tokenizer
from scalejax.files import read_json, sha256, wrong_field

# The files beside train.bin and validation.bin in a folder of shards.
# int64 [documents, 2]: token offset and UTF-8 bytes of every held-out document.
VALIDATION_DOCUMENTS = "validation_documents.bin"
# int64 [documents]: number of the domain of every held-out document. Absent with one
# domain.
VALIDATION_DOMAINS = "validation_domains.bin"
# uint8 [tokens] of each split: 0 for a token of a prompt. Absent when there are no
# prompts.
LOSS_MASKS = {"train": "train_counted.bin", "validation": "validation_counted.bin"}

# Types of the fields that every manifest has.
MANIFEST_TYPES = {"source": str, "tokenizer": dict, "vocabulary": int, "dtype": str}
MANIFEST_TYPES |= {"tokens": dict, "domains": dict, "shares": dict, "files": dict, "hash": str}

# Ids that are checked at once.
CHECK_BLOCK = 2**22

Split = Literal["train", "validation"]


class TokenizerEntry(TypedDict):
    """What the manifest says about the tokenizer."""

    name: str
    """`Data.tokenizer`, or the name of the source that brought it."""
    hash: str | None
    """Content hash; None for ids without a tokenizer."""
    end: int | None
    """Id that ends a document; None when no id does."""


class Counts(TypedDict):
    """How much each split holds: {split: count}, and {domain: {split: tokens}}."""

    documents: dict[str, int]
    bytes: NotRequired[dict[str, int]]
    """UTF-8 bytes of the text; 0 where they are not known."""
    tokens: dict[str, int]
    domains: dict[str, dict[str, int]]


class Contents(Counts):
    """What a source says about the shards that it wrote."""

    licence: str
    attribution: str
    tokenizer: TokenizerEntry
    duplicates_dropped: NotRequired[int]
    records_skipped: NotRequired[int]
    """Records that could not be used and were left out, with `Data.skip_bad`."""
    vocabulary: int
    dtype: str
    shares: dict[str, float]
    """Share of the training tokens of each domain that the source itself asks for."""
    entropy_rate: float | None
    """Exact entropy rate in nats per token, where it is known."""


class Manifest(Contents):
    """The content of manifest.json."""

    source: str
    """`Data.source`."""
    files: NotRequired[dict[str, str]]
    """sha256 of every file in the folder; absent for token files of other projects."""
    hash: str
    """16 hex digits over the tokens and what they mean."""


@dataclass(frozen=True, eq=False)
class Shards:
    """A corpus that is ready to be read.

    Prepared shards start each split with an end-of-document token and have one after
    every document.
    """

    folder: Path
    """Where the files are."""
    train: np.ndarray
    """Token ids to train on, memory-mapped; one domain after the other."""
    validation: np.ndarray
    """Held-out token ids, memory-mapped."""
    validation_starts: np.ndarray
    """Token offset of every held-out document."""
    validation_bytes: np.ndarray
    """UTF-8 bytes of every held-out document; zeros for a source that is not text."""
    manifest: Manifest
    """Source, licence, attribution, counts and hashes, as in manifest.json."""
    model: bytes = b""
    """The tokenizer's model; empty for bytes and for a source without a tokenizer."""

    @property
    def vocabulary(self) -> int:
        """Number of token ids, which are 0 to vocabulary - 1."""
        return self.manifest["vocabulary"]

    @property
    def hash(self) -> str:
        """16 hex digits over the content of all shards and the vocabulary."""
        return self.manifest["hash"]

    @property
    def entropy_rate(self) -> float | None:
        """Exact entropy rate in nats per token of a synthetic source; None for text."""
        return self.manifest["entropy_rate"]

    @property
    def end(self) -> int | None:
        """Id of the token that ends a document; None if no id does."""
        return self.manifest["tokenizer"]["end"]

    @property
    def domains(self) -> list[str]:
        """Names of the domains, in their order in `train`."""
        return list(self.manifest["domains"])

    @property
    def shares(self) -> dict[str, float]:
        """{domain: share of the training tokens} that the source itself asks for.

        A seqio Mixture does; for other sources it is empty.
        """
        return self.manifest["shares"]

    @property
    def validation_domains(self) -> np.ndarray:
        """int64: the index in `domains` of every held-out document's domain."""
        path = self.folder / VALIDATION_DOMAINS
        if path.is_file():
            return np.fromfile(path, np.int64)
        return np.zeros(len(self.validation_starts), np.int64)

    def tokens(self, split: Split, packing: str, domain: str | None = None) -> TokenArray:
        """The tokens of a split, with what `packing` needs to tell documents apart.

        `packing` is `Data.packing`. With `domain`, only the tokens of that domain of
        `train`. Raises ValueError when `packing` is `documents` and no token ends a
        document.
        """
        ids = self.train if split == "train" else self.validation
        span = self._domain_span(domain) if domain is not None else slice(None)
        if packing == "concatenate":
            return TokenArray(ids[span])
        if self.end is None:
            raise ValueError(
                f"Data.packing='documents' needs a token that ends a document, and "
                f"{self.manifest['source']} has none; use packing='concatenate' or, for .bin "
                "files, name the tokenizer that made the ids instead of `ids:V`"
            )
        path = self.folder / LOSS_MASKS[split]
        mask = np.memmap(path, np.uint8, "r") if path.is_file() else None
        return TokenArray(ids, self.end, mask)[span]

    def _domain_span(self, name: str) -> slice:
        """Where a domain lies in `train`.

        It starts with the end token of the document before the domain's first one, as
        every stream of documents does.
        """
        counts = [self.manifest["domains"][domain]["train"] for domain in self.domains]
        number = self.domains.index(name)
        return slice(sum(counts[:number]), sum(counts[: number + 1]) + 1)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the ids; ValueError for a source without one."""
        if self.manifest["tokenizer"]["hash"] is None:
            raise ValueError(
                f"{self.manifest['source']} consists of token ids without text; it has no tokenizer"
            )
        return restore_tokenizer(self.model)


def open_shards(folder: Path) -> Shards:
    """Open a folder of shards and check it against its manifest.

    Raises ValueError, naming the file, when one is missing, changed or truncated, or
    holds an id outside the vocabulary.
    """
    manifest = read_manifest(folder)
    for name, digest in manifest.get("files", {}).items():
        path = folder / name
        if not path.is_file() or sha256(path) != digest:
            raise ValueError(
                f"{path} is missing, changed or truncated since it was written; delete {folder} "
                "and prepare it again"
            )
    if manifest["hash"] != manifest_hash(manifest):
        raise ValueError(
            f"{folder / 'manifest.json'} was changed since it was written; delete {folder} and "
            "prepare it again"
        )
    dtype = np.dtype(manifest["dtype"])
    for split in ("train", "validation"):
        check_ids(folder / f"{split}.bin", dtype, manifest["vocabulary"])
    index = np.fromfile(folder / VALIDATION_DOCUMENTS, np.int64).reshape(-1, 2)
    model = folder / "tokenizer.model"
    return Shards(
        folder=folder,
        train=np.memmap(folder / "train.bin", dtype, "r"),
        validation=np.memmap(folder / "validation.bin", dtype, "r"),
        validation_starts=index[:, 0],
        validation_bytes=index[:, 1],
        manifest=manifest,
        model=model.read_bytes() if model.is_file() else b"",
    )


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder of shards; ValueError when it is not one."""
    path = folder / "manifest.json"
    manifest = read_json(path)
    if wrong := wrong_field(manifest, MANIFEST_TYPES):
        raise ValueError(
            f"{path} is not the manifest of token shards: its field {wrong} is missing or has a "
            f"value that it cannot have; prepare {folder} again, or give another folder"
        )
    return cast(Manifest, manifest)


def manifest_hash(manifest: Manifest) -> str:
    """16 hex digits over the hashes of all files and what gives them a meaning.

    The source, its licence and the counts of documents are not part of it.
    """
    content: list[object] = [manifest.get("files"), manifest["vocabulary"], manifest["dtype"]]
    # Domains and their order matter only when there are several.
    if len(manifest["domains"]) > 1:
        content += [manifest["domains"], list(manifest["domains"]), manifest["shares"]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def check_ids(path: Path, dtype: np.dtype, vocabulary: int) -> None:
    """Raise ValueError, with file and position, for an id outside the vocabulary.

    Reads the file in blocks: reading all of a memory map would leave it in memory.
    """
    start = 0
    with path.open("rb") as file:
        while len(ids := np.fromfile(file, dtype, CHECK_BLOCK)):
            if ids.max() >= vocabulary:
                position = int(np.argmax(ids >= vocabulary))
                raise ValueError(
                    f"{path} holds id {ids[position]} at token {start + position}; its vocabulary "
                    f"ends at {vocabulary - 1}; name the tokenizer that made the ids"
                )
            start += len(ids)


def token_dtype(vocabulary: int) -> np.dtype:
    """uint16 for a vocabulary of up to 65,536 ids, uint32 for a larger one.

    >>> token_dtype(50_257).name, token_dtype(100_000).name
    ('uint16', 'uint32')
    """
    return np.dtype(np.uint16 if vocabulary <= 2**16 else np.uint32)
