"""Test items in the training tokens (mirrors scalejax/data/contamination.py)."""

import json
import random

import numpy as np
import pytest

from scalejax.config import Data
from scalejax.data import contamination
from scalejax.data.contamination import file_overlap, ngram_overlap
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


def ngrams(ids: np.ndarray) -> list[tuple[int, ...]]:
    """All n-grams of 13 tokens."""
    if len(ids) < 13:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(ids, 13)
    return [tuple(window) for window in windows.tolist()]


@pytest.mark.parametrize("block", [64, 2**22])
def test_shares_equal_those_of_a_search_ngram_by_ngram(shards, texts, monkeypatch, block):
    monkeypatch.setattr(contamination, "BLOCK", block)
    train = [
        shards.tokenizer().decode(part.tolist())
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
    training_ngrams = set(ngrams(shards.train))
    expected = []
    for ids in shards.tokenizer().encode(items):
        matches = [ngram in training_ngrams for ngram in ngrams(ids)]
        expected.append(np.mean(matches) if matches else np.nan)
    shares = ngram_overlap(shards, items)
    assert np.allclose(shares, expected, equal_nan=True)
    assert shares[0] == 1 and shares[1] == 0 and 0 < shares[2] < 1
    assert np.isnan(shares[3]) and shares[4] == 0


def test_no_items_give_no_shares_and_a_short_n_is_refused(shards):
    assert ngram_overlap(shards, []).shape == (0,)
    with pytest.raises(ValueError, match="at least 2"):
        ngram_overlap(shards, ["x"], n=1)


def test_the_items_of_a_file_have_the_overlap_of_their_texts(shards, tmp_path):
    train = shards.tokenizer().decode(shards.train[1:200].tolist())
    path = tmp_path / "items.jsonl"
    path.write_text(
        "".join(
            json.dumps({"text": text}) + "\n"
            for text in ("too short", " ".join(train.split()[:30]), "no " * 60)
        )
    )
    short, copied, unrelated = file_overlap(shards, path, field="text")
    assert np.isnan(short) and copied == 1 and unrelated == 0
