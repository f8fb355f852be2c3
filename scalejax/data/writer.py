"""Writes shards into an empty folder: token ids and the index of documents."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from scalejax.data.progress import say, with_progress
from scalejax.data.shards import (
    LOSS_MASKS,
    VALIDATION_DOCUMENTS,
    VALIDATION_DOMAINS,
    Contents,
    Counts,
    token_dtype,
)
from scalejax.data.staging import Document, StagedDocuments, StagingFile
from scalejax.data.tokenizers import Tokenizer, lost_text, make_tokenizer

# Characters that are tokenized at once: enough to keep every core busy, in 200 MB of
# memory.
CHUNK_CHARACTERS = 2_000_000

# How much text is encoded and decoded, to find out whether it comes back.
TESTED_DOCUMENTS, TESTED_CHARACTERS = 200, 2_000
# Largest share of characters that may be lost. Tokenizers for one language lose a few
# rare ones; one that loses more was made for other text.
MOST_LOST = 0.01

# Share of the text, by bytes, above which held-out text is worth a warning. Of the
# documents 4% are held out; of a few long ones, it may be most of the text.
MUCH_HELD_OUT = 0.2


@dataclass(frozen=True)
class WrittenSplit:
    """The documents of a split that was written."""

    lengths: np.ndarray
    """Tokens of every document, its end token included."""
    domains: np.ndarray
    """Number of every document's domain."""
    bytes: np.ndarray | None
    """UTF-8 bytes of every document; None where they are not known."""


def write_text(
    documents: Iterable[Document],
    folder: Path,
    *,
    source: str,
    tokenizer_name: str,
    licence: str,
    attribution: str,
) -> Contents:
    """Clean, deduplicate, split and tokenize documents, and write their shards.

    `source` is the source's name in messages, `tokenizer_name` is `Data.tokenizer`.
    Memory stays below 200 bytes per document plus one chunk of text. The disk holds the
    cleaned text once more until the shards are written.
    """
    say(f"preparing {source} ({tokenizer_name}): reading text")
    staging_path = folder / "staging"
    with StagingFile(staging_path) as staging:
        for document in with_progress(documents, "reading"):
            staging.add(document)
        staged = staging.finish(source)
        _say_documents(staged, source, f"{attribution}; {licence}")
        # A tokenizer that is trained here sees the domains mixed, because it reads only
        # the beginning of a large corpus.
        training_texts = staged.texts(staged.mixed.tolist())
        tokenizer = make_tokenizer(tokenizer_name, training_texts)
        sample = staged.texts(staged.mixed[:TESTED_DOCUMENTS].tolist())
        _check_text_comes_back(tokenizer, tokenizer_name, source, sample)
        splits = {split: _write_split(staged, split, tokenizer, folder) for split in staged.splits}
    staging_path.unlink()
    (folder / "tokenizer.model").write_bytes(tokenizer.model)
    return {
        "licence": licence,
        "attribution": attribution,
        "tokenizer": {"name": tokenizer_name, "hash": tokenizer.hash, "end": tokenizer.end},
        "duplicates_dropped": staged.duplicates,
        "vocabulary": tokenizer.vocabulary,
        "dtype": token_dtype(tokenizer.vocabulary).name,
        **write_index(folder, splits, staged.domains),
        "shares": {},
        "entropy_rate": None,
    }


def _say_documents(staged: StagedDocuments, source: str, origin: str) -> None:
    """Print what was read of a source, and warn when much of it is held out."""
    train, held_out = staged.splits["train"], staged.splits["validation"]
    count = len(train.numbers) + len(held_out.numbers)
    twice = f" ({staged.duplicates:,} duplicates left out)" if staged.duplicates else ""
    say(f"preparing {source}: {count:,} documents{twice}; {origin}")
    share = held_out.bytes.sum() / (held_out.bytes.sum() + train.bytes.sum())
    if share > MUCH_HELD_OUT:
        say(
            f"warning: {share:.0%} of the text of {source}, {len(held_out.numbers):,} of {count:,} "
            "documents, is held out and not trained on; give more text, or shorter documents, or "
            "less text in Data.validation"
        )


def _check_text_comes_back(
    tokenizer: Tokenizer, name: str, source: str, texts: Iterable[str]
) -> None:
    """Refuse a tokenizer that loses the text; warn of one that loses a few characters.

    The bits per byte would otherwise divide the loss of the text that is left by the
    bytes of the whole text.
    """
    share, characters = lost_text(tokenizer, (text[:TESTED_CHARACTERS] for text in texts))
    message = (
        f"the tokenizer {name} loses {share:.2%} of the characters of {source}, among them "
        f"{characters!r}: they are missing when its ids are decoded"
    )
    if share > MOST_LOST:
        raise ValueError(f"{message}; use a tokenizer that covers this text, such as `byte`")
    if share:
        say(f"warning: {message}, but bits per byte count them as text")


def _write_split(
    staged: StagedDocuments, split: str, tokenizer: Tokenizer, folder: Path
) -> WrittenSplit:
    """Tokenize and write the documents of one split."""
    part = staged.splits[split]
    texts = with_progress(
        staged.texts(part.numbers.tolist()), f"tokenizing {split}", len(part.numbers)
    )
    with SplitFile(folder / f"{split}.bin", tokenizer.vocabulary, tokenizer.end) as file:
        for ids in _encode_in_chunks(texts, tokenizer):
            file.add(ids)
    return WrittenSplit(np.asarray(file.lengths, np.int64), part.domains, part.bytes)


def _encode_in_chunks(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    """The ids of every text; tokenizers use all cores for the texts of a chunk."""
    chunk, size = [], 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if size > CHUNK_CHARACTERS:
            yield from tokenizer.encode(chunk)
            chunk, size = [], 0
    yield from tokenizer.encode(chunk)


class SplitFile:
    """Write the token ids of one split.

    The file starts with an end token, and has one after every document. With
    `with_loss_mask`, a second file says which tokens count in the loss. Use it as a
    context manager; `lengths` has the tokens of every document, its end token included.
    """

    def __init__(self, path: Path, vocabulary: int, end: int, *, with_loss_mask: bool = False):
        self._path, self._vocabulary, self._end = path, vocabulary, end
        self._mask_path = path.with_name(LOSS_MASKS[path.stem]) if with_loss_mask else None
        self._dtype = token_dtype(vocabulary)
        self.lengths: list[int] = []

    def __enter__(self) -> "SplitFile":
        self._file: BinaryIO = self._path.open("wb", buffering=2**20)
        self._mask: BinaryIO | None = (
            self._mask_path.open("wb", buffering=2**20) if self._mask_path else None
        )
        # The end token in front makes the first document like every other one: its
        # first token, too, is predicted from an end token.
        self._file.write(np.array([self._end], self._dtype).tobytes())
        self._write_mask(prompt=0, others=1)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._mask:
            self._mask.close()

    def add(self, ids: np.ndarray, prompt: int = 0) -> None:
        """Add a document whose first `prompt` ids do not count in the loss.

        Raises ValueError for an id outside the vocabulary.
        """
        if len(ids) and not 0 <= ids.min() <= ids.max() < self._vocabulary:
            position = int(np.argmax((ids < 0) | (ids >= self._vocabulary)))
            raise ValueError(
                f"document {len(self.lengths)} of {self._path.stem} holds id {ids[position]} at "
                f"token {position}, but the vocabulary ends at {self._vocabulary - 1}; use the "
                "tokenizer that made these ids"
            )
        self._file.write(ids.astype(self._dtype).tobytes())
        self._file.write(np.array([self._end], self._dtype).tobytes())
        self._write_mask(prompt=prompt, others=len(ids) - prompt + 1)
        self.lengths.append(len(ids) + 1)

    def _write_mask(self, *, prompt: int, others: int) -> None:
        if self._mask:
            self._mask.write(b"\0" * prompt + b"\1" * others)


def write_index(folder: Path, splits: dict[str, WrittenSplit], domains: list[str]) -> Counts:
    """Write the index of the held-out documents, and count what the splits hold."""
    held_out = splits["validation"]
    # The first document starts after the end token at the front of the file.
    starts = np.cumsum(held_out.lengths) - held_out.lengths + 1
    sizes = np.zeros_like(starts) if held_out.bytes is None else held_out.bytes
    index = np.stack([starts, sizes], axis=1)
    index.astype(np.int64).tofile(folder / VALIDATION_DOCUMENTS)
    if len(domains) > 1:
        held_out.domains.astype(np.int64).tofile(folder / VALIDATION_DOMAINS)
    tokens = {
        split: np.bincount(part.domains, part.lengths, minlength=len(domains)).astype(int).tolist()
        for split, part in splits.items()
    }
    return {
        "documents": {split: len(part.lengths) for split, part in splits.items()},
        "bytes": {
            split: 0 if part.bytes is None else int(part.bytes.sum())
            for split, part in splits.items()
        },
        "tokens": {split: int(part.lengths.sum()) + 1 for split, part in splits.items()},
        "domains": {
            name: {split: tokens[split][number] for split in splits}
            for number, name in enumerate(domains)
        },
    }
