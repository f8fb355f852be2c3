"""Exact FLOPs against the products that JAX really makes and against XLA's own count (mirrors scalejax/model/flops.py)."""

import math

import jax
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params

from scalejax.config import Data, Model, Placement
from scalejax.model.flops import (
    CONVENTIONS,
    effective_params,
    exact,
    flops_6nd,
    hoffmann,
    mfu,
    full_square,
    training_flops,
)
from scalejax.model.parametrization import standard
from scalejax.model.transformer import abstract, counts, initialize
from scalejax.optim.schedules import constant
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state, make_train_step
from tests import published

MODEL = Model(width=256, depth=2, heads=8, kv_heads=2, head_size=32, mlp_width=704, vocabulary=512)
LENGTH = 64


def forward(model: Model):
    graphdef, _ = abstract(model, standard())
    return lambda params, tokens: nnx.merge(graphdef, params)(tokens)


def products(jaxpr) -> int:
    """2 x multiply-adds of every dot_general in a jaxpr and the jaxprs inside it."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += (
                2
                * math.prod(equation.outvars[0].aval.shape)
                * math.prod(left[axis] for axis in contracted)
            )
        total += sum(products(inner) for inner in jaxprs_in_params(equation.params))
    return total


def abstract_inputs(model: Model):
    params = jax.eval_shape(lambda key: initialize(model, standard(), key), jax.random.key(0))
    return params, jax.ShapeDtypeStruct((1, LENGTH), np.int32)


@pytest.mark.parametrize("tied", [False, True])
def test_forward_flops_are_the_matrix_products_of_the_forward_pass(tied):
    model = Model(
        width=48, depth=3, heads=6, kv_heads=3, head_size=8, mlp_width=136, vocabulary=96, tied=tied
    )
    jaxpr = jax.make_jaxpr(forward(model))(*abstract_inputs(model))
    assert full_square(model, LENGTH) == products(jaxpr.jaxpr)


def test_xla_counts_the_same_within_its_elementwise_work():
    analysis = jax.jit(forward(MODEL)).lower(*abstract_inputs(MODEL)).cost_analysis()
    assert 1 < analysis["flops"] / full_square(MODEL, LENGTH) < 1.05


def test_xla_bills_an_unrolled_training_step_three_forward_passes():
    run = forward(MODEL)

    def loss(params, tokens):
        return jax.nn.logsumexp(run(params, tokens), axis=-1).sum()

    analysis = jax.jit(jax.grad(loss)).lower(*abstract_inputs(MODEL)).cost_analysis()
    billed = training_flops(MODEL, LENGTH, LENGTH, convention="square")
    assert 1 < analysis["flops"] / billed < 1.05
    assert billed == 3 * full_square(MODEL, LENGTH)


def test_xla_bills_the_real_training_step_the_same_within_its_elementwise_work(tiny_run):
    """The optimizer's dozen operations per parameter are part of it: a batch of 32 sequences makes them small."""
    run = tiny_run.replace(
        model=MODEL, data=Data(sequence_length=LENGTH), batch_tokens=32 * LENGTH, tokens=32 * LENGTH
    )
    run = run.replace(schedule=constant(warmup=0))
    mesh = make_mesh(Placement())
    state = jax.eval_shape(lambda: init_state(run, mesh))
    rows = jax.ShapeDtypeStruct((32, LENGTH + 1), np.int32)
    analysis = make_train_step(run, mesh).lower(state, rows, np.float32(0.01)).cost_analysis()
    assert (
        1
        < analysis["flops"] / training_flops(MODEL, LENGTH, 32 * LENGTH, convention="square")
        < 1.05
    )


def test_causal_attention_needs_half_of_the_square_and_the_diagonal():
    upper = full_square(MODEL, LENGTH) - exact(MODEL, LENGTH)
    assert upper == MODEL.depth * 4 * MODEL.heads * MODEL.head_size * (
        LENGTH**2 - LENGTH * (LENGTH + 1) // 2
    )


def test_training_flops_are_exact_integers_at_any_scale():
    tokens = 2**50
    assert training_flops(MODEL, LENGTH, tokens) == 3 * exact(MODEL, LENGTH) * (tokens // LENGTH)
    assert flops_6nd(MODEL, tokens) == 6 * counts(MODEL).params_with_head * tokens


def test_attention_is_all_that_parts_exact_flops_from_6nd():
    attention = 3 * MODEL.depth * 2 * MODEL.heads * MODEL.head_size * (LENGTH + 1) * LENGTH
    assert training_flops(MODEL, LENGTH, LENGTH) - flops_6nd(MODEL, LENGTH) == attention


def haegele(width: int, depth: int, heads: int) -> Model:
    mlp_width = 256 * -(-8 * width // (3 * 256))
    return Model(
        width=width,
        depth=depth,
        heads=heads,
        kv_heads=heads,
        head_size=width // heads,
        mlp_width=mlp_width,
        vocabulary=50257,
        tied=True,
    )


@pytest.mark.parametrize(
    ("shape", "flops"),
    [
        ((384, 8, 6), 171_834_605_568),
        ((768, 12, 12), 527_392_309_248),
        ((768, 24, 12), 817_642_340_352),
    ],
)
def test_appendix_f_of_hoffmann_2022_is_what_haegele_2024_bill(shape, flops):
    assert training_flops(haegele(*shape), 512, 512, convention="hoffmann") == flops


@pytest.mark.replication
def test_flops_per_token_are_those_of_the_16_architectures_of_porian_2024():
    """reference/porian2024/architectures.csv, columns fpt_* and N_eff_att."""
    rows, length = published.rows("porian2024/architectures.csv"), 2048
    for row in rows:
        width, depth, mlp_width = (int(row[name]) for name in ("width", "depth", "d_ff"))
        model = Model(
            width=width,
            depth=depth,
            heads=4,
            kv_heads=4,
            head_size=width // 4,
            mlp_width=mlp_width,
            vocabulary=50432,
        )
        per_token = {
            name: training_flops(model, length, 1, convention=name) for name in CONVENTIONS
        }
        assert per_token["with-head"] == int(row["fpt_standard"]) == flops_6nd(model, 1)
        assert per_token["kaplan"] == int(row["fpt_kaplan"])
        assert (
            per_token["with-attention"]
            == int(row["fpt_attention"])
            == 6 * effective_params(model, length)
        )
        assert effective_params(model, length) == int(row["N_eff_att"])
        # Their appendix F forgets the vocabulary in the embedding's product, and its MLP has two matrices of width 4w.
        slips = 3 * (
            2 * width * (1 - 50432) + 2 * depth * (2 * width * 4 * width - 3 * width * mlp_width)
        )
        assert per_token["hoffmann"] + slips == pytest.approx(
            float(row["fpt_chinchilla"]), rel=1e-7
        )
    assert len(rows) == 16


@pytest.mark.replication
def test_compute_is_that_of_gadre_2024_to_the_last_flop():
    """reference/gadre2024/models.csv, columns D and C."""
    rows = published.rows("gadre2024/models.csv")
    for row in rows:
        width, heads = int(row["hidden_dim"]), int(row["n_heads"])
        model = Model(
            width=width,
            depth=int(row["n_layers"]),
            heads=heads,
            kv_heads=heads,
            head_size=width // heads,
            mlp_width=256 * -(-8 * width // (3 * 256)),
            vocabulary=int(row["vocab_size"]),
        )
        assert training_flops(model, 2048, float(row["D"]), convention="gadre") == int(
            float(row["C"])
        )
    assert len(rows) == 104


def test_conventions_part_where_they_say_they_do():
    billed = {name: count(MODEL, LENGTH) for name, count in CONVENTIONS.items()}
    assert billed["with-head"] - billed["kaplan"] == 2 * LENGTH * MODEL.width * MODEL.vocabulary
    assert (
        billed["with-attention"] - billed["exact"]
        == -2 * LENGTH * MODEL.depth * MODEL.heads * MODEL.head_size
    )
    assert (
        billed["hoffmann"] - billed["square"]
        == 2 * LENGTH * MODEL.width * MODEL.vocabulary + 3 * 2 * MODEL.heads * LENGTH**2
    )
    assert billed["gadre"] - billed["with-head"] == 2 * LENGTH * (
        counts(MODEL).params - counts(MODEL).params_with_head
    )
    assert hoffmann(MODEL, LENGTH) == max(billed.values())


def test_an_unknown_convention_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"convention must be one of exact, square, kaplan.*; got 'chinchilla'"
    ):
        training_flops(MODEL, LENGTH, 1, convention="chinchilla")


def test_utilization_is_exact_flops_per_second_over_the_peak():
    second = training_flops(MODEL, LENGTH, 1000 * LENGTH)
    assert mfu(MODEL, LENGTH, 1000 * LENGTH, peak_flops=2 * second) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="positive; got 0"):
        mfu(MODEL, LENGTH, 1.0, peak_flops=0)
