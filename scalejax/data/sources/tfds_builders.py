"""Builders of TensorFlow Datasets, which is imported only when one is read."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scalejax.config import Data
from scalejax.data.sources.records import OnError, documents, raise_error
from scalejax.data.sources.source import TextSource
from scalejax.data.staging import Document


@dataclass(frozen=True)
class TfdsBuilder(TextSource):
    """`tfds:NAME/CONFIG:VERSION`: the train split of a builder on this machine."""

    builder: str
    """NAME/CONFIG:VERSION, as tfds.load takes it."""

    @property
    def licence(self) -> str:
        return "as of the tfds builder"

    @property
    def attribution(self) -> str:
        return self.builder

    def fingerprint(self) -> str:
        """Hash of the source's name; a version of a builder does not change."""
        return hashlib.sha256(self.name.encode()).hexdigest()

    def documents(
        self, data: Data, cache: Path, on_error: OnError = raise_error
    ) -> Iterator[Document]:
        """The documents; without `data.domain`, their domain is the builder's name."""
        places = (
            (f"tfds {self.builder}, example {number}", record)
            for number, record in enumerate(self._records())
        )
        name = self.builder.split("/")[0].split(":")[0]
        yield from documents(
            places, field=data.field, domain=data.domain, default=name, on_error=on_error
        )

    def _records(self) -> Iterator[dict[str, object]]:
        """The examples of the train split, with bytes decoded to text."""
        try:
            import tensorflow as tf  # pyright: ignore[reportMissingImports]
            import tensorflow_datasets as tfds  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ValueError(
                f"{self.name} needs tensorflow_datasets; run `pip install 'scalejax[data]'`"
            ) from error
        # TensorFlow would otherwise reserve all of the GPU's memory.
        tf.config.set_visible_devices([], "GPU")
        # tfds raises an AssertionError for data that are not prepared, and TensorFlow a
        # NotFoundError for files that are missing.
        not_ready = (
            tfds.core.registered.DatasetNotFoundError,
            AssertionError,
            tf.errors.NotFoundError,
        )
        try:
            records = tfds.as_numpy(tfds.load(self.builder, split="train", shuffle_files=False))
        except not_ready as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"{self.name}: tfds has no {self.builder!r} ready to read ({reason}); check the "
                "name, or prepare the data with tfds first"
            ) from error
        yield from (_decoded(record) for record in records)


def _decoded(record: Mapping[str, object]) -> dict[str, object]:
    return {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for name, value in record.items()
    }
