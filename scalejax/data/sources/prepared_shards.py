"""Folders of shards that were prepared before, by the command line or by `write`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from scalejax.config import Data
from scalejax.data.shards import Shards, open_shards
from scalejax.data.sources.source import ReadySource


@dataclass(frozen=True)
class PreparedShards(ReadySource):
    """A folder with a manifest.json and the shards that it lists."""

    folder: Path

    brings_tokenizer: ClassVar[bool] = True

    def open(self, data: Data) -> Shards:
        return open_shards(self.folder)
