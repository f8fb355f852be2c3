"""Forward passes that score tokens (mirrors scalejax/evaluation/likelihood.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scalejax.config import Model
from scalejax.evaluation import likelihood
from scalejax.evaluation.likelihood import chunk_count, span_scores, token_losses
from scalejax.model.parametrization import standard
from scalejax.model.transformer import Transformer, abstract, initialize

MODEL = Model(width=16, depth=1, heads=2, kv_heads=1, head_size=8, mlp_width=32, vocabulary=32)


@pytest.fixture(scope="module")
def network() -> Transformer:
    graphdef, _ = abstract(MODEL, standard())
    return nnx.merge(graphdef, initialize(MODEL, standard(), jax.random.key(0)))


@pytest.fixture(scope="module")
def rows() -> jax.Array:
    return jax.random.randint(jax.random.key(1), (4, 13), 0, 32)


def test_a_span_scores_minus_the_sum_of_its_token_losses(network, rows):
    losses = np.asarray(token_losses(network, rows, "concatenate"))
    starts = jnp.array([[1], [3], [12], [5]])
    counts = jnp.array([[4], [1], [1], [2]])
    scores, greedy = span_scores(network, rows, starts, counts, width=4)
    # The loss of token i is at position i - 1.
    expected = [
        -losses[row, start - 1 : start - 1 + count].sum()
        for row, (start, count) in enumerate(zip(starts[:, 0], counts[:, 0], strict=True))
    ]
    np.testing.assert_allclose(scores[:, 0], expected, rtol=1e-5)
    assert greedy.shape == (4, 1) and greedy.dtype == bool


def test_greedy_says_whether_every_token_of_the_span_is_the_most_likely_one(network, rows):
    likeliest = np.asarray(network(rows[:, :-1]).argmax(-1))
    # Only the last target is replaced, so that the inputs and their logits stay the
    # same.
    matching = np.asarray(rows).copy()
    matching[:, -1] = likeliest[:, -1]
    starts, counts = jnp.full((4, 1), 12), jnp.ones((4, 1), int)
    assert span_scores(network, jnp.asarray(matching), starts, counts, width=1)[1].all()
    matching[:, -1] = (likeliest[:, -1] + 1) % 32
    assert not span_scores(network, jnp.asarray(matching), starts, counts, width=1)[1].any()


def test_chunks_of_logits_do_not_change_losses(network, rows, monkeypatch):
    whole = token_losses(network, rows, "concatenate")
    # Three positions of four rows at a time: four chunks.
    monkeypatch.setattr(likelihood, "MAX_LOGITS", 3 * 4 * 32)
    chunked = token_losses(network, rows, "concatenate")
    np.testing.assert_allclose(chunked, whole, rtol=1e-6)


def test_chunks_are_the_fewest_equal_ones_that_fit():
    assert chunk_count(128, logits_per_position=2**17, most=2**24) == 1
    assert chunk_count(128, logits_per_position=2**19, most=2**24) == 4
    assert chunk_count(128, logits_per_position=2**30, most=2**24) == 128
    assert chunk_count(96, logits_per_position=2**18, most=2**24) == 2
