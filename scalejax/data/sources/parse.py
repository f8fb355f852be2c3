"""The one place that reads the string in `Data.source`."""

from pathlib import Path

from scalejax.data.sources.corpora import CORPORA, PackagedCorpus
from scalejax.data.sources.prepared_shards import PreparedShards
from scalejax.data.sources.seqio_tasks import SeqioTask
from scalejax.data.sources.source import CachedSource, ReadySource
from scalejax.data.sources.synthetic import Language, SyntheticSource
from scalejax.data.sources.text_files import TextFiles
from scalejax.data.sources.tfds_builders import TfdsBuilder
from scalejax.data.sources.token_files import TokenFiles


def parse_source(name: str) -> CachedSource | ReadySource:
    """The source that `Data.source` names.

    Looks at the file system, because only the files in a folder tell whether it holds
    prepared shards, token ids or text. Raises ValueError for a name that is none of the
    known kinds, and for a path that does not exist.

    >>> parse_source("synthetic:64")
    SyntheticSource(name='synthetic:64', language=Language(symbols=64))
    """
    path = Path(name).expanduser()
    # Paths to token ids come first: a folder of shards that is called `english` is read
    # as shards. The manifest decides before train.bin does, since shards have a
    # train.bin too.
    if (path / "manifest.json").is_file():
        return PreparedShards(name, path)
    if path.suffix == ".bin" or (path / "train.bin").is_file():
        return TokenFiles(name, path)
    if name in CORPORA:
        return PackagedCorpus(name)
    kind, colon, rest = name.partition(":")
    if kind == "synthetic" and colon:
        return SyntheticSource(name, _language(name, rest))
    if kind == "seqio" and colon:
        return _seqio_task(name, rest)
    if kind == "tfds" and colon:
        return TfdsBuilder(name, rest)
    if path.is_file() or path.is_dir():
        return TextFiles(name, path)
    raise ValueError(
        f"Data.source {name!r} is not a known source, and no such file or folder exists in "
        f"{Path.cwd()}; use `english`, `mini`, `mini:code`, `mini:documentation`, `synthetic:V`, "
        "`seqio:MODULE:TASK`, `tfds:NAME`, or the path of a file or folder"
    )


def _language(name: str, symbols: str) -> Language:
    if not symbols.isdecimal():
        raise ValueError(
            f"Data.source {name!r} does not give a number of symbols; write `synthetic:V`, "
            "for instance `synthetic:64`"
        )
    return Language(int(symbols))


def _seqio_task(name: str, rest: str) -> SeqioTask:
    module, _, task = rest.partition(":")
    if not module or not task:
        raise ValueError(
            f"Data.source {name!r} does not name a module and a task; write "
            "`seqio:MODULE:TASK`, where importing MODULE registers the Task or Mixture TASK"
        )
    return SeqioTask(name, module, task)
