"""FLOP counts and token budgets (mirrors scalejax/model/flops.py).

Exact FLOPs are compared with the matrix products in the jaxpr and with XLA's own count.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import Jaxpr, jaxprs_in_params

from scalejax.config import Data, Model, Placement
from scalejax.model.flops import (
    CONVENTIONS,
    effective_params,
    exact,
    flops_6nd,
    full_square,
    hoffmann,
    mfu,
    per_param,
    training_flops,
)
from scalejax.model.parameters import Params
from scalejax.model.parametrization import standard
from scalejax.model.transformer import abstract, counts, initialize
from scalejax.optim.schedules import constant
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state, make_train_step
from tests import published

MODEL = Model(width=256, depth=2, heads=8, kv_heads=2, head_size=32, mlp_width=704, vocabulary=512)
LENGTH = 64


def forward(model: Model) -> Callable[..., jax.Array]:
    graphdef, _ = abstract(model, standard())
    return lambda params, tokens: nnx.merge(graphdef, params)(tokens)


def abstract_inputs(model: Model) -> tuple[Params, jax.ShapeDtypeStruct]:
    params = jax.eval_shape(lambda key: initialize(model, standard(), key), jax.random.key(0))
    return params, jax.ShapeDtypeStruct((1, LENGTH), np.int32)


def matmul_flops(jaxpr: Jaxpr) -> int:
    """FLOPs of every dot_general in a jaxpr and in the jaxprs inside it."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, out = shape_of(equation.invars[0]), shape_of(equation.outvars[0])
            total += 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)
        total += sum(matmul_flops(inner) for inner in jaxprs_in_params(equation.params))
    return total


def shape_of(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def flops_of_xla(function: Callable[..., Any], *arguments: Any) -> float:
    """XLA's own count for a function, before optimization."""
    analysis = jax.jit(function).lower(*arguments).cost_analysis()
    assert analysis is not None
    return analysis["flops"]


@pytest.mark.parametrize("tied", [False, True])
def test_forward_flops_are_the_matrix_products_of_the_forward_pass(tied):
    model = Model(
        width=48, depth=3, heads=6, kv_heads=3, head_size=8, mlp_width=136, vocabulary=96, tied=tied
    )
    jaxpr = jax.make_jaxpr(forward(model))(*abstract_inputs(model))
    assert full_square(model, LENGTH) == matmul_flops(jaxpr.jaxpr)


# XLA also counts elementwise operations: at most 5% in the tests below.
def test_xla_counts_the_same_for_the_forward_pass_except_for_elementwise_operations():
    flops = flops_of_xla(forward(MODEL), *abstract_inputs(MODEL))
    assert 1 < flops / full_square(MODEL, LENGTH) < 1.05


def test_xla_counts_three_forward_passes_for_a_gradient():
    logits_of = forward(MODEL)

    def loss(params: Params, tokens: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(logits_of(params, tokens), axis=-1).sum()

    flops = flops_of_xla(jax.grad(loss), *abstract_inputs(MODEL))
    counted = training_flops(MODEL, LENGTH, LENGTH, convention="square")
    assert 1 < flops / counted < 1.05
    assert counted == 3 * full_square(MODEL, LENGTH)


def test_xla_counts_the_same_for_the_training_step_except_for_elementwise_operations(tiny_run):
    # The optimizer has a dozen operations per parameter. A large batch makes them
    # negligible. It is still one chunk of logits: XLA counts the inside of a loop once.
    sequences = 16
    tokens = sequences * LENGTH
    run = tiny_run.replace(
        model=MODEL,
        data=Data(sequence_length=LENGTH),
        batch_tokens=tokens,
        tokens=tokens,
        schedule=constant(warmup=0),
    )
    mesh = make_mesh(Placement())
    state = jax.eval_shape(lambda: init_state(run, mesh))
    rows = jax.ShapeDtypeStruct((sequences, LENGTH + 1), np.int32)
    flops = flops_of_xla(make_train_step(run, mesh), state, rows, np.float32(0.01))
    assert 1 < flops / training_flops(MODEL, LENGTH, tokens, convention="square") < 1.05


def test_causal_attention_needs_half_of_the_square_and_the_diagonal():
    masked = full_square(MODEL, LENGTH) - exact(MODEL, LENGTH)
    pairs = LENGTH**2 - LENGTH * (LENGTH + 1) // 2
    assert masked == MODEL.depth * 4 * MODEL.heads * MODEL.head_size * pairs


def test_training_flops_are_exact_integers_at_any_scale():
    tokens = 2**50
    assert training_flops(MODEL, LENGTH, tokens) == 3 * exact(MODEL, LENGTH) * (tokens // LENGTH)
    assert flops_6nd(MODEL, tokens) == 6 * counts(MODEL).params_with_head * tokens


def test_exact_flops_are_6nd_plus_attention():
    attention = 3 * MODEL.depth * 2 * MODEL.heads * MODEL.head_size * (LENGTH + 1) * LENGTH
    assert training_flops(MODEL, LENGTH, LENGTH) - flops_6nd(MODEL, LENGTH) == attention


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


@pytest.mark.parametrize(
    ("shape", "flops"),
    [
        ((384, 8, 6), 171_834_605_568),
        ((768, 12, 12), 527_392_309_248),
        ((768, 24, 12), 817_642_340_352),
    ],
)
def test_appendix_f_of_hoffmann_2022_gives_the_flops_of_haegele_2024(shape, flops):
    width, depth, heads = shape
    model = multi_head(
        width=width,
        depth=depth,
        heads=heads,
        mlp_width=rounded_mlp_width(width),
        vocabulary=50257,
        tied=True,
    )
    assert training_flops(model, 512, 512, convention="hoffmann") == flops


@pytest.mark.replication
def test_flops_per_token_are_those_of_the_16_architectures_of_porian_2024():
    """The columns fpt_* and N_eff_att of reference/porian2024/architectures.csv."""
    rows, length, vocabulary = published.rows("porian2024/architectures.csv"), 2048, 50432
    for row in rows:
        width, depth, mlp_width = (int(row[name]) for name in ("width", "depth", "d_ff"))
        model = multi_head(
            width=width, depth=depth, heads=4, mlp_width=mlp_width, vocabulary=vocabulary
        )
        per_token = {
            name: training_flops(model, length, 1, convention=name) for name in CONVENTIONS
        }
        assert per_token["with-head"] == int(row["fpt_standard"]) == flops_6nd(model, 1)
        assert per_token["kaplan"] == int(row["fpt_kaplan"])
        assert per_token["with-attention"] == int(row["fpt_attention"])
        assert per_token["with-attention"] == 6 * effective_params(model, length)
        assert effective_params(model, length) == int(row["N_eff_att"])
        # Their appendix F leaves the vocabulary out of the embedding's product, and
        # counts an MLP of two matrices with width 4 w.
        embedding = 2 * width * (1 - vocabulary)
        mlp = 2 * depth * (2 * width * 4 * width - 3 * width * mlp_width)
        expected = pytest.approx(float(row["fpt_chinchilla"]), rel=1e-7)
        assert per_token["hoffmann"] + 3 * (embedding + mlp) == expected
    assert len(rows) == 16


@pytest.mark.replication
def test_compute_is_that_of_gadre_2024_to_the_last_flop():
    """The columns D and C of reference/gadre2024/models.csv."""
    rows = published.rows("gadre2024/models.csv")
    for row in rows:
        width = int(row["hidden_dim"])
        model = multi_head(
            width=width,
            depth=int(row["n_layers"]),
            heads=int(row["n_heads"]),
            mlp_width=rounded_mlp_width(width),
            vocabulary=int(row["vocab_size"]),
        )
        flops = training_flops(model, 2048, float(row["D"]), convention="gadre")
        assert flops == int(float(row["C"]))
    assert len(rows) == 104


def test_conventions_differ_by_what_their_docstrings_say():
    forward_flops = {name: count(MODEL, LENGTH) for name, count in CONVENTIONS.items()}

    def difference(convention: str, other: str) -> int:
        return forward_flops[convention] - forward_flops[other]

    head = embedding = 2 * LENGTH * MODEL.width * MODEL.vocabulary
    attention_width = MODEL.heads * MODEL.head_size
    diagonal = 2 * LENGTH * MODEL.depth * attention_width
    softmax = 3 * MODEL.depth * MODEL.heads * LENGTH**2
    embedding_and_norms = counts(MODEL).params - counts(MODEL).params_with_head
    assert difference("with-head", "kaplan") == head
    assert difference("exact", "with-attention") == diagonal
    assert difference("hoffmann", "square") == embedding + softmax
    assert difference("gadre", "with-head") == 2 * LENGTH * embedding_and_norms
    assert hoffmann(MODEL, LENGTH) == max(forward_flops.values())


def test_an_unknown_convention_lists_the_known_ones():
    message = r"convention must be one of exact, square, kaplan.*; got 'chinchilla'"
    with pytest.raises(ValueError, match=message):
        training_flops(MODEL, LENGTH, 1, convention="chinchilla")


def test_utilization_is_exact_flops_per_second_divided_by_the_peak():
    second = training_flops(MODEL, LENGTH, 1000 * LENGTH)
    assert mfu(MODEL, LENGTH, 1000 * LENGTH, peak_flops=2 * second) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="positive; got 0"):
        mfu(MODEL, LENGTH, 1.0, peak_flops=0)


def test_per_param_gives_a_budget_in_tokens_per_parameter(tiny_run):
    for count in ("params_with_head", "params_non_embedding", "params"):
        tokens = per_param(20, count=count)(tiny_run)
        assert tokens == 20 * getattr(counts(tiny_run.model), count)
    assert per_param(20)(tiny_run) == per_param(20, count="params_with_head")(tiny_run)
    with pytest.raises(ValueError, match="must be positive; got 0"):
        per_param(0)
    with pytest.raises(ValueError, match=r"count must be params_with_head, .*; got 'embedding'"):
        per_param(20, count="embedding")
