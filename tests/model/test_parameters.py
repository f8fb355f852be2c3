"""Declarations, initial values, counts (mirrors scalejax/model/parameters.py)."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalejax.config import Model
from scalejax.model.parameters import initial_values, scalings
from scalejax.model.parametrization import EMBEDDING_STD, HEAD_STD, HIDDEN_GAIN, mup, standard
from scalejax.model.transformer import abstract, counts, initialize
from tests import published

MODEL = Model(
    width=32, depth=2, heads=4, kv_heads=2, head_size=8, mlp_width=64, vocabulary=64, qk_norm=True
)


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
    attention, mlp = values["blocks"][0]["attention"], values["blocks"][0]["mlp"]
    width_in, mlp_in = HIDDEN_GAIN * 256**-0.5, HIDDEN_GAIN * 512**-0.5
    expected = {
        "embedding": (values["embedding"], HEAD_STD if tied else EMBEDDING_STD),
        "query": (attention["query"], width_in),
        "key": (attention["key"], width_in),
        "value": (attention["value"], width_in),
        # 8 heads of 32 features are 256 inputs.
        "output": (attention["output"], width_in),
        "gate": (mlp["gate"], width_in),
        "up": (mlp["up"], width_in),
        "down": (mlp["down"], mlp_in),
    }
    if not tied:
        expected["head"] = (values["head"], HEAD_STD)
    for name, (value, std) in expected.items():
        error = abs(float(jnp.std(value)) / std - 1)
        # Four standard errors of the std of a normal sample.
        limit = 4 / math.sqrt(2 * value.size)
        assert error < limit, f"{name}: std {jnp.std(value)}, expected {std}"
    assert np.all(values["norm"]["gain"] == 1)


def test_no_two_tensors_start_with_the_same_values():
    blocks = initialize(MODEL, standard(), jax.random.key(0))["blocks"]
    gate = np.asarray(blocks[0]["mlp"]["gate"])
    assert not np.any(gate == np.asarray(blocks[0]["mlp"]["up"]))
    assert not np.any(gate == np.asarray(blocks[1]["mlp"]["gate"]))


def test_adding_tensors_does_not_change_the_initial_values_of_the_others():
    values = initialize(MODEL, standard(), jax.random.key(0))
    other = dataclasses.replace(MODEL, depth=3, qk_norm=not MODEL.qk_norm)
    others = initialize(other, standard(), jax.random.key(0))
    down = [params["blocks"][1]["mlp"]["down"] for params in (values, others)]
    np.testing.assert_array_equal(*down)
    np.testing.assert_array_equal(others["embedding"], values["embedding"])


def test_a_declaration_needs_a_name_for_every_axis():
    _, specs = abstract(MODEL, standard())
    with pytest.raises(ValueError, match="needs 2 axis names"):
        dataclasses.replace(specs["embedding"], axes=("width",))


def test_declarations_have_the_shapes_of_all_values_of_the_model():
    _, specs = abstract(MODEL, standard())
    values = initial_values(specs, scalings(specs, standard(), MODEL), jax.random.key(0))
    shapes = jax.tree.map(lambda value: value.shape, values)
    assert jax.tree.map(lambda spec: spec.shape, specs) == shapes
    assert sum(value.size for value in jax.tree.leaves(values)) == counts(MODEL).params


def multi_head(
    *, width: int, depth: int, heads: int, mlp_width: int, vocabulary: int, tied: bool = False
) -> Model:
    return Model(
        width=width,
        depth=depth,
        heads=heads,
        kv_heads=heads,
        head_size=width // heads,
        mlp_width=mlp_width,
        vocabulary=vocabulary,
        tied=tied,
    )


def rounded_mlp_width(width: int) -> int:
    """8/3 of the width, rounded up to a multiple of 256."""
    return 256 * -(-8 * width // (3 * 256))


# Parameters in millions by (width, depth, heads), as Hägele et al. 2024 publish them.
HAEGELE = {
    (384, 8, 6): 33.5,
    (512, 8, 8): 53.0,
    (512, 10, 8): 59.8,
    (640, 12, 10): 93.1,
    (768, 12, 12): 123.5,
    (768, 16, 12): 151.8,
    (896, 12, 14): 166.1,
    (768, 24, 12): 208.5,
    (1024, 24, 16): 359.7,
}


@pytest.mark.parametrize(("shape", "millions"), HAEGELE.items())
def test_tied_counts_are_those_of_haegele_2024(shape, millions):
    width, depth, heads = shape
    model = multi_head(
        width=width,
        depth=depth,
        heads=heads,
        mlp_width=rounded_mlp_width(width),
        vocabulary=50304,
        tied=True,
    )
    norms = (2 * depth + 1) * width
    assert counts(model).params - norms == counts(model).params_with_head
    # They round some of their numbers and truncate others.
    assert counts(model).params_with_head / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize(
    ("width", "depth", "heads"),
    [(96, 8, 4), (512, 8, 4), (576, 24, 8), (1024, 24, 8), (2048, 24, 16)],
)
def test_counts_of_all_params_are_those_of_gadre_2024(width, depth, heads):
    mlp_width, vocabulary = rounded_mlp_width(width), 50432
    model = multi_head(
        width=width, depth=depth, heads=heads, mlp_width=mlp_width, vocabulary=vocabulary
    )
    hidden = depth * width * (4 * width + 3 * mlp_width)
    norms = (2 * depth + 1) * width
    assert counts(model).params == hidden + 2 * vocabulary * width + norms
    assert counts(model).params_non_embedding == hidden


def test_grouped_queries_and_qk_norm_are_counted():
    model = Model(
        width=64,
        depth=3,
        heads=8,
        kv_heads=2,
        head_size=16,
        mlp_width=176,
        vocabulary=100,
        qk_norm=True,
    )
    attention, mlp = 64 * 16 * (8 + 2 + 2 + 8), 3 * 64 * 176
    hidden, head = 3 * (attention + mlp), 64 * 100
    norms, qk_norms = 7 * 64, 3 * 2 * 16
    assert counts(model).params_non_embedding == hidden
    assert counts(model).params_with_head == hidden + head
    assert counts(model).params == hidden + 2 * head + norms + qk_norms


@pytest.mark.replication
def test_counts_are_those_of_the_16_architectures_of_porian_2024():
    rows = published.rows("porian2024/architectures.csv")
    for row in rows:
        model = multi_head(
            width=int(row["width"]),
            depth=int(row["depth"]),
            heads=4,
            mlp_width=int(row["d_ff"]),
            vocabulary=50432,
        )
        assert counts(model).params_with_head == int(row["N"])
        assert counts(model).params_non_embedding == int(row["N_no_head"])
    assert len(rows) == 16


@pytest.mark.replication
def test_counts_are_those_of_the_six_architectures_of_gadre_2024():
    columns = ("hidden_dim", "n_layers", "n_heads", "vocab_size", "N")
    rows = published.rows("gadre2024/models.csv")
    sizes = {tuple(int(row[column]) for column in columns) for row in rows}
    for width, depth, heads, vocabulary, params in sizes:
        model = multi_head(
            width=width,
            depth=depth,
            heads=heads,
            mlp_width=rounded_mlp_width(width),
            vocabulary=vocabulary,
        )
        assert counts(model).params == params
    assert len(sizes) == 6
