"""The network (mirrors scalejax/model/transformer.py)."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scalejax.config import Model, Parametrization
from scalejax.model.parameters import specs_of
from scalejax.model.parametrization import completep, standard
from scalejax.model.transformer import Transformer, abstract, initialize, rotate

MODEL = Model(
    width=32, depth=2, heads=4, kv_heads=2, head_size=8, mlp_width=64, vocabulary=64, qk_norm=True
)
STANDARD = standard()


def network(
    model: Model, parametrization: Parametrization = STANDARD, compute_dtype: str = "float32"
) -> Transformer:
    graphdef, _ = abstract(model, parametrization, compute_dtype)
    return nnx.merge(graphdef, initialize(model, parametrization, jax.random.key(0)))


def test_logits_at_t_do_not_depend_on_later_tokens():
    graphdef, _ = abstract(MODEL, STANDARD)
    params, length = initialize(MODEL, STANDARD, jax.random.key(0)), 6
    direction = jax.random.normal(jax.random.key(2), (MODEL.vocabulary,))

    # The embedding has one row per position, so that gradients separate the positions.
    def logits_of(inputs: jax.Array) -> jax.Array:
        model = nnx.merge(graphdef, params | {"embedding": inputs})
        return model(jnp.arange(length)[None])[0] @ direction

    gradients = jax.jit(jax.jacrev(logits_of))(params["embedding"][:length])
    # The influence of every input on every output: [t_out, t_in].
    influence = np.abs(gradients).sum(-1)
    later = np.triu(np.ones((length, length)), k=1).astype(bool)
    assert np.all(influence[later] == 0)
    assert np.all(influence[~later] > 0), "a position ignores its past: this test could not fail"


def test_products_of_queries_and_keys_depend_only_on_differences_of_positions():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))
    rotated_q = rotate(jnp.tile(q, (1, 9, 1, 1)), 10_000.0)[0, :, 0]
    rotated_k = rotate(jnp.tile(k, (1, 9, 1, 1)), 10_000.0)[0, :, 0]
    products = np.asarray(rotated_q @ rotated_k.T)
    for offset in range(-4, 5):
        diagonal = np.diagonal(products, offset)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-5, atol=1e-5)
    assert np.ptp(products) > 0.1, "rotation changes nothing: this test could not fail"


def test_a_tied_head_is_the_transposed_embedding():
    model = network(dataclasses.replace(MODEL, tied=True))
    x = jax.random.normal(jax.random.key(1), (1, 1, MODEL.width))
    expected = model.embedding[...] @ x[0, 0]
    np.testing.assert_allclose(model.logits(x)[0, 0], expected, rtol=1e-5, atol=1e-6)
    assert not hasattr(model, "head")


@pytest.mark.parametrize("tied", [False, True])
def test_completep_is_the_standard_network_with_its_multipliers_moved_into_the_matrices(tied):
    model = Model(
        width=32, depth=2, heads=4, kv_heads=2, head_size=8, mlp_width=64, vocabulary=64, tied=tied
    )
    parametrization = completep(base_width=8, base_depth=1, base_head_size=2)
    tokens = jax.random.randint(jax.random.key(1), (2, 8), 0, model.vocabulary)
    scaled, moved, plain = network(model, parametrization), network(model), network(model)
    # Products of queries and keys: sqrt(base_head_size) / head_size for 1 /
    # sqrt(head_size).
    attention_multiplier = math.sqrt(2) / 8 * math.sqrt(8)
    for block in moved.blocks:
        block.attention.query[...] *= attention_multiplier
        block.attention.output[...] /= 2
        block.mlp.down[...] /= 2
    np.testing.assert_allclose(scaled(tokens), moved(tokens) / 4, rtol=1e-5, atol=1e-7)
    change = np.abs(moved(tokens) - plain(tokens)).max()
    assert change > 0.01, "the multipliers change nothing: this test could not fail"


def test_bfloat16_activations_give_float32_logits_near_the_exact_ones():
    tokens = jax.random.randint(jax.random.key(1), (2, 8), 0, MODEL.vocabulary)
    exact = nnx.jit(network(MODEL, compute_dtype="float32"))(tokens)
    rounded = nnx.jit(network(MODEL, compute_dtype="bfloat16"))(tokens)
    assert exact.dtype == rounded.dtype == jnp.float32
    assert 0 < np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()


def test_a_network_with_values_has_the_declarations_of_the_abstract_one():
    _, specs = abstract(MODEL, STANDARD)
    assert specs_of(network(MODEL)) == specs


def test_the_gradient_of_a_frequent_token_is_summed_in_float32():
    """In bfloat16 a sum of ones stops at 256."""
    model = Model.sized(width=8, depth=1, head_size=8, vocabulary=4)
    graphdef, _ = abstract(model, standard(), "bfloat16")
    params = initialize(model, standard(), jax.random.key(0))
    tokens = np.zeros((1, 1024), np.int32)

    def total(params):
        return jnp.sum(nnx.merge(graphdef, params).embed(tokens).astype(jnp.float32))

    gradient = jax.grad(total)(params)["embedding"]
    np.testing.assert_array_equal(gradient[0], 1024.0)
