"""Builders in tfds itself (mirrors scalejax/data/sources/tfds_builders.py).

Needs `scalejax[data]`; `make test-data` runs it in an environment of its own.
"""

import importlib.util

import pytest

from scalejax.config import Data
from scalejax.data.preparation import prepare
from tests.data.decoding import texts

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow_datasets") is None,
        reason="tensorflow_datasets not installed: pip install 'scalejax[data]'",
    ),
    # Warnings of TensorFlow are not ours.
    pytest.mark.filterwarnings("default"),
]


def test_c4_is_read_from_tfds(tmp_path):
    import tensorflow_datasets as tfds  # pyright: ignore[reportMissingImports]

    with tfds.testing.mock_data(num_examples=40):
        shards = prepare(Data(source="tfds:c4/en:3.1.0", tokenizer="byte"), tmp_path)
        records = list(tfds.as_numpy(tfds.load("c4/en:3.1.0", split="train")))
    documents = sum(shards.manifest["documents"].values())
    assert documents + shards.manifest.get("duplicates_dropped", 0) == len(records) == 40
    assert shards.domains == ["c4"]
    written = set(texts(shards.train, shards) + texts(shards.validation, shards))
    assert written <= {record["text"].decode().strip() for record in records}
    assert len(written) > 30


def test_a_builder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match="tfds has no 'no_such_builder' ready to read"):
        prepare(Data(source="tfds:no_such_builder", tokenizer="byte"), tmp_path)
