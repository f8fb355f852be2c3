"""Which files of a folder are a corpus, and which of them its held-out text."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from scalejax.data.sources.records import is_records

TEXT_SUFFIXES = (".txt", ".md")

Split = Literal["train", "validation", "test", ""]

# Names of splits, as folders and files of published corpora have them.
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}

# The name of a folder or text file that is a split: `train`, `train-00000-of-00010`.
SPLIT_NAME = re.compile(rf"({'|'.join(SPLIT_NAMES)})([-_.]?\d+([-_.]of[-_.]\d+)?)?", re.IGNORECASE)

# Files that describe a folder of records and are no part of it.
DESCRIPTIONS = re.compile(r"(readme|licen[cs]e|notice|citation)\b.*", re.IGNORECASE)


class CorpusFile(NamedTuple):
    """A file of a corpus."""

    path: Path
    domain: str
    """The first folder below the source in which the file lies, or else `text`."""
    held_out: bool
    """Whether its name, or that of its folder, says that it is validation text."""


class Corpus(NamedTuple):
    """What a folder holds, every list sorted by path."""

    files: list[CorpusFile]
    """Text and records, to train on or held out."""
    tests: list[Path]
    """Left out, because their names say that they are for a test."""
    unread: list[Path]
    """Neither text nor records, and no description of the data set."""


def list_corpus(folder: Path) -> Corpus:
    """List the files below a folder.

    Hidden files and folders are left out, such as `.git` and `.ipynb_checkpoints`, and
    so are the README and the licence beside records. When names say that some files are
    for training or validation, those for validation are held out and those for a test
    are left out.

    Raises ValueError for what would be left out silently; see `_files`.
    """
    paths = list(_files(folder))
    readable = [path for path in paths if _is_readable(path)]
    unread = [p for p in paths if not _is_readable(p) and not DESCRIPTIONS.match(p.name)]
    if any(map(is_records, readable)):
        # The card of a published data set lies beside its records and is no document.
        readable = [p for p in readable if is_records(p) or not DESCRIPTIONS.match(p.name)]
    splits: dict[Path, Split] = {p: _split(p.relative_to(folder)) for p in readable}
    named = _names_say_splits(splits)
    files, tests = [], []
    for path, split in splits.items():
        if named and split == "test":
            tests.append(path)
        else:
            domain = _domain(path.relative_to(folder), named=named)
            files.append(CorpusFile(path, domain, held_out=named and split == "validation"))
    return Corpus(files, tests, unread)


def _names_say_splits(splits: dict[Path, Split]) -> bool:
    """Whether the names of files divide them into splits.

    Without text to train on, or when `test` is the only name, they say nothing.
    """
    named = {*splits.values()}
    return bool({"train", "validation"} & named) and bool({"train", ""} & named)


def _is_readable(path: Path) -> bool:
    return path.suffix in TEXT_SUFFIXES or is_records(path)


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder, sorted by path, without hidden files and folders.

    Raises ValueError for what would be left out silently: a link to a folder, or to
    nothing, and a folder that cannot be read.
    """
    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.is_symlink() and not path.is_file():
            raise ValueError(
                f"{path} is a link to {os.readlink(path)}, which is no file: links to folders are "
                "not followed; move or copy the folder here, or remove the link"
            )
        if path.is_file():
            yield path
        elif path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
            raise ValueError(f"the folder {path} cannot be read; change its permissions")


def _split(path: Path) -> Split:
    """The split that the name of a file, or of a folder that it is in, says."""
    for part in path.parts[:-1]:
        if match := SPLIT_NAME.fullmatch(part):
            return SPLIT_NAMES[match[1].lower()]
    name = path.name.removesuffix(path.suffix)
    if match := SPLIT_NAME.fullmatch(name):
        return SPLIT_NAMES[match[1].lower()]
    if is_records(path):
        # Names of records are longer: `c4-validation.00000-of-00008.json.gz`. A text
        # file may well be about a test.
        for word in re.split(r"[^a-z]+", path.name.lower()):
            if word in SPLIT_NAMES:
                return SPLIT_NAMES[word]
    return ""


def _domain(path: Path, *, named: bool = False) -> str:
    """The first folder on the path; with `named`, folders of splits do not count."""
    folders = [part for part in path.parts[:-1] if not (named and SPLIT_NAME.fullmatch(part))]
    return folders[0] if folders else "text"
