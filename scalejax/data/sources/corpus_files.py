"""Which files of a folder are a corpus, and which of them its held-out text."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from scalejax.data.sources.records import is_records

TEXT_SUFFIXES = (".txt", ".md")

# Names of splits, as folders and files of published corpora have them.
SPLIT_NAMES: dict[str, Literal["train", "validation", "test"]] = {
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


def corpus_files(folder: Path) -> list[CorpusFile]:
    """The files of text and records below a folder, sorted by path.

    Hidden files and folders are left out, such as `.git` and `.ipynb_checkpoints`, and
    so are the README and the licence beside records. When names say that some files are
    for training or validation, those for validation are held out and those for a test
    are left out.
    """
    paths = list(_readable_files(folder))
    if any(map(is_records, paths)):
        # The card of a published data set lies beside its records and is no document.
        paths = [path for path in paths if is_records(path) or not DESCRIPTIONS.match(path.name)]
    splits = {path: _split(path.relative_to(folder)) for path in paths}
    # Without text to train on, or when `test` is the only name, names say nothing.
    named = {"train", "validation"} & {*splits.values()}
    has_text_to_train_on = bool({"train", ""} & {*splits.values()})
    if not named or not has_text_to_train_on:
        return [CorpusFile(path, _domain(path.relative_to(folder)), False) for path in paths]
    return [
        CorpusFile(path, _domain(path.relative_to(folder), named=True), split == "validation")
        for path, split in splits.items()
        if split != "test"
    ]


def unread_files(folder: Path) -> list[Path]:
    """The files below a folder that hold neither text nor records, sorted by path.

    Hidden files, and those that describe a data set, are no part of a corpus.
    """
    return [
        path
        for path in _files(folder)
        if not _is_readable(path) and not DESCRIPTIONS.match(path.name)
    ]


def _readable_files(folder: Path) -> Iterator[Path]:
    return filter(_is_readable, _files(folder))


def _is_readable(path: Path) -> bool:
    return path.suffix in TEXT_SUFFIXES or is_records(path)


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder, sorted by path, without hidden files and folders."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file():
            yield path


def _split(path: Path) -> Literal["train", "validation", "test", ""]:
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
