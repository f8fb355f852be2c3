"""The network: causality, sizes, initial values (mirrors scalejax/model/transformer.py and parameters.py)."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scalejax.config import Model
from scalejax.model.parameters import initial_values, scalings, specs_of
from scalejax.model.parametrization import (
    EMBEDDING_STD,
    HEAD_STD,
    HIDDEN_GAIN,
    completep,
    mup,
    standard,
)
from scalejax.model.transformer import Transformer, abstract, counts, initialize, rotate

MODEL = Model(
    width=32, depth=2, heads=4, kv_heads=2, head_size=8, mlp_width=64, vocabulary=64, qk_norm=True
)


def network(
    model: Model, parametrization=standard(), compute_dtype: str = "float32"
) -> Transformer:
    graphdef, _ = abstract(model, parametrization, compute_dtype)
    return nnx.merge(graphdef, initialize(model, parametrization, jax.random.key(0)))


def test_logits_at_t_do_not_depend_on_later_tokens():
    graphdef, _ = abstract(MODEL, standard())
    params, length = initialize(MODEL, standard(), jax.random.key(0)), 6
    direction = jax.random.normal(jax.random.key(2), (MODEL.vocabulary,))

    def logits_of(inputs):  # an embedding with one row per position: gradients by position
        return (
            nnx.merge(graphdef, params | {"embedding": inputs})(jnp.arange(length)[None])[0]
            @ direction
        )

    influence = np.abs(jax.jit(jax.jacrev(logits_of))(params["embedding"][:length])).sum(
        -1
    )  # [t_out, t_in]
    later = np.triu(np.ones((length, length)), k=1).astype(bool)
    assert np.all(influence[later] == 0)
    assert np.all(influence[~later] > 0), (
        "a position ignores its own past: this test could not fail"
    )


def test_attention_is_relative_a_shift_of_positions_leaves_products_of_queries_and_keys():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))
    turned_q, turned_k = (
        rotate(jnp.tile(q, (1, 9, 1, 1)))[0, :, 0],
        rotate(jnp.tile(k, (1, 9, 1, 1)))[0, :, 0],
    )
    products = np.asarray(turned_q @ turned_k.T)
    for offset in range(-4, 5):
        np.testing.assert_allclose(
            np.diagonal(products, offset), np.diagonal(products, offset)[0], rtol=1e-5, atol=1e-5
        )
    assert np.ptp(products) > 0.1, "positions do not turn anything: this test could not fail"


def test_a_tied_head_is_the_embedding_and_its_logits_move_with_it():
    model = network(dataclasses.replace(MODEL, tied=True))
    x = jax.random.normal(jax.random.key(1), (1, 1, MODEL.width))
    np.testing.assert_allclose(
        model.logits(x)[0, 0], model.embedding[...] @ x[0, 0], rtol=1e-5, atol=1e-6
    )
    assert not hasattr(model, "head")


@pytest.mark.parametrize("tied", [False, True])
def test_completep_is_the_standard_network_with_its_multipliers_moved_into_the_matrices(tied):
    model = Model(
        width=32, depth=2, heads=4, kv_heads=2, head_size=8, mlp_width=64, vocabulary=64, tied=tied
    )
    parametrization = completep(base_width=8, base_depth=1, base_head_size=2)
    tokens = jax.random.randint(jax.random.key(1), (2, 8), 0, model.vocabulary)
    scaled, moved, plain = network(model, parametrization), network(model), network(model)
    for block in moved.blocks:
        block.attention.query[...] *= (
            math.sqrt(2) / 8 * math.sqrt(8)
        )  # sqrt(base_head_size) / head_size for head_size^-0.5
        block.attention.output[...] /= 2
        block.mlp.down[...] /= 2
    np.testing.assert_allclose(scaled(tokens), moved(tokens) / 4, rtol=1e-5, atol=1e-7)
    assert np.abs(moved(tokens) - plain(tokens)).max() > 0.01, (
        "nothing was moved: this test could not fail"
    )


def test_bfloat16_activations_give_float32_logits_near_the_float32_ones():
    tokens = jax.random.randint(jax.random.key(1), (2, 8), 0, MODEL.vocabulary)
    exact, rounded = (
        nnx.jit(network(MODEL, compute_dtype=dtype))(tokens) for dtype in ("float32", "bfloat16")
    )
    assert exact.dtype == rounded.dtype == jnp.float32
    assert 0 < np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("tied", [False, True])
def test_every_tensor_starts_with_the_std_of_its_role(tied):
    model = Model(
        width=256,
        depth=1,
        heads=8,
        kv_heads=4,
        head_size=32,
        mlp_width=512,
        vocabulary=512,
        tied=tied,
    )
    values = initialize(model, mup(base_width=64), jax.random.key(3))
    block = values["blocks"][0]
    expected = {
        "embedding": (values["embedding"], HEAD_STD if tied else EMBEDDING_STD),
        "query": (block["attention"]["query"], HIDDEN_GAIN * 256**-0.5),
        "key": (block["attention"]["key"], HIDDEN_GAIN * 256**-0.5),
        "value": (block["attention"]["value"], HIDDEN_GAIN * 256**-0.5),
        "output": (block["attention"]["output"], HIDDEN_GAIN * 256**-0.5),  # 8 heads of 32
        "gate": (block["mlp"]["gate"], HIDDEN_GAIN * 256**-0.5),
        "up": (block["mlp"]["up"], HIDDEN_GAIN * 256**-0.5),
        "down": (block["mlp"]["down"], HIDDEN_GAIN * 512**-0.5),
    } | ({} if tied else {"head": (values["head"], HEAD_STD)})
    for name, (value, std) in expected.items():
        error = abs(float(jnp.std(value)) / std - 1)
        assert error < 4 / math.sqrt(2 * value.size), (
            f"{name}: std {jnp.std(value)}, expected {std}"
        )
    assert np.all(values["norm"]["gain"] == 1)


def test_no_two_tensors_share_initial_values_and_another_tensor_changes_none_of_them():
    values = initialize(MODEL, standard(), jax.random.key(0))
    blocks = values["blocks"]
    assert not np.any(np.asarray(blocks[0]["mlp"]["gate"]) == np.asarray(blocks[0]["mlp"]["up"]))
    assert not np.any(np.asarray(blocks[0]["mlp"]["gate"]) == np.asarray(blocks[1]["mlp"]["gate"]))
    deeper = initialize(
        dataclasses.replace(MODEL, depth=3, qk_norm=not MODEL.qk_norm),
        standard(),
        jax.random.key(0),
    )
    np.testing.assert_array_equal(deeper["blocks"][1]["mlp"]["down"], blocks[1]["mlp"]["down"])
    np.testing.assert_array_equal(deeper["embedding"], values["embedding"])


def test_wrong_number_of_axis_names_is_refused():
    _, specs = abstract(MODEL, standard())
    with pytest.raises(ValueError, match="needs 2 axis names"):
        dataclasses.replace(specs["embedding"], axes=("width",))


def test_declarations_hold_every_value_of_the_model():
    _, specs = abstract(MODEL, standard())
    values = initial_values(specs, scalings(specs, standard(), MODEL), jax.random.key(0))
    assert jax.tree.map(lambda spec: spec.shape, specs) == jax.tree.map(
        lambda value: value.shape, values
    )
    assert sum(value.size for value in jax.tree.leaves(values)) == counts(MODEL).params
    assert specs_of(network(MODEL)) == specs
