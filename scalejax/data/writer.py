"""Shards written into an empty folder: from text, from tokens that exist, from a synthetic language. Each gives its manifest."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from scalejax.config import Data
from scalejax.data.progress import say, watched
from scalejax.data.sources import seqio_tfds, synthetic, text_files
from scalejax.data.staging import HELD_OUT, Spool
from scalejax.data.tokenizers import Tokenizer, tokenizer

INDEX = "validation_documents"  # int64 [documents, 2]: token offset and UTF-8 bytes of every held-out document
COUNTED = "counted"  # uint8 [tokens] of each split: 0 for a token of a prompt; there when the source has prompts
DOMAINS = "validation_domains"  # int64 [documents]: number of its domain; there when the corpus has several
CHUNK = 2_000_000  # characters encoded at once: enough for every core, 200 MB of memory


def write_text(data: Data, corpus: text_files.Corpus, folder: Path) -> dict[str, Any]:
    """Text shards: read, cleaned and deduplicated into a spool on the disk, then tokenized in its order.

    Memory is below 200 bytes a document and the chunk at hand; the disk holds the cleaned text once more
    until the shards are written.
    """
    say(f"preparing {data.source} ({data.tokenizer}): reading text")
    with Spool(folder / "spool") as spool:
        for document in watched(corpus.documents, "reading"):
            spool.add(document)
        documents = spool.close(data.source)
        count = sum(len(part.places) for part in documents.splits.values())
        say(f"preparing {data.source}: {count:,} documents; {corpus.attribution}; {corpus.licence}")
        tokens = tokenizer(data.tokenizer, documents.texts(documents.mixed.tolist()))
        written = {}
        for name, part in documents.splits.items():
            texts = watched(
                documents.texts(part.places.tolist()), f"tokenizing {name}", len(part.places)
            )
            with SplitFile(folder / f"{name}.bin", tokens.vocabulary, tokens.end) as file:
                for ids in _encoded(texts, tokens):
                    file.add(ids)
            written[name] = Written(np.asarray(file.lengths, np.int64), part.domains, part.bytes)
    (folder / "spool").unlink()
    (folder / "tokenizer.model").write_bytes(tokens.model)
    return {
        "licence": corpus.licence,
        "attribution": corpus.attribution,
        "tokenizer": {"name": data.tokenizer, "hash": tokens.hash, "end": tokens.end},
        "duplicates_dropped": documents.duplicates,
    } | _counted(folder, written, documents.domains, tokens.vocabulary)


def write_tokens(data: Data, folder: Path) -> dict[str, Any]:
    """Shards of a seqio Task or Mixture, in its own ids; each task is a domain, and a Mixture's rates become shares of tokens.

    Held out are the examples of validation splits; of tasks without one, 4% by the hash of the ids.
    """
    if data.tokenizer != "own":
        raise ValueError(
            f"{data.source} brings its own vocabulary: say tokenizer='own'; got {data.tokenizer!r}"
        )
    say(f"preparing {data.source}: reading examples")
    source = seqio_tfds.seqio_tokens(data.source)
    names = sorted(source.tasks)
    domains: list[int] = []
    held_out: list[tuple[bytes, int, seqio_tfds.Example]] = []
    with SplitFile(
        folder / "train.bin", source.vocabulary, source.end, prompts=source.prompts
    ) as train:
        for number, name in enumerate(names):
            for to_train, digest, example in _examples(source.tasks[name], name):
                if to_train:
                    train.add(*example)
                    domains.append(number)
                else:
                    held_out.append((digest, number, example))
            if number not in domains or number not in {number for _, number, _ in held_out}:
                raise ValueError(
                    f"{data.source}: {name} has too few examples to train on some and hold out others; add more"
                )
    held_out.sort(key=lambda item: item[:2])  # tasks mixed: the beginning is a sample of the whole
    with SplitFile(
        folder / "validation.bin", source.vocabulary, source.end, prompts=source.prompts
    ) as validation:
        for _, _, example in held_out:
            validation.add(*example)
    (folder / "tokenizer.model").write_bytes(source.model)
    written = {
        "train": Written(np.array(train.lengths), np.array(domains), None),
        "validation": Written(
            np.array(validation.lengths), np.array([number for _, number, _ in held_out]), None
        ),
    }
    manifest = {
        "licence": "as of the seqio task",
        "attribution": data.source.removeprefix("seqio:"),
        "tokenizer": {
            "name": data.source,
            "hash": hashlib.sha256(source.model).hexdigest() if source.model else None,
            "end": source.end,
        },
        "duplicates_dropped": 0,
    }
    manifest |= _counted(folder, written, names, source.vocabulary)
    return manifest | {"shares": _shares(source.rates, names, written["train"])}


def _examples(task: seqio_tfds.Task, name: str) -> Iterator[tuple[bool, bytes, seqio_tfds.Example]]:
    """(to train on, hash, example) of every example of a task."""
    for example in watched(task.train(), name):
        digest = hashlib.sha256(example.ids.tobytes()).digest()
        yield (
            task.validation is not None or int.from_bytes(digest[:8]) / 2**64 >= HELD_OUT,
            digest,
            example,
        )
    for example in watched(task.validation(), f"{name}, validation") if task.validation else ():
        yield False, hashlib.sha256(example.ids.tobytes()).digest(), example


def write_synthetic(data: Data, folder: Path) -> dict[str, Any]:
    """Shards of the language `synthetic:V`."""
    if data.tokenizer != "own":
        raise ValueError(
            f"{data.source} is made of tokens already: say tokenizer='own'; got {data.tokenizer!r}"
        )
    language = synthetic.language(data.source)
    say(f"preparing {data.source}: drawing {synthetic.TRAIN_TOKENS:,} tokens")
    splits = dict(zip(("train", "validation"), synthetic.splits(language), strict=True))
    for name, tokens in splits.items():
        tokens.astype(np.uint16).tofile(folder / f"{name}.bin")
    starts = np.arange(0, len(splits["validation"]), synthetic.DOCUMENT_TOKENS)
    np.stack([starts, np.zeros_like(starts)], axis=1).astype(np.int64).tofile(
        folder / f"{INDEX}.bin"
    )
    counts = {name: len(tokens) for name, tokens in splits.items()}
    return {
        "licence": "CC0-1.0",
        "attribution": "drawn by scalejax",
        "tokenizer": {"name": "own", "hash": None, "end": None},
        "vocabulary": language.symbols,
        "dtype": "uint16",
        "duplicates_dropped": 0,
        "documents": {
            name: -(-count // synthetic.DOCUMENT_TOKENS) for name, count in counts.items()
        },
        "bytes": dict.fromkeys(splits, 0),
        "tokens": counts,
        "domains": {"synthetic": counts},
        "shares": {},
        "entropy_rate": language.entropy_rate(),
    }


def token_dtype(vocabulary: int) -> np.dtype:
    """uint16 for up to 65,536 ids, uint32 for more."""
    return np.dtype(np.uint16 if vocabulary <= 2**16 else np.uint32)


@dataclass(frozen=True)
class Written:
    """One split as it was written."""

    lengths: np.ndarray
    """Tokens of every document, its end included."""
    domains: np.ndarray
    """Number of its domain."""
    bytes: np.ndarray | None
    """UTF-8 bytes of every document; None where they are not known."""


class SplitFile:
    """Token ids of one split: an end of document first, and one after every document; with `prompts`, which of them count."""

    def __init__(self, path: Path, vocabulary: int, end: int, *, prompts: bool = False):
        self._path, self._vocabulary, self._end = path, vocabulary, end
        self._counted_path = path.with_name(f"{path.stem}_{COUNTED}.bin") if prompts else None
        self._dtype = token_dtype(vocabulary)
        self.lengths: list[int] = []

    def __enter__(self) -> "SplitFile":
        self._file: BinaryIO = self._path.open("wb", buffering=2**20)
        self._file.write(np.array([self._end], self._dtype).tobytes())
        self._counted: BinaryIO | None = (
            self._counted_path.open("wb", buffering=2**20) if self._counted_path else None
        )
        self._count(prompt=0, others=1)
        return self

    def __exit__(self, *_) -> None:
        self._file.close()
        if self._counted:
            self._counted.close()

    def add(self, ids: np.ndarray, prompt: int = 0) -> None:
        """One document, of which the first `prompt` ids do not count. Raises ValueError for an id outside the vocabulary."""
        if len(ids) and not 0 <= ids.min() <= ids.max() < self._vocabulary:
            at = int(np.argmax((ids < 0) | (ids >= self._vocabulary)))
            raise ValueError(
                f"document {len(self.lengths)} of {self._path.stem} holds id {ids[at]} at token {at}; "
                f"the vocabulary ends at {self._vocabulary - 1}: the tokenizer is not the one that made these ids"
            )
        self._file.write(ids.astype(self._dtype).tobytes())
        self._file.write(np.array([self._end], self._dtype).tobytes())
        self._count(prompt=prompt, others=len(ids) - prompt + 1)
        self.lengths.append(len(ids) + 1)

    def _count(self, *, prompt: int, others: int) -> None:
        if self._counted:
            self._counted.write(b"\0" * prompt + b"\1" * others)


def _encoded(texts: Iterable[str], tokens: Tokenizer) -> Iterator[np.ndarray]:
    chunk, size = [], 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if size > CHUNK:
            yield from tokens.encode(chunk)
            chunk, size = [], 0
    yield from tokens.encode(chunk)


def _counted(
    folder: Path, written: dict[str, Written], domains: list[str], vocabulary: int
) -> dict[str, Any]:
    """Writes the index of the held-out documents and gives the counts of the manifest."""
    held_out = written["validation"]
    starts = np.cumsum(held_out.lengths) - held_out.lengths + 1
    sizes = np.zeros_like(starts) if held_out.bytes is None else held_out.bytes
    np.stack([starts, sizes], axis=1).astype(np.int64).tofile(folder / f"{INDEX}.bin")
    if len(domains) > 1:
        held_out.domains.astype(np.int64).tofile(folder / f"{DOMAINS}.bin")
    tokens = {
        name: np.bincount(part.domains, part.lengths, minlength=len(domains)).astype(int).tolist()
        for name, part in written.items()
    }
    return {
        "vocabulary": vocabulary,
        "dtype": token_dtype(vocabulary).name,
        "documents": {name: len(part.lengths) for name, part in written.items()},
        "bytes": {
            name: 0 if part.bytes is None else int(part.bytes.sum())
            for name, part in written.items()
        },
        "tokens": {name: int(part.lengths.sum()) + 1 for name, part in written.items()},
        "domains": {
            name: {split: tokens[split][i] for split in written} for i, name in enumerate(domains)
        },
        "shares": {},
        "entropy_rate": None,
    }


def _shares(rates: dict[str, float], names: list[str], train: Written) -> dict[str, float]:
    """A Mixture's rates count examples; shares count tokens: rate times the mean length of the task's examples."""
    if len(names) < 2:
        return {}
    tokens, examples = (np.bincount(train.domains, weights) for weights in (train.lengths, None))
    shares = {name: rates[name] * tokens[i] / examples[i] for i, name in enumerate(names)}
    return {name: float(share / sum(shares.values())) for name, share in shares.items()}
