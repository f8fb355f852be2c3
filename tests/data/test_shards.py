"""Shards hold what was prepared (mirrors scalejax/data/shards.py)."""

import json
import shutil

import numpy as np
import pytest

from scalejax.config import Data
from scalejax.data.preparation import prepare
from scalejax.data.shards import manifest_hash, open_shards, read_manifest
from scalejax.data.staging import clean
from scalejax.files import sha256
from tests.data.decoding import texts


@pytest.fixture
def shards(data, cache):
    return prepare(data, cache)


def test_the_documents_come_back_out_of_the_shards(shards, folder):
    train, held_out = texts(shards.train, shards), texts(shards.validation, shards)
    assert {text.casefold() for text in train + held_out} == {
        clean(path.read_text()).casefold() for path in folder.glob("???.txt")
    }
    assert shards.manifest["documents"] == {"train": len(train), "validation": len(held_out)}
    assert shards.manifest["duplicates_dropped"] == 20
    assert not set(train) & set(held_out)


def test_held_out_documents_are_indexed_by_token_and_sized_in_bytes(shards):
    ends = [*shards.validation_starts[1:], len(shards.validation)]
    spans = zip(shards.validation_starts, ends, strict=True)
    indexed = [
        shards.tokenizer().decode(shards.validation[start:stop].tolist()) for start, stop in spans
    ]
    assert indexed == texts(shards.validation, shards)
    assert [len(text.encode()) for text in indexed] == shards.validation_bytes.tolist()
    assert shards.manifest["bytes"]["validation"] == shards.validation_bytes.sum()


def test_the_manifest_counts_what_the_files_hold(shards):
    counts = {"train": len(shards.train), "validation": len(shards.validation)}
    assert shards.manifest["tokens"] == counts
    assert shards.vocabulary == 320 and shards.train.max() < 320 and shards.train.dtype == np.uint16
    assert shards.entropy_rate is None
    assert {"source", "licence", "attribution", "hash", "files"} <= shards.manifest.keys()


@pytest.mark.parametrize(
    "name", ["train.bin", "validation.bin", "validation_documents.bin", "tokenizer.model"]
)
@pytest.mark.parametrize("damage", ["changed", "truncated", "deleted"])
def test_a_damaged_file_is_refused_by_name(shards, tmp_path, name, damage):
    copy = tmp_path / "copy"
    shutil.copytree(shards.folder, copy)
    path = copy / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage != "deleted":
        path.write_bytes(content if damage == "changed" else content[:-2])
    with pytest.raises(ValueError, match=f"{name} is missing, changed or truncated"):
        open_shards(copy)


def test_an_id_outside_the_vocabulary_is_refused_with_its_position(shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards.folder, copy)
    tokens = np.fromfile(copy / "train.bin", np.uint16)
    tokens[17] = 320
    tokens.tofile(copy / "train.bin")
    # The hashes are made to match, so that only the ids are wrong.
    manifest = read_manifest(copy)
    assert "files" in manifest
    manifest["files"]["train.bin"] = sha256(copy / "train.bin")
    manifest["hash"] = manifest_hash(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        ValueError, match=r"train\.bin holds id 320 at token 17; its vocabulary ends at 319"
    ):
        open_shards(copy)


def test_a_manifest_with_another_vocabulary_is_refused(shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards.folder, copy)
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace('"vocabulary": 320', '"vocabulary": 321'))
    with pytest.raises(ValueError, match=r"manifest\.json was changed"):
        open_shards(copy)


@pytest.fixture(scope="module")
def domains(tmp_path_factory, cache):
    """Two domains of 30 documents in a file each; those of `b` are longer."""
    folder = tmp_path_factory.mktemp("domains")
    for name, words in (("a", 5), ("b", 25)):
        (folder / name).mkdir()
        lines = (json.dumps({"text": f"{name} {i} " + f"{name * 3} " * words}) for i in range(30))
        (folder / name / "part.jsonl").write_text("\n".join(lines) + "\n")
    return prepare(Data(source=str(folder), tokenizer="byte"), cache)


def test_domains_lie_one_after_another_in_train_and_mixed_in_validation(domains):
    assert domains.domains == ["a", "b"]
    parts = {
        name: texts(domains.tokens("train", "concatenate", domain=name).ids, domains)
        for name in "ab"
    }
    for name, other in (("a", "b"), ("b", "a")):
        assert len(parts[name]) > 20
        assert all(name * 3 in text and other * 3 not in text for text in parts[name])
    assert parts["a"] + parts["b"] == texts(domains.train, domains)
    labels = [domains.domains[number] for number in domains.validation_domains]
    assert labels == [text[0] for text in texts(domains.validation, domains)]
    assert set(domains.validation_domains.tolist()) == {0, 1}


def test_a_corpus_of_one_domain_needs_no_file_of_domains(shards):
    assert shards.domains == ["text"] and not shards.validation_domains.any()
    assert np.array_equal(shards.tokens("train", "concatenate", domain="text").ids, shards.train)
    assert not (shards.folder / "validation_domains.bin").exists()


def test_a_manifest_with_other_domains_is_refused(domains, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(domains.folder, copy)
    assert open_shards(copy).hash == domains.hash
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["domains"]["a"]["train"] += 1
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"manifest\.json was changed"):
        open_shards(copy)


def test_documents_that_no_token_ends_cannot_be_packed(tmp_path):
    np.arange(100, dtype=np.uint16).tofile(tmp_path / "ids.bin")
    shards = prepare(Data(source=str(tmp_path / "ids.bin"), tokenizer="ids:100"))
    assert len(shards.tokens("train", "concatenate")) == 96
    with pytest.raises(ValueError, match="packing='documents' needs a token that ends a document"):
        shards.tokens("train", "documents")


def test_a_manifest_that_lacks_a_field_is_refused_by_its_name(shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards.folder, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    for name in ("domains", "hash"):
        kept = {key: value for key, value in manifest.items() if key != name}
        (copy / "manifest.json").write_text(json.dumps(kept))
        with pytest.raises(ValueError, match=rf"manifest of token shards: its field {name}"):
            open_shards(copy)
