"""Published corpora in their published schema, a few records of each, through the presets (mirrors configs/data.py)."""

import dataclasses
import gzip
import json

import pandas as pd
import pyarrow
import pytest

from configs import data as presets
from scalejax.config import Data
from scalejax.data.preparation import prepare


def zst(path, records) -> None:
    with pyarrow.output_stream(str(path), compression="zstd") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records).encode())


def gz(path, records) -> None:
    path.write_bytes(
        gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode())
    )


def parquet(path, records) -> None:
    pd.DataFrame(records).to_parquet(path)


TEXTS = [f"Document {i} of a corpus, in its published schema." for i in range(12)]
WEB = {"timestamp": "2019-04-25T12:57:54Z", "url": "https://example.org"}
PUBLISHED = [  # preset, file, writer, record of a text, domains
    (
        presets.OPENWEBTEXT2,
        "2020-01.jsonl.zst",
        zst,
        lambda i, t: {"text": t, "meta": {"title": "x", "url": ""}},
        {"text"},
    ),
    (
        presets.REFINEDWEB,
        "train-00000-of-05534.parquet",
        parquet,
        lambda i, t: {"content": t, **WEB, "image_urls": []},
        {"text"},
    ),
    (presets.C4, "c4-train.00000-of-01024.json.gz", gz, lambda i, t: {"text": t, **WEB}, {"text"}),
    (
        presets.REDPAJAMA,
        "arxiv/arxiv_0.jsonl.zst",
        zst,
        lambda i, t: {"text": t, "meta": {"yymm": "2001"}},
        {"arxiv"},
    ),
    (
        presets.SLIMPAJAMA,
        "train/chunk1/example_train_0.jsonl.zst",
        zst,
        lambda i, t: {
            "text": t,
            "meta": {"redpajama_set_name": ("RedPajamaC4", "RedPajamaBook")[i % 2]},
        },
        {"RedPajamaC4", "RedPajamaBook"},
    ),
]


@pytest.mark.parametrize(
    ("preset", "file", "write", "record", "domains"),
    PUBLISHED,
    ids=lambda x: x.source[5:] if isinstance(x, Data) else "",
)
def test_a_preset_reads_its_corpus(tmp_path, preset, file, write, record, domains):
    path = tmp_path / "corpus" / file
    path.parent.mkdir(parents=True)
    write(path, [record(i, text) for i, text in enumerate(TEXTS)])
    shards = prepare(
        dataclasses.replace(preset, source=str(tmp_path / "corpus"), tokenizer="byte"),
        tmp_path / "cache",
    )
    assert set(shards.domains) == domains
    ids = [*shards.train, *shards.validation]
    text = shards.tokenizer().decode(ids)
    assert all(each in text for each in TEXTS) and len(text) == sum(map(len, TEXTS))
