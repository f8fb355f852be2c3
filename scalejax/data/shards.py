"""Token shards: a corpus written once as flat token ids with a manifest, memory-mapped and checked ever after."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scalejax.config import Data
from scalejax.data import sources, synthetic, token_files, writer
from scalejax.data.packing import Tokens
from scalejax.data.progress import say
from scalejax.data.records import documents
from scalejax.data.staging import HELD_OUT
from scalejax.data.tokenizers import Tokenizer, restore, saved
from scalejax.files import FORMAT, read_json, sha256, sync, write_json


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
    ) -> Tokens:
        """The tokens of a split, of `train` also those of one domain, to be packed as `Data.packing` says.

        Raises ValueError when `documents` are asked for and no token ends one.
        """
        ids = self.train if split == "train" else self.validation
        span = self._span(domain) if domain is not None else slice(None)
        if packing == "concatenate":
            return Tokens(ids[span])
        end, path = self.manifest["tokenizer"]["end"], self.folder / f"{split}_{writer.COUNTED}.bin"
        if end is None:
            raise ValueError(
                f"Data.packing='documents' needs a token that ends a document, and {self.manifest['source']} has none: say "
                "packing='concatenate' or, for .bin files, the tokenizer that made the ids instead of `ids:V`"
            )
        return Tokens(ids, end, np.memmap(path, np.uint8, "r") if path.is_file() else None)[span]

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


def prepare(data: Data, cache: Path | None = None) -> Shards:
    """The shards of `data`: opened when they were written before, else written once, whole or not at all.

    `cache` defaults to $SCALEJAX_CACHE, else $XDG_CACHE_HOME/scalejax/data, else ~/.cache/scalejax/data. Processes that ask for
    the same shards at the same time wait for the first. Raises ValueError for a source or tokenizer that cannot be read, and for
    shards that were changed since they were written.
    """
    path = Path(data.source).expanduser()
    if (path / "manifest.json").is_file():
        if data.tokenizer != "own":
            raise ValueError(
                f"the shards in {data.source} bring their own tokenizer: say tokenizer='own'; got {data.tokenizer!r}"
            )
        return open_shards(path)
    if token_files.is_binary(data.source):
        train, validation, starts, manifest, model = token_files.open_binaries(data)
        return Shards(path, train, validation, starts, np.zeros_like(starts), manifest, model)
    cache = Path(cache or default_cache())
    folder = cache / _key(data)
    with _locked(cache / f"{folder.name}.lock"):
        if not folder.exists():
            _write(folder, data.source, lambda scratch: _fill(data, scratch, cache / "wheels"))
    return open_shards(folder)


def epochs(data: Data, tokens: float, cache: Path | None = None) -> float | None:
    """How often `tokens` training tokens read the domain that they read most often; None when `data` was not prepared yet.

    From the manifest alone: nothing is prepared or checked.
    """
    path = Path(data.source).expanduser()
    folder = (
        path if (path / "manifest.json").is_file() else Path(cache or default_cache()) / _key(data)
    )
    if token_files.is_binary(data.source) or not (folder / "manifest.json").is_file():
        return None
    manifest = read_json(folder / "manifest.json")
    there = {name: domain["train"] for name, domain in manifest["domains"].items()}
    shares = (
        data.weights
        or manifest["shares"]
        or {name: size / sum(there.values()) for name, size in there.items()}
    )
    return max(tokens * share / max(there.get(name, 0), 1) for name, share in shares.items())


def write(
    records: Iterable[Mapping[str, Any]],
    folder: Path,
    *,
    tokenizer: str,
    field: str = "text",
    domain: str = "",
) -> Shards:
    """Shards in a new folder out of anything that gives dicts: a Hugging Face dataset, a generator, a list.

    The folder is then a source: Data(source=folder, tokenizer="own"). `field` holds the text of a record, `domain` (when given)
    its domain; `tokenizer` as in Data. Raises ValueError with the number of the record that cannot be used, and when the folder
    exists.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists: name a new folder")
    data = Data(source=str(folder), tokenizer=tokenizer, field=field, domain=domain)
    placed = ((f"record {number}", record) for number, record in enumerate(records))
    found = sources.Corpus(
        documents(placed, field=field, domain=domain, default="text"),
        "as of the records given",
        "records",
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    _write(folder, data.source, lambda scratch: writer.write_text(data, found, scratch))
    return open_shards(folder)


def export(data: Data, folder: Path) -> Shards:
    """The shards of `data` copied to a folder of one's own, which is then a source: Data(source=folder, tokenizer="own").

    Raises ValueError when the folder exists and holds anything else, and for .bin files, which are used as they are.
    """
    shards = prepare(data)
    if token_files.is_binary(data.source):
        raise ValueError(
            f"{data.source} needs no preparation: name it as Data.source, with its tokenizer"
        )
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent)
        shutil.copytree(shards.folder, scratch, dirs_exist_ok=True)
        Path(scratch).rename(folder)
    if not (folder / "manifest.json").is_file() or open_shards(folder).hash != shards.hash:
        raise ValueError(
            f"{folder} exists and holds something else than the shards of {data.source}: name a new folder"
        )
    return open_shards(folder)


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
    if manifest["hash"] != _content_hash(manifest):
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


def default_cache() -> Path:
    """$SCALEJAX_CACHE, else scalejax/data in $XDG_CACHE_HOME or ~/.cache."""
    if "SCALEJAX_CACHE" in os.environ:
        return Path(os.environ["SCALEJAX_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "scalejax", "data")


def _fill(data: Data, scratch: Path, wheels: Path) -> dict[str, Any]:
    if synthetic.is_synthetic(data.source):
        return writer.write_synthetic(data, scratch)
    if data.source.startswith("seqio:"):
        return writer.write_tokens(data, scratch)
    return writer.write_text(data, sources.read(data, wheels), scratch)


def _write(folder: Path, source: str, fill: Callable[[Path], dict[str, Any]]) -> None:
    """Has `fill` write the files into a scratch folder and takes its manifest; the folder appears when all is on the disk."""
    with _scratch(folder) as scratch:
        manifest: dict[str, Any] = {"source": source} | fill(scratch)
        manifest["files"] = {path.name: sha256(path) for path in sorted(scratch.iterdir())}
        for name in manifest["files"]:
            sync(scratch / name)
        write_json(scratch / "manifest.json", manifest | {"hash": _content_hash(manifest)})
        scratch.chmod(0o755)  # mkdtemp's folders are private; shards may be shared
        if folder.exists():
            raise ValueError(
                f"{folder} appeared while it was being written: another process wrote it; name a new folder"
            )
        scratch.rename(folder)
    tokens = manifest["tokens"]
    say(
        f"prepared {source}: {tokens['train']:,} tokens to train on, {tokens['validation']:,} held out, in {folder}"
    )


def _key(data: Data) -> str:
    """Name of the folder: what was asked for, and the hash of everything that decides the content."""
    if synthetic.is_synthetic(data.source):
        name, content = data.source.replace(":", "-"), synthetic.language(data.source).fingerprint()
    else:
        name, content = (
            re.sub(r"[^\w.-]+", "-", Path(data.source).stem),
            sources.fingerprint(data.source),
        )
    path = Path(data.tokenizer).expanduser()
    content += hashlib.sha256(saved(path)).hexdigest() if path.exists() else data.tokenizer
    content += f" {data.field} {data.domain}"
    return f"{name}-{hashlib.sha256(f'{FORMAT} {HELD_OUT} {content}'.encode()).hexdigest()[:16]}"


def _content_hash(manifest: dict) -> str:
    content = [manifest["files"], manifest["vocabulary"], manifest["dtype"]]
    if len(manifest["domains"]) > 1:  # of a single one there is nothing to say
        content += [manifest["domains"], list(manifest["domains"]), manifest["shares"]]
    content = json.dumps(content, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, locked by this process, and removed if it is still there at the end.

    What killed processes left there is removed first: a folder whose lock can be had has no living owner.
    """
    around = _lock(folder.parent)  # so that nobody sees the new folder before it is locked
    for abandoned in folder.parent.glob(f"{folder.name}.tmp-*"):
        with suppress(
            BlockingIOError, FileNotFoundError
        ):  # one that is at work, or has just finished
            os.close(_lock(abandoned, fcntl.LOCK_NB))
            shutil.rmtree(abandoned)
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
    own = _lock(scratch)
    os.close(around)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(own)


def _lock(path: Path, how: int = 0) -> int:
    """A descriptor that holds the lock of a file or folder until it is closed, by its process's end at the latest."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | how)
    except BlockingIOError:
        os.close(handle)
        raise
    return handle


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock falls with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    handle = _lock(path)
    try:
        yield
    finally:
        os.close(handle)
