"""Prepares corpora: a source is written to shards once, and opened from then on."""

import dataclasses
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from scalejax.config import Data
from scalejax.data.batches import check_mixture
from scalejax.data.locking import locked, scratch_folder
from scalejax.data.progress import say
from scalejax.data.shards import (
    Contents,
    Manifest,
    Shards,
    manifest_hash,
    open_shards,
    read_manifest,
)
from scalejax.data.sources.parse import parse_source
from scalejax.data.sources.prepared_shards import PreparedShards
from scalejax.data.sources.records import UnusableRecords, documents
from scalejax.data.sources.source import CachedSource, ReadySource, TextSource
from scalejax.data.sources.text_files import TextFiles
from scalejax.data.sources.token_files import TokenFiles
from scalejax.data.staging import HELD_OUT
from scalejax.data.tokenizers import is_path, read_model
from scalejax.data.writer import write_text
from scalejax.files import FORMAT, sha256, sync, write_json


def prepare(data: Data, cache: Path | None = None) -> Shards:
    """The shards of `data`, written on first use and opened afterwards.

    `cache` defaults to `default_cache()`. When several processes ask for the same
    shards at the same time, one writes them and the others wait. Shards appear complete
    or not at all. Raises ValueError for a source or tokenizer that cannot be read, and
    for shards that were changed since they were written.
    """
    source = source_of(data)
    if source.brings_tokenizer and data.tokenizer != "own":
        raise ValueError(
            f"{data.source} brings its own tokenizer or vocabulary, so Data.tokenizer must be "
            f"'own'; got {data.tokenizer!r}: set tokenizer='own'"
        )
    if isinstance(source, ReadySource):
        return source.open(data)
    cache = cache or default_cache()
    folder = cache / cache_name(source, data)
    with locked(cache / f"{folder.name}.lock"):
        if not folder.exists():
            _write_folder(folder, source.name, lambda scratch: source.write(data, scratch, cache))
    return open_shards(folder)


def write(
    records: Iterable[Mapping[str, object]],
    folder: Path,
    *,
    tokenizer: str,
    field: str = "text",
    domain: str = "",
    skip_bad: bool = False,
) -> Shards:
    """Write shards from any iterable of dicts, for instance a Hugging Face dataset.

    The new folder is then a source: `Data(source=str(folder), tokenizer="own")`.
    `field` is the field of a record that holds its text, `domain` (if not empty) the
    field that holds its domain; `tokenizer` and `skip_bad` are as in Data. Raises
    ValueError with the number of the record that cannot be used, and when the folder
    exists.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists already; name a new folder")
    # Data checks the arguments.
    data = Data(
        source=str(folder), tokenizer=tokenizer, field=field, domain=domain, skip_bad=skip_bad
    )
    unusable = UnusableRecords(skip=skip_bad)
    places = ((f"record {number}", record) for number, record in enumerate(records))
    texts = documents(places, field=field, domain=domain, default="text", on_error=unusable.handle)

    def write_files(scratch: Path) -> Contents:
        contents = write_text(
            texts,
            scratch,
            source=data.source,
            tokenizer_name=data.tokenizer,
            licence="as of the records given",
            attribution="records",
        )
        return unusable.counted(contents)

    folder.parent.mkdir(parents=True, exist_ok=True)
    _write_folder(folder, data.source, write_files)
    return open_shards(folder)


def export(data: Data, folder: Path) -> Shards:
    """Copy the shards of `data` to a folder, which is then a source.

    Read it with `Data(source=str(folder), tokenizer="own")`. Does nothing when the
    folder holds these shards already. Raises ValueError when it holds anything else,
    and for .bin files, which are used as they are.
    """
    shards = prepare(data)
    if not (shards.folder / "manifest.json").is_file():
        raise ValueError(
            f"{data.source} consists of token files, which need no preparation; use it as "
            "Data.source, with its tokenizer"
        )
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent)
        shutil.copytree(shards.folder, scratch, dirs_exist_ok=True)
        Path(scratch).rename(folder)
    if not (folder / "manifest.json").is_file() or open_shards(folder).hash != shards.hash:
        raise ValueError(
            f"{folder} exists and holds something else than the shards of {data.source}; name a "
            "new folder"
        )
    return open_shards(folder)


def epochs(data: Data, tokens: float, cache: Path | None = None) -> float | None:
    """How many times `tokens` training tokens read the domain that they repeat most.

    Reads only the manifest: nothing is prepared or checked. None when `data` has not
    been prepared yet or cannot be read here, and for .bin files, which have no
    manifest. Raises ValueError for a mixture of domains that the data do not have.
    """
    # A plan may be made on a machine that does not have the data. The machine that
    # trains reports a source that cannot be read.
    try:
        source = source_of(data)
        folder = _shards_folder(source, data, cache or default_cache())
    except ValueError:
        return None
    if folder is None or not (folder / "manifest.json").is_file():
        return None
    manifest = read_manifest(folder)
    sizes = {name: counts["train"] for name, counts in manifest["domains"].items()}
    total = sum(sizes.values())
    shares = (
        data.weights or manifest["shares"] or {name: size / total for name, size in sizes.items()}
    )
    check_mixture(data, sizes)
    # A domain may have held-out text only; training refuses it.
    return max(tokens * share / max(sizes[name], 1) for name, share in shares.items())


def default_cache() -> Path:
    """$SCALEJAX_CACHE, or else scalejax/data in $XDG_CACHE_HOME or in ~/.cache."""
    if "SCALEJAX_CACHE" in os.environ:
        return Path(os.environ["SCALEJAX_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "scalejax", "data")


def source_of(data: Data) -> CachedSource | ReadySource:
    """The source that `data` names, with its held-out text.

    Raises ValueError for a source that is not known, and when `Data.validation` is set
    for a source that brings its own held-out tokens.
    """
    source = parse_source(data.source)
    if not data.validation or isinstance(source, TokenFiles):
        return source
    try:
        held_out = parse_source(data.validation)
    except ValueError as error:
        raise ValueError(
            f"Data.validation {data.validation!r} is no file or folder in {Path.cwd()}; give the "
            "path of held-out text or records"
        ) from error
    if not isinstance(source, TextSource) or not isinstance(held_out, TextFiles):
        raise ValueError(
            f"Data.validation {data.validation!r} with the source {data.source!r}: held-out text "
            "can be named for a source of text, as a file or folder of text or records, and for "
            "a .bin file, as a .bin file; remove Data.validation, because every other source "
            "has its own held-out tokens"
        )
    return dataclasses.replace(source, held_out=held_out)


def check_files(data: Data) -> None:
    """Raise ValueError unless the files that `data` names are on this machine.

    What is in them is not checked.
    """
    source_of(data)
    if is_path(data.tokenizer):
        read_model(Path(data.tokenizer).expanduser())


def cache_name(source: CachedSource, data: Data) -> str:
    """Name of the folder of shards: the source's name and a hash.

    The hash covers what decides the shards: the source's content, the tokenizer, the
    fields that are read, what is held out, and the format of the files.
    """
    label = re.sub(r"[^\w.-]+", "-", Path(source.name).stem)
    tokenizer, path = data.tokenizer, Path(data.tokenizer).expanduser()
    if is_path(tokenizer) and path.exists():
        tokenizer = hashlib.sha256(read_model(path)).hexdigest()
    content = f"{source.fingerprint()}{tokenizer} {data.field} {data.domain}"
    if isinstance(source, TextSource) and source.held_out is not None:
        content += f" validation {source.held_out.fingerprint()}"
    if data.skip_bad:
        content += " skip_bad"
    digest = hashlib.sha256(f"{FORMAT} {HELD_OUT} {content}".encode()).hexdigest()
    return f"{label}-{digest[:16]}"


def _shards_folder(source: CachedSource | ReadySource, data: Data, cache: Path) -> Path | None:
    """Where the shards of a source are once prepared; None for token files."""
    if isinstance(source, PreparedShards):
        return source.folder
    return cache / cache_name(source, data) if isinstance(source, CachedSource) else None


def _write_folder(folder: Path, source: str, write_files: Callable[[Path], Contents]) -> None:
    """Create `folder` with the files that `write_files` writes, and their manifest.

    The folder appears under its name once everything is on the disk.
    """
    with scratch_folder(folder) as scratch:
        contents = write_files(scratch)
        files = {path.name: sha256(path) for path in sorted(scratch.iterdir())}
        for name in files:
            sync(scratch / name)
        manifest: Manifest = {"source": source, **contents, "files": files, "hash": ""}
        manifest["hash"] = manifest_hash(manifest)
        write_json(scratch / "manifest.json", {**manifest})
        # mkdtemp makes private folders, but other users may share the cache.
        scratch.chmod(0o755)
        if folder.exists():
            raise ValueError(
                f"{folder} appeared while it was being written: another process wrote it; name a "
                "new folder"
            )
        scratch.rename(folder)
    tokens = manifest["tokens"]
    say(
        f"prepared {source}: {tokens['train']:,} tokens to train on, "
        f"{tokens['validation']:,} held out, in {folder}"
    )
