"""A small corpus that several tests of the data room prepare."""

import random

import pytest

from scalejax.config import Data


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """200 short documents of random words; every tenth occurs in upper case, too."""
    rng, folder = random.Random(1), tmp_path_factory.mktemp("text")
    words = ["café", "law", "of", "the", "tokens", "naïve", "loss", "\n"]
    for i in range(200):
        text = " ".join(rng.choices(words, k=rng.randint(5, 60)))
        (folder / f"{i:03d}.txt").write_text(f"{i} {text}")
        if i % 10 == 0:
            (folder / f"{i:03d} again.txt").write_text(f"{i} {text}".upper())
    return folder


@pytest.fixture(scope="session")
def data(folder) -> Data:
    return Data(source=str(folder), tokenizer="bpe:320")


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")
