"""Documents on the disk between reading and tokenizing: cleaned, no two alike, in the order of their hashes, split in two."""

import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scalejax.data.sources.records import Document
from scalejax.data.sources.text_files import clean, document_hash

HELD_OUT = 0.04  # share of documents in the validation split, drawn by document hash


@dataclass(frozen=True)
class Part:
    """Documents of one split, in the order in which they are written."""

    places: np.ndarray
    """int64: their places in the spool."""
    domains: np.ndarray
    """int64: the number of each one's domain."""
    bytes: np.ndarray
    """int64: UTF-8 bytes of each one."""


class Spool:
    """Cleaned texts end to end in one file; what stays in memory of each is its hash, its size and its domain.

    Equal documents (but for case and white space) are kept once, as they were first met. The order of their hashes mixes the
    sources, and does not depend on the order in which they came.
    """

    def __init__(self, path: Path):
        self._file = path.open("w+b", buffering=2**20)
        self._hashes, self._sizes, self._domains = bytearray(), array("q"), array("i")
        self._names: dict[str, int] = {}

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def add(self, document: Document) -> None:
        """Takes one document; one that is nothing but white space is left out."""
        text = clean(document.text)
        if not text:
            return
        raw = text.encode()
        self._file.write(raw)
        self._hashes += bytes.fromhex(document_hash(text)[:32])
        self._sizes.append(len(raw))
        self._domains.append(self._names.setdefault(document.domain, len(self._names)))

    def close(self, source: str) -> "Documents":
        """All documents taken. Raises ValueError for a domain with fewer than two, one to train on and one to hold out."""
        self._file.flush()
        hashes = np.frombuffer(bytes(self._hashes), ">u8").reshape(-1, 2).astype(np.uint64)
        order = np.lexsort(
            (hashes[:, 1], hashes[:, 0])
        )  # stable: of equal documents the first one met comes first
        new = np.ones(len(order), bool)
        new[1:] = (hashes[order][1:] != hashes[order][:-1]).any(axis=1)
        order = order[new]
        names = sorted(self._names)
        number = np.array([names.index(name) for name in self._names], np.int64)
        domains = number[np.asarray(self._domains, np.int64)] if names else np.zeros(0, np.int64)
        counts = np.bincount(domains[order], minlength=len(names))
        for name, count in zip(names or ["text"], counts.tolist() or [0], strict=True):
            if count < 2:
                raise ValueError(
                    f"the corpus {source!r} holds {count} document(s) of {name}; 2 are needed, one to train on and one to hold "
                    "out: documents are records, or parts of about 2,048 characters of a text file, ended by a blank line"
                )
        held_out = split(hashes[order, 0], domains[order])
        sizes = np.asarray(self._sizes, np.int64)
        by_domain = np.argsort(domains[order][~held_out], kind="stable")
        places = {"train": order[~held_out][by_domain], "validation": order[held_out]}
        parts = {
            name: Part(chosen, domains[chosen], sizes[chosen]) for name, chosen in places.items()
        }
        return Documents(
            self._file.fileno(),
            np.cumsum(sizes) - sizes,
            sizes,
            names,
            parts,
            order[~held_out],
            int((~new).sum()),
        )


@dataclass(frozen=True)
class Documents:
    """A spool that is complete."""

    file: int
    offsets: np.ndarray
    sizes: np.ndarray
    domains: list[str]
    """Names of the domains, sorted."""
    splits: dict[str, Part]
    """`train`, domain after domain, and `validation`, domains mixed: its beginning is a sample of the whole."""
    mixed: np.ndarray
    """Places of the train split with the domains mixed: what a tokenizer is trained on."""
    duplicates: int
    """Documents dropped because another one is equal but for case and white space."""

    def texts(self, places: Iterable[int]) -> Iterator[str]:
        """The texts at these places."""
        for place in places:
            yield os.pread(self.file, int(self.sizes[place]), int(self.offsets[place])).decode()


def split(hashes: np.ndarray, domains: np.ndarray) -> np.ndarray:
    """bool: which documents, in the order of their hashes, are held out: those whose hash falls in the lowest 4%.

    A document's split does not depend on the others, but that in every domain the lowest hash is always held out and the highest
    never, so that neither split lacks a domain.
    """
    held_out = (hashes >> np.uint64(16)) / 2**48 < HELD_OUT
    for domain in np.unique(domains):
        members = np.flatnonzero(domains == domain)
        held_out[members[0]], held_out[members[-1]] = True, False
    return held_out
