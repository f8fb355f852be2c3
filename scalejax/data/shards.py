"""Token shards: a corpus written once as flat token ids with a manifest, memory-mapped and checked ever after."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scalejax.data import writer
from scalejax.data.packing import TokenArray
from scalejax.data.sources import token_files
from scalejax.data.tokenizers import Tokenizer, restore
from scalejax.files import read_json, sha256


@dataclass(frozen=True, eq=False)
class Shards:
    """A prepared corpus. Every document ends with an end-of-document token, and each split starts with one."""

    folder: Path
    """Where the shards lie."""
    train: np.ndarray
    """Token ids to train on, memory-mapped."""
    validation: np.ndarray
    """Held-out token ids, memory-mapped."""
    validation_starts: np.ndarray
    """Token offset of every held-out document."""
    validation_bytes: np.ndarray
    """UTF-8 bytes of every held-out document; zeros for a source that is no text."""
    manifest: dict[str, Any]
    """Source, licence, attribution, counts and hashes, as in manifest.json."""
    model: bytes = b""
    """The tokenizer's model; empty for bytes and for a source that has no tokenizer."""

    @property
    def vocabulary(self) -> int:
        """Token ids are 0 .. vocabulary - 1."""
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
    def domains(self) -> list[str]:
        """Names of the domains, in the order in which they lie in `train`."""
        return list(self.manifest["domains"])

    @property
    def shares(self) -> dict[str, float]:
        """{domain: share of the training tokens} that the source itself asks for (a seqio Mixture); mostly empty."""
        return self.manifest["shares"]

    @property
    def validation_domains(self) -> np.ndarray:
        """int64: for every held-out document, the place of its domain in `domains`."""
        path = self.folder / f"{writer.DOMAINS}.bin"
        return (
            np.fromfile(path, np.int64)
            if path.is_file()
            else np.zeros(len(self.validation_starts), np.int64)
        )

    def tokens(
        self, split: Literal["train", "validation"], packing: str, domain: str | None = None
    ) -> TokenArray:
        """The tokens of a split, of `train` also those of one domain, to be packed as `Data.packing` says.

        Raises ValueError when `documents` are asked for and no token ends one.
        """
        ids = self.train if split == "train" else self.validation
        span = self._span(domain) if domain is not None else slice(None)
        if packing == "concatenate":
            return TokenArray(ids[span])
        end, path = self.manifest["tokenizer"]["end"], self.folder / f"{split}_{writer.COUNTED}.bin"
        if end is None:
            raise ValueError(
                f"Data.packing='documents' needs a token that ends a document, and {self.manifest['source']} has none: say "
                "packing='concatenate' or, for .bin files, the tokenizer that made the ids instead of `ids:V`"
            )
        return TokenArray(ids, end, np.memmap(path, np.uint8, "r") if path.is_file() else None)[span]

    def _span(self, name: str) -> slice:
        """Of one domain in `train`, from the end of the document before its first one."""
        counts = [self.manifest["domains"][domain]["train"] for domain in self.domains]
        at = self.domains.index(name)
        return slice(sum(counts[:at]), sum(counts[: at + 1]) + 1)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that wrote the shards; ValueError for a source that has none."""
        if self.manifest["tokenizer"]["hash"] is None:
            raise ValueError(
                f"{self.manifest['source']} is made of symbols, not of text: it has no tokenizer"
            )
        return restore(self.model)


def open_shards(folder: Path) -> Shards:
    """The shards in a folder, checked against their manifest.

    Raises ValueError, with the file named, when one is missing, changed or truncated, or holds an id outside the vocabulary.
    """
    manifest = read_json(folder / "manifest.json")
    for name, digest in manifest["files"].items():
        path = folder / name
        if not path.is_file() or sha256(path) != digest:
            raise ValueError(
                f"{path} is missing, changed or truncated since it was written; delete {folder} and prepare it again"
            )
    if manifest["hash"] != content_hash(manifest):
        raise ValueError(
            f"{folder / 'manifest.json'} was changed since it was written; delete {folder} and prepare it again"
        )
    paths = [folder / f"{split}.bin" for split in ("train", "validation")]
    for path in paths:
        token_files.check(path, np.dtype(manifest["dtype"]), manifest["vocabulary"])
    train, validation = (np.memmap(path, manifest["dtype"], "r") for path in paths)
    index = np.fromfile(folder / f"{writer.INDEX}.bin", np.int64).reshape(-1, 2)
    model = folder / "tokenizer.model"
    return Shards(
        folder,
        train,
        validation,
        index[:, 0],
        index[:, 1],
        manifest,
        model.read_bytes() if model.is_file() else b"",
    )


def content_hash(manifest: dict) -> str:
    content = [manifest["files"], manifest["vocabulary"], manifest["dtype"]]
    if len(manifest["domains"]) > 1:  # of a single one there is nothing to say
        content += [manifest["domains"], list(manifest["domains"]), manifest["shares"]]
    content = json.dumps(content, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
