"""Documents are unique, ordered and split (mirrors scalejax/data/staging.py)."""

import random

import numpy as np
import pytest

from scalejax.data.staging import Document, StagedDocuments, StagingFile, clean


def stage(tmp_path, documents: list[Document]) -> tuple[StagedDocuments, dict[str, list[str]]]:
    """The staged documents, and the texts of both splits."""
    with StagingFile(tmp_path / "staging") as staging:
        for document in documents:
            staging.add(document)
        staged = staging.finish("these")
        texts = {
            name: list(staged.texts(split.numbers.tolist()))
            for name, split in staged.splits.items()
        }
        return staged, texts


def plain(*texts: str) -> list[Document]:
    return [Document(text, "text") for text in texts]


def test_cleaning_keeps_the_words_and_drops_what_is_invisible():
    assert clean("\ufeffone\x00 two \t\r\n\r\r\n\n three\x1b[0m") == "one two\n\n three[0m"
    assert clean("naïve\tcafé — ≤ 日本") == "naïve\tcafé — ≤ 日本"


def test_equal_documents_are_kept_once_and_the_order_does_not_depend_on_their_order(tmp_path):
    texts = ["one", "two", "ONE ", "", "three", "t w o"]
    staged, splits = stage(tmp_path, plain(*texts))
    order = splits["train"] + splits["validation"]
    assert sorted(order) == ["one", "t w o", "three", "two"] and staged.duplicates == 1
    rotated = stage(tmp_path, plain(*texts[3:], *texts[:3]))[1]
    assert rotated == splits
    assert order != sorted(order), "this order is alphabetical by chance"
    reversed_splits = stage(tmp_path, plain(*texts[::-1]))[1]
    assert "ONE" in reversed_splits["train"] + reversed_splits["validation"], (
        "the first of two equal documents is not the one that is kept"
    )


def test_the_split_of_a_document_does_not_depend_on_the_other_documents(tmp_path):
    texts = [f"document {i}" for i in range(2_000)]
    held_out = set(stage(tmp_path, plain(*texts))[1]["validation"])
    assert 0.03 < len(held_out) / 2_000 < 0.05
    fewer = set(stage(tmp_path, plain(*texts[500:]))[1]["validation"])
    assert fewer == held_out & set(texts[500:])


def test_of_two_documents_each_split_gets_one(tmp_path):
    for pair in ("ab", "cd", "ef"):
        assert [len(texts) for texts in stage(tmp_path, plain(*pair))[1].values()] == [1, 1]


def test_no_split_lacks_a_domain(tmp_path):
    rng = random.Random(0)
    rare = [Document(f"a rare {i}", "a rare") for i in range(2)]
    documents = [Document(f"common {i}", "common") for i in range(500)] + rare
    rng.shuffle(documents)
    staged, texts = stage(tmp_path, documents)
    assert staged.domains == ["a rare", "common"]
    for name, split in staged.splits.items():
        assert np.bincount(split.domains).min() == 1
        assert [text[:6] for text in texts[name]] == [staged.domains[i] for i in split.domains]
    train = staged.splits["train"]
    assert np.all(np.diff(train.domains) >= 0)
    domain_of = dict(zip(train.numbers.tolist(), train.domains.tolist(), strict=True))
    mixed = [domain_of[number] for number in staged.mixed.tolist()]
    assert len(mixed) == len(domain_of) and mixed != sorted(mixed), (
        "a tokenizer would be trained on one domain first"
    )


def test_a_domain_of_one_document_is_refused_by_name(tmp_path):
    with pytest.raises(
        ValueError, match=r"'these' holds 1 document\(s\) of rare; at least 2 are needed"
    ):
        stage(tmp_path, [*plain("a", "b"), Document("c", "rare")])


def test_sizes_are_bytes_of_the_cleaned_text(tmp_path):
    staged, texts = stage(tmp_path, plain("café \r\n", "naïve", "日本"))
    for name, split in staged.splits.items():
        assert split.bytes.tolist() == [len(text.encode()) for text in texts[name]]
