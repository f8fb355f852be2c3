"""What a data source is: the base classes of every kind that `Data.source` can name."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from scalejax.config import Data
from scalejax.data.shards import Contents, Shards
from scalejax.data.sources.records import OnError, UnusableRecords, raise_error
from scalejax.data.staging import Document
from scalejax.data.writer import write_text


@dataclass(frozen=True)
class Source(ABC):
    """Where a run's tokens come from: `Data.source`, parsed by `parse_source`.

    A kind of source is either prepared once, by writing shards into the cache
    (`CachedSource`), or it consists of token ids that are used where they lie
    (`ReadySource`). To add a kind, subclass one of these in a module of this folder and
    give it a line in `parse_source`.
    """

    name: str
    """`Data.source` as the user wrote it: kept in manifests and shown in messages."""

    brings_tokenizer: ClassVar[bool] = False
    """Whether the tokens exist already and their vocabulary is known, so that the only
    valid `Data.tokenizer` is "own"."""


@dataclass(frozen=True)
class CachedSource(Source):
    """A source that is written to shards in the cache before it is first used."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the source's content: the cache holds one folder per fingerprint.

        Raises ValueError when the source does not exist or cannot be read.
        """

    @abstractmethod
    def write(self, data: Data, folder: Path, cache: Path) -> Contents:
        """Write the shards into an empty folder and describe them for the manifest.

        `cache` is where a source keeps what it downloads. Raises ValueError, with the
        file and the place in it, for content that cannot be used.
        """


@dataclass(frozen=True)
class TextSource(CachedSource):
    """A source of text, which is cleaned, deduplicated, split and tokenized."""

    held_out: "TextSource | None" = field(default=None, kw_only=True)
    """The source that `Data.validation` names, if it names one."""

    @property
    @abstractmethod
    def licence(self) -> str:
        """Terms under which the text may be used."""

    @property
    @abstractmethod
    def attribution(self) -> str:
        """Whom to name, and where the text was taken from."""

    @abstractmethod
    def documents(
        self, data: Data, cache: Path, on_error: OnError = raise_error
    ) -> Iterator[Document]:
        """The documents, unchanged, as a stream. Raises ValueError as `write` does."""

    def write(self, data: Data, folder: Path, cache: Path) -> Contents:
        unusable = UnusableRecords(skip=data.skip_bad)
        contents = write_text(
            self._all_documents(data, cache, unusable.handle),
            folder,
            source=self.name,
            tokenizer_name=data.tokenizer,
            licence=self.licence,
            attribution=self.attribution,
        )
        return unusable.counted(contents)

    def _all_documents(self, data: Data, cache: Path, on_error: OnError) -> Iterator[Document]:
        """The documents of this source and those of `held_out`."""
        documents = self.documents(data, cache, on_error)
        if self.held_out is None:
            yield from documents
            return
        # Text that the source itself calls `validation` is neither trained on nor
        # measured: the user has named other held-out text.
        yield from (document for document in documents if not document.held_out)
        has_text = False
        for document in self.held_out.documents(data, cache, on_error):
            has_text = True
            yield document._replace(held_out=True)
        if not has_text:
            raise ValueError(f"Data.validation {data.validation!r} holds no text; give other text")


@dataclass(frozen=True)
class ReadySource(Source):
    """A source of token ids that needs no preparation: nothing is written or copied."""

    @abstractmethod
    def open(self, data: Data) -> Shards:
        """The ids, memory-mapped. Raises ValueError for files that are not such ids."""
