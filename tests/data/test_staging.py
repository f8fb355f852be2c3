"""Documents in the order of their hashes, once each, split in two (mirrors scalejax/data/spool.py)."""

import random

import numpy as np
import pytest

from scalejax.data.sources.records import Document
from scalejax.data.staging import Documents, Spool


def spooled(tmp_path, documents: list[Document]) -> tuple[Documents, dict[str, list[str]]]:
    with Spool(tmp_path / "spool") as spool:
        for document in documents:
            spool.add(document)
        closed = spool.close("these")
        return closed, {
            name: list(closed.texts(part.places.tolist())) for name, part in closed.splits.items()
        }


def plain(*texts: str) -> list[Document]:
    return [Document(text, "text") for text in texts]


def test_equal_documents_are_kept_once_in_an_order_that_does_not_depend_on_theirs(tmp_path):
    texts = ["one", "two", "ONE ", "", "three", "t w o"]
    documents, splits = spooled(tmp_path, plain(*texts))
    found = splits["train"] + splits["validation"]
    assert sorted(found) == ["one", "t w o", "three", "two"] and documents.duplicates == 1
    turned = spooled(tmp_path, plain(*texts[3:], *texts[:3]))[1]
    assert turned == splits
    assert found != sorted(found), "this order is alphabetical by chance"
    reverse = spooled(tmp_path, plain(*texts[::-1]))[1]
    assert "ONE" in reverse["train"] + reverse["validation"], (
        "the first one met is not the one kept"
    )


def test_a_split_does_not_depend_on_the_other_documents(tmp_path):
    texts = [f"document {i}" for i in range(2_000)]
    held_out = set(spooled(tmp_path, plain(*texts))[1]["validation"])
    assert 0.03 < len(held_out) / 2_000 < 0.05
    assert set(spooled(tmp_path, plain(*texts[500:]))[1]["validation"]) == held_out & set(
        texts[500:]
    )


def test_two_documents_give_one_to_each_split(tmp_path):
    for pair in ("ab", "cd", "ef"):
        assert [len(part) for part in spooled(tmp_path, plain(*pair))[1].values()] == [1, 1]


def test_no_split_lacks_a_domain(tmp_path):
    rng = random.Random(0)
    rare = [Document(f"a rare {i}", "a rare") for i in range(2)]
    documents = [Document(f"common {i}", "common") for i in range(500)] + rare
    rng.shuffle(documents)
    found, splits = spooled(tmp_path, documents)
    assert found.domains == ["a rare", "common"]
    for name, part in found.splits.items():
        assert np.bincount(part.domains).min() == 1
        assert [text[:6] for text in splits[name]] == [found.domains[i] for i in part.domains]
    assert np.all(np.diff(found.splits["train"].domains) >= 0)
    train = dict(
        zip(
            found.splits["train"].places.tolist(),
            found.splits["train"].domains.tolist(),
            strict=True,
        )
    )
    mixed = [train[place] for place in found.mixed.tolist()]
    assert len(mixed) == len(train) and mixed != sorted(mixed), (
        "a tokenizer would be trained on one domain first"
    )


def test_a_domain_of_one_document_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"'these' holds 1 document\(s\) of rare; 2 are needed"):
        spooled(tmp_path, [*plain("a", "b"), Document("c", "rare")])


def test_sizes_are_bytes_of_the_cleaned_text(tmp_path):
    documents, splits = spooled(tmp_path, plain("café \r\n", "naïve", "日本"))
    for name, part in documents.splits.items():
        assert part.bytes.tolist() == [len(text.encode()) for text in splits[name]]
