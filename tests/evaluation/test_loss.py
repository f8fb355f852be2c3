"""Held-out loss against sums done by hand (mirrors scalejax/evaluation/loss.py)."""

import dataclasses
import math
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from scalejax.data.shards import Manifest, Shards
from scalejax.evaluation.loss import LossResult, clustered_standard_error, evaluate_loss

# Token 9 ends a document. The targets (all tokens but the first) are 4 documents of
# 4, 2, 5 and 3 tokens, and DOCUMENT_BOUNDARIES splits them.
TOKENS = np.array([9, 1, 2, 3, 9, 4, 9, 5, 6, 7, 8, 9, 1, 2, 9], np.uint16)
DOCUMENT_BOUNDARIES = [4, 6, 11]
DOCUMENT_BYTES = (30, 10, 40, 20)


def shards() -> Shards:
    starts = np.flatnonzero(TOKENS == 9)[:-1] + 1
    manifest = {
        "vocabulary": 10,
        "tokenizer": {"end": 9},
        "entropy_rate": None,
        "domains": {"text": {}},
    }
    return Shards(
        Path(), TOKENS, TOKENS, starts, np.array(DOCUMENT_BYTES), cast(Manifest, manifest)
    )


class LinearLosses:
    """A model whose loss is the target plus half of the token before it.

    It records the shapes that it is called with.
    """

    def __init__(self):
        self.shapes = []

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        assert rows.dtype == np.int32
        self.shapes.append(rows.shape)
        return (rows[:, 1:] + rows[:, :-1] / 2).astype(np.float32)


EXPECTED_LOSSES = TOKENS[1:] + TOKENS[:-1] / 2


def evaluate(tokens: int = 1_000, corpus: Shards | None = None) -> LossResult:
    return evaluate_loss(
        LinearLosses(), corpus or shards(), sequence_length=4, tokens=tokens, sequences=2
    )


def sums_by_document() -> tuple[np.ndarray, np.ndarray]:
    """Sum of losses and number of targets of each document."""
    losses = np.split(EXPECTED_LOSSES, DOCUMENT_BOUNDARIES)
    return np.array([part.sum() for part in losses]), np.array([len(part) for part in losses])


@pytest.mark.parametrize("length", [2, 3, 5, 14, 40])
@pytest.mark.parametrize("sequences", [1, 2, 3])
def test_every_token_counts_once_for_any_window_length(length, sequences):
    result = evaluate_loss(
        LinearLosses(), shards(), sequence_length=length, tokens=1_000, sequences=sequences
    )
    assert result.tokens == 14
    assert result.loss == pytest.approx(EXPECTED_LOSSES.mean(), rel=1e-12)


def test_all_calls_have_the_same_shape():
    model = LinearLosses()
    evaluate_loss(model, shards(), sequence_length=3, tokens=1_000, sequences=2)
    assert model.shapes == [(2, 4)] * 3


@pytest.mark.parametrize("tokens", [1, 5, 9])
def test_only_the_first_tokens_are_read(tokens):
    result = evaluate(tokens)
    assert result.tokens == tokens
    assert result.loss == pytest.approx(EXPECTED_LOSSES[:tokens].mean(), rel=1e-12)


def test_the_standard_error_is_that_of_the_ratio_over_documents():
    result = evaluate()
    sums, counts = sums_by_document()
    by_hand = math.sqrt(4 / 3 * ((sums - result.loss * counts) ** 2).sum()) / 14
    assert result.loss_se == pytest.approx(by_hand, rel=1e-12)


def test_the_standard_error_covers_the_truth_when_tokens_of_a_document_vary_together():
    rng = np.random.default_rng(0)
    counts = rng.integers(5, 200, size=(400, 60))
    # Every document has a level of its own, which all its tokens share.
    sums = counts * rng.normal(3.0, 0.5, size=counts.shape)
    means = sums.sum(1) / counts.sum(1)
    errors = [clustered_standard_error(s, n) for s, n in zip(sums, counts, strict=True)]
    coverage = (np.abs(means - 3.0) < 1.96 * np.array(errors)).mean()
    assert 0.90 < coverage < 0.98


def test_a_single_document_has_no_standard_error():
    assert evaluate(tokens=3).loss_se is None


@pytest.mark.parametrize(
    ("tokens", "expected_bytes"),
    [
        pytest.param(1_000, 100, id="all documents"),
        pytest.param(6, 30 + 10, id="two whole documents"),
        pytest.param(8, 30 + 10 + 40 * 2 / 5, id="two fifths of the third document"),
    ],
)
def test_bytes_count_in_proportion_to_the_tokens_read(tokens, expected_bytes):
    bits = EXPECTED_LOSSES[:tokens].sum() / math.log(2)
    assert evaluate(tokens).bits_per_byte == pytest.approx(bits / expected_bytes, rel=1e-12)


def test_a_source_without_bytes_has_no_bits_per_byte():
    no_text = dataclasses.replace(shards(), validation_bytes=np.zeros(4, np.int64))
    assert evaluate(corpus=no_text).bits_per_byte is None


def test_each_domain_has_its_own_loss(tmp_path):
    np.array([1, 0, 1, 0]).tofile(tmp_path / "validation_domains.bin")
    manifest = {**shards().manifest, "domains": {"wiki": {}, "code": {}, "unread": {}}}
    corpus = dataclasses.replace(shards(), folder=tmp_path, manifest=manifest)
    result = evaluate(corpus=corpus)
    sums, counts = sums_by_document()
    assert list(result.domains) == ["wiki", "code"]
    for name, documents, domain_bytes in (("wiki", [1, 3], 30), ("code", [0, 2], 70)):
        domain = result.domains[name]
        nats, tokens = sums[documents], counts[documents]
        assert domain.loss == pytest.approx(nats.sum() / tokens.sum(), rel=1e-12)
        standard_error = clustered_standard_error(nats, tokens)
        assert domain.loss_se == pytest.approx(standard_error, rel=1e-12)
        bits_per_byte = nats.sum() / math.log(2) / domain_bytes
        assert domain.bits_per_byte == pytest.approx(bits_per_byte, rel=1e-12)
    assert sum(domain.tokens for domain in result.domains.values()) == result.tokens
    total = sum(domain.loss * domain.tokens for domain in result.domains.values())
    assert total == pytest.approx(result.loss * result.tokens)
    bits_error = clustered_standard_error(sums / math.log(2), np.array(DOCUMENT_BYTES))
    assert result.bits_per_byte_se == pytest.approx(bits_error, rel=1e-12)
