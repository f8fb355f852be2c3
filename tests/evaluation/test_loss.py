"""Held-out loss against sums done by hand (mirrors scalejax/evaluation/loss.py)."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from scalejax.data.shards import Shards
from scalejax.evaluation.loss import clustered_error, evaluate_loss

TOKENS = np.array([9, 1, 2, 3, 9, 4, 9, 5, 6, 7, 8, 9, 1, 2, 9], np.uint16)  # 9 ends a document


def shards(
    tokens: np.ndarray = TOKENS, end: int = 9, document_bytes: tuple[int, ...] = (30, 10, 40, 20)
) -> Shards:
    starts = np.flatnonzero(tokens == end)[:-1] + 1
    manifest = {
        "vocabulary": 10,
        "tokenizer": {"end": end},
        "entropy_rate": None,
        "domains": {"text": {}},
    }
    return Shards(Path(), tokens, tokens, starts, np.array(document_bytes), manifest)


class Losses:
    """A model that is as surprised as its target is large, plus half of the token before; it remembers the shapes it saw."""

    def __init__(self):
        self.shapes = []

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        assert rows.dtype == np.int32
        self.shapes.append(rows.shape)
        return (rows[:, 1:] + rows[:, :-1] / 2).astype(np.float32)


def surprises(tokens: np.ndarray) -> np.ndarray:
    return tokens[1:] + tokens[:-1] / 2


@pytest.mark.parametrize("length", [2, 3, 5, 14, 40])
@pytest.mark.parametrize("sequences", [1, 2, 3])
def test_every_token_counts_once_whatever_the_windows(length, sequences):
    found = evaluate_loss(
        Losses(), shards(), sequence_length=length, tokens=1_000, sequences=sequences
    )
    assert found.tokens == 14
    assert found.loss == pytest.approx(surprises(TOKENS).mean(), rel=1e-12)


def test_all_calls_have_one_shape():
    losses = Losses()
    evaluate_loss(losses, shards(), sequence_length=3, tokens=1_000, sequences=2)
    assert losses.shapes == [(2, 4)] * 3


@pytest.mark.parametrize("tokens", [1, 5, 9])
def test_only_the_first_tokens_are_read(tokens):
    found = evaluate_loss(Losses(), shards(), sequence_length=4, tokens=tokens, sequences=2)
    assert found.tokens == tokens
    assert found.loss == pytest.approx(surprises(TOKENS)[:tokens].mean(), rel=1e-12)


def test_the_standard_error_is_that_of_the_ratio_over_documents():
    found = evaluate_loss(Losses(), shards(), sequence_length=4, tokens=1_000, sequences=2)
    nats, cuts = (
        surprises(TOKENS),
        [4, 6, 11],
    )  # the first document's targets are 1 2 3 9, the second's 4 9, ...
    sums, counts = (
        np.array([part.sum() for part in np.split(a, cuts)]) for a in (nats, np.ones(14))
    )
    by_hand = math.sqrt(4 / 3 * ((sums - found.loss * counts) ** 2).sum()) / 14
    assert found.loss_se == pytest.approx(by_hand, rel=1e-12)


def test_the_standard_error_covers_the_truth_when_tokens_of_a_document_vary_together():
    rng = np.random.default_rng(0)
    counts = rng.integers(5, 200, size=(400, 60))
    sums = counts * rng.normal(3.0, 0.5, size=counts.shape)  # one level per document
    means = sums.sum(1) / counts.sum(1)
    errors = np.array([clustered_error(s, n) for s, n in zip(sums, counts, strict=True)])
    assert 0.90 < (np.abs(means - 3.0) < 1.96 * errors).mean() < 0.98


def test_one_document_has_no_standard_error():
    found = evaluate_loss(Losses(), shards(), sequence_length=4, tokens=3, sequences=2)
    assert found.loss_se is None


def test_bits_per_byte_of_whole_documents_are_their_nats_over_their_bytes():
    found = evaluate_loss(Losses(), shards(), sequence_length=4, tokens=1_000, sequences=2)
    assert found.bits_per_byte == pytest.approx(
        surprises(TOKENS).sum() / math.log(2) / 100, rel=1e-12
    )
    two_documents = evaluate_loss(Losses(), shards(), sequence_length=4, tokens=6, sequences=2)
    assert two_documents.bits_per_byte == pytest.approx(
        surprises(TOKENS)[:6].sum() / math.log(2) / 40, rel=1e-12
    )


def test_bytes_of_a_document_read_in_part_count_in_part():
    found = evaluate_loss(Losses(), shards(), sequence_length=4, tokens=8, sequences=2)
    assert found.bits_per_byte == pytest.approx(
        surprises(TOKENS)[:8].sum() / math.log(2) / (40 + 40 * 2 / 5), rel=1e-12
    )


def test_symbols_have_no_bits_per_byte():
    no_text = dataclasses.replace(shards(), validation_bytes=np.zeros(4, np.int64))
    assert (
        evaluate_loss(Losses(), no_text, sequence_length=4, tokens=100, sequences=2).bits_per_byte
        is None
    )


def test_domains_have_losses_of_their_own(tmp_path):
    np.array([1, 0, 1, 0]).tofile(tmp_path / "validation_domains.bin")
    manifest = {**shards().manifest, "domains": {"wiki": {}, "code": {}, "unmet": {}}}
    two = dataclasses.replace(shards(), folder=tmp_path, manifest=manifest)
    found = evaluate_loss(Losses(), two, sequence_length=4, tokens=1_000, sequences=2)
    nats, cuts = surprises(TOKENS), [4, 6, 11]
    sums, counts = (
        np.array([part.sum() for part in np.split(a, cuts)]) for a in (nats, np.ones(14))
    )
    assert list(found.domains) == ["wiki", "code"]
    for name, members, size in (("wiki", [1, 3], 30), ("code", [0, 2], 70)):
        part = found.domains[name]
        assert part.loss == pytest.approx(sums[members].sum() / counts[members].sum(), rel=1e-12)
        assert part.loss_se == pytest.approx(
            clustered_error(sums[members], counts[members]), rel=1e-12
        )
        assert part.bits_per_byte == pytest.approx(
            sums[members].sum() / math.log(2) / size, rel=1e-12
        )
    assert sum(part.tokens for part in found.domains.values()) == found.tokens
    assert sum(part.loss * part.tokens for part in found.domains.values()) == pytest.approx(
        found.loss * found.tokens
    )
    whole = clustered_error(sums / math.log(2), np.array([30, 10, 40, 20]))
    assert found.bits_per_byte_se == pytest.approx(whole, rel=1e-12)
