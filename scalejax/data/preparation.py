"""Prepares a corpus: written once as token shards in a cache, opened ever after."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scalejax.config import Data
from scalejax.data import writer
from scalejax.data.locking import locked, scratch_folder
from scalejax.data.progress import say
from scalejax.data.shards import Shards, content_hash, open_shards
from scalejax.data.sources import synthetic, text_files, token_files
from scalejax.data.sources.records import documents
from scalejax.data.staging import HELD_OUT
from scalejax.data.tokenizers import saved
from scalejax.files import FORMAT, read_json, sha256, sync, write_json


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
    with locked(cache / f"{folder.name}.lock"):
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
    found = text_files.Corpus(
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
    return writer.write_text(data, text_files.read(data, wheels), scratch)


def _write(folder: Path, source: str, fill: Callable[[Path], dict[str, Any]]) -> None:
    """Has `fill` write the files into a scratch folder and takes its manifest; the folder appears when all is on the disk."""
    with scratch_folder(folder) as scratch:
        manifest: dict[str, Any] = {"source": source} | fill(scratch)
        manifest["files"] = {path.name: sha256(path) for path in sorted(scratch.iterdir())}
        for name in manifest["files"]:
            sync(scratch / name)
        write_json(scratch / "manifest.json", manifest | {"hash": content_hash(manifest)})
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
            text_files.fingerprint(data.source),
        )
    path = Path(data.tokenizer).expanduser()
    content += hashlib.sha256(saved(path)).hexdigest() if path.exists() else data.tokenizer
    content += f" {data.field} {data.domain}"
    return f"{name}-{hashlib.sha256(f'{FORMAT} {HELD_OUT} {content}'.encode()).hexdigest()[:16]}"
