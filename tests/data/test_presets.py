"""Presets read the published schema of their corpus (mirrors configs/data.py)."""

import dataclasses
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow
import pytest

from configs import data as presets
from scalejax.config import Data
from scalejax.data.preparation import prepare

Records = list[dict[str, object]]


def write_zst(path: Path, records: Records) -> None:
    with pyarrow.output_stream(str(path), compression="zstd") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records).encode())


def write_gz(path: Path, records: Records) -> None:
    lines = "".join(json.dumps(record) + "\n" for record in records)
    path.write_bytes(gzip.compress(lines.encode()))


def write_parquet(path: Path, records: Records) -> None:
    pd.DataFrame(records).to_parquet(path)


TEXTS = [f"Document {i} of a corpus, in its published schema." for i in range(12)]
WEB = {"timestamp": "2019-04-25T12:57:54Z", "url": "https://example.org"}


class Published(NamedTuple):
    """A published corpus, reduced to twelve records."""

    preset: Data
    file: str
    """Where the corpus keeps its records."""
    write: Callable[[Path, Records], None]
    records: Records
    domains: set[str]


PUBLISHED = {
    "openwebtext2": Published(
        preset=presets.OPENWEBTEXT2,
        file="2020-01.jsonl.zst",
        write=write_zst,
        records=[{"text": text, "meta": {"title": "x", "url": ""}} for text in TEXTS],
        domains={"text"},
    ),
    "refinedweb": Published(
        preset=presets.REFINEDWEB,
        file="train-00000-of-05534.parquet",
        write=write_parquet,
        records=[{"content": text, **WEB, "image_urls": []} for text in TEXTS],
        domains={"text"},
    ),
    "fineweb": Published(
        preset=presets.FINEWEB,
        file="sample/10BT/000_00000.parquet",
        write=write_parquet,
        records=[{"text": text, "id": str(i), **WEB} for i, text in enumerate(TEXTS)],
        domains={"sample"},
    ),
    "c4": Published(
        preset=presets.C4,
        file="c4-train.00000-of-01024.json.gz",
        write=write_gz,
        records=[{"text": text, **WEB} for text in TEXTS],
        domains={"text"},
    ),
    "redpajama": Published(
        preset=presets.REDPAJAMA,
        file="arxiv/arxiv_0.jsonl.zst",
        write=write_zst,
        records=[{"text": text, "meta": {"yymm": "2001"}} for text in TEXTS],
        domains={"arxiv"},
    ),
    "slimpajama": Published(
        preset=presets.SLIMPAJAMA,
        file="train/chunk1/example_train_0.jsonl.zst",
        write=write_zst,
        records=[
            {"text": text, "meta": {"redpajama_set_name": ("RedPajamaC4", "RedPajamaBook")[i % 2]}}
            for i, text in enumerate(TEXTS)
        ],
        domains={"RedPajamaC4", "RedPajamaBook"},
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_reads_its_corpus(tmp_path, name):
    published = PUBLISHED[name]
    path = tmp_path / "corpus" / published.file
    path.parent.mkdir(parents=True)
    published.write(path, published.records)
    source = str(tmp_path / "corpus")
    data = dataclasses.replace(published.preset, source=source, tokenizer="byte")
    shards = prepare(data, tmp_path / "cache")
    assert set(shards.domains) == published.domains
    text = shards.tokenizer().decode([*shards.train, *shards.validation])
    assert all(each in text for each in TEXTS) and len(text) == sum(map(len, TEXTS))
