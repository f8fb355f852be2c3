"""Documents on disk between reading and tokenizing: cleaned, unique and split."""

import hashlib
import os
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Share of documents in the validation split, chosen by the hash of their text.
HELD_OUT = 0.04


class Document(NamedTuple):
    """A document as its source has it."""

    text: str
    domain: str
    """Where it comes from. Mixtures weight domains; each has its own held-out loss."""
    held_out: bool = False
    """Whether the user named it as held-out text. When any document is marked, those
    that are marked are held out and no others."""


@dataclass(frozen=True)
class StagedSplit:
    """The documents of one split, in the order in which they are written."""

    numbers: np.ndarray
    """int64: their numbers in the staging file."""
    domains: np.ndarray
    """int64: the number of each document's domain."""
    bytes: np.ndarray
    """int64: UTF-8 bytes of each document."""


class StagingFile:
    """Collects cleaned documents in one file.

    Only a hash, a size and a domain per document stay in memory. Documents whose words
    are equal, whatever their case and white space, are kept once: the first one added.
    The documents come out sorted by hash, which mixes the files they came from and does
    not depend on the order in which they were added.
    """

    def __init__(self, path: Path):
        self._file = path.open("w+b", buffering=2**20)
        # 16 bytes per document.
        self._hashes = bytearray()
        self._sizes = array("q")
        self._held_out = bytearray()
        self._domains = array("i")
        # Domains are numbered in the order in which they first occur.
        self._domain_numbers: dict[str, int] = {}

    def __enter__(self) -> "StagingFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, document: Document) -> None:
        """Add a document, unless it is empty once cleaned."""
        text = clean(document.text)
        if not text:
            return
        raw = text.encode()
        self._file.write(raw)
        self._hashes += bytes.fromhex(document_hash(text)[:32])
        self._sizes.append(len(raw))
        self._held_out.append(document.held_out)
        number = self._domain_numbers.setdefault(document.domain, len(self._domain_numbers))
        self._domains.append(number)

    def finish(self, source: str) -> "StagedDocuments":
        """Deduplicate, sort and split the documents.

        They can be read until this file is closed. Raises ValueError, naming `source`,
        for a domain with fewer than two documents, one to train on and one to hold out.
        """
        self._file.flush()
        # Big-endian halves of the hash: sorting by the pair sorts by the hash itself.
        hashes = np.frombuffer(bytes(self._hashes), ">u8").reshape(-1, 2).astype(np.uint64)
        named = np.frombuffer(bytes(self._held_out), np.bool_)
        # lexsort is stable, so of equal documents the first one added is kept; but one
        # that is also held-out text must not be trained on.
        order = np.lexsort((~named, hashes[:, 1], hashes[:, 0]))
        first = np.ones(len(order), bool)
        first[1:] = (hashes[order][1:] != hashes[order][:-1]).any(axis=1)
        order = order[first]
        names = sorted(self._domain_numbers)
        domains = self._sorted_domain_numbers(names)
        if named.any():
            held_out = named[order]
            _check_text_to_train_on(source, held_out)
        else:
            _check_counts(source, names, domains[order])
            held_out = held_out_documents(hashes[order, 0], domains[order])
        mixed = order[~held_out]
        # Stable: within a domain, the documents stay in the order of their hashes.
        by_domain = mixed[np.argsort(domains[mixed], kind="stable")]
        sizes = np.asarray(self._sizes, np.int64)
        splits = {
            split: StagedSplit(numbers, domains[numbers], sizes[numbers])
            for split, numbers in (("train", by_domain), ("validation", order[held_out]))
        }
        return StagedDocuments(
            file=self._file.fileno(),
            offsets=np.cumsum(sizes) - sizes,
            sizes=sizes,
            domains=names,
            splits=splits,
            mixed=mixed,
            duplicates=int((~first).sum()),
        )

    def _sorted_domain_numbers(self, names: list[str]) -> np.ndarray:
        """int64: for every document, the index of its domain in the sorted `names`."""
        if not names:
            return np.zeros(0, np.int64)
        renumbering = np.array([names.index(name) for name in self._domain_numbers], np.int64)
        return renumbering[np.asarray(self._domains, np.int64)]


@dataclass(frozen=True)
class StagedDocuments:
    """The documents of a finished `StagingFile`."""

    file: int
    """Descriptor of the file that holds their texts end to end."""
    offsets: np.ndarray
    """int64: byte offset of every document."""
    sizes: np.ndarray
    """int64: UTF-8 bytes of every document."""
    domains: list[str]
    """Names of the domains, sorted."""
    splits: dict[str, StagedSplit]
    """`train`, sorted by domain and then by hash, and `validation`, sorted by hash. The
    beginning of `validation` is therefore a sample of all domains."""
    mixed: np.ndarray
    """int64: the documents of `train` sorted by hash only, to train a tokenizer on."""
    duplicates: int
    """Documents that were dropped because their words equal those of another one."""

    def texts(self, numbers: Iterable[int]) -> Iterator[str]:
        """The texts of these documents."""
        for number in numbers:
            size, offset = int(self.sizes[number]), int(self.offsets[number])
            yield os.pread(self.file, size, offset).decode()


def clean(text: str) -> str:
    r"""Remove what is invisible and keep the words.

    Line ends become Unix line ends. Control characters other than newline and tab, and
    blanks at line ends are dropped. At most one blank line in a row is kept.

    >>> clean("one \r\n\r\n\r\ntwo\x00 ")
    'one\n\ntwo'
    """
    text = re.sub(r"\r\n?", "\n", text)
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f\ufeff]", "", text)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def document_hash(document: str) -> str:
    """Hash of a document's words, whatever their case and the white space between them.

    >>> document_hash("One  two") == document_hash("one\\nTWO")
    True
    """
    return hashlib.sha256(" ".join(document.casefold().split()).encode()).hexdigest()


def held_out_documents(hashes: np.ndarray, domains: np.ndarray) -> np.ndarray:
    """bool: which documents, sorted by hash, are held out.

    Those whose hash lies in the lowest 4% are, so a document's split does not depend on
    the other documents. The one exception makes sure that both splits have every
    domain: the lowest hash of a domain is always held out, and the highest never.
    """
    # The upper 48 bits fit into a float64 without rounding.
    held_out = (hashes >> np.uint64(16)) / 2**48 < HELD_OUT
    for domain in np.unique(domains):
        members = np.flatnonzero(domains == domain)
        held_out[members[0]], held_out[members[-1]] = True, False
    return held_out


def _check_text_to_train_on(source: str, held_out: np.ndarray) -> None:
    if held_out.all():
        raise ValueError(
            f"all documents of {source!r} are held-out text, too, so nothing is left to train "
            "on; name other files in Data.validation"
        )


def _check_counts(source: str, names: list[str], domains: np.ndarray) -> None:
    counts = np.bincount(domains, minlength=len(names)).tolist()
    # A source without any document has no domain to name.
    for name, count in zip(names or ["text"], counts or [0], strict=True):
        if count < 2:
            raise ValueError(
                f"the corpus {source!r} holds {count} document(s) of {name}; at least 2 are "
                "needed, one to train on and one to hold out; a document is a record, or about "
                "2,048 characters of a text file up to the next blank line"
            )
