"""Test items in training tokens are found (mirrors scalejax/data/contamination.py)."""

import json
import random

import numpy as np
import pytest

from scalejax.config import Data
from scalejax.data import contamination
from scalejax.data.contamination import contaminated
from scalejax.data.preparation import prepare

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrs"]


@pytest.fixture(scope="module")
def texts():
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=80)) for _ in range(60)]


@pytest.fixture(scope="module")
def shards(texts, tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return prepare(Data(source=str(path), tokenizer="bpe:320"), path.parent / "cache")


@pytest.mark.parametrize("block", [64, 2**22])
def test_shares_are_those_of_a_search_run_by_run(shards, texts, monkeypatch, block):
    monkeypatch.setattr(contamination, "BLOCK", block)
    train = [
        shards.tokenizer().decode(part)
        for part in np.split(shards.train, np.flatnonzero(shards.train == 1))[1:-1]
    ]
    rng = random.Random(1)
    new = " ".join(rng.choices(WORDS, k=60))
    items = [
        train[3],
        new,
        new + " " + train[5][100:220],
        "short",
        next(text for text in texts if text not in train),
    ]
    known = {
        tuple(run) for run in np.lib.stride_tricks.sliding_window_view(shards.train, 13).tolist()
    }
    expected = []
    for ids in shards.tokenizer().encode(items):
        runs = np.lib.stride_tricks.sliding_window_view(ids, 13).tolist() if len(ids) >= 13 else []
        expected.append(np.mean([tuple(run) in known for run in runs]) if runs else np.nan)
    found = contaminated(shards, items)
    assert np.allclose(found, expected, equal_nan=True)
    assert (
        found[0] == 1
        and found[1] == 0
        and 0 < found[2] < 1
        and np.isnan(found[3])
        and found[4] == 0
    )


def test_no_items_and_short_runs(shards):
    assert contaminated(shards, []).shape == (0,)
    with pytest.raises(ValueError, match="at least 2"):
        contaminated(shards, ["x"], n=1)


def test_the_report_names_the_lines(shards, texts, tmp_path):
    train = shards.tokenizer().decode(shards.train[1:200])
    path = tmp_path / "items.jsonl"
    path.write_text(
        "".join(
            json.dumps({"text": text}) + "\n"
            for text in ("too short", " ".join(train.split()[:30]), "no " * 60)
        )
    )
    lines = contamination.report(shards, path, field="text").split("\n")
    assert (
        lines[0].startswith("line 2: 100%")
        and lines[1].startswith("1 of 3 items share 13 tokens")
        and "1 are too" in lines[1]
    )
