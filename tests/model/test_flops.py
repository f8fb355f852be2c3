"""Exact FLOPs against the products that JAX really makes and against XLA's own count (mirrors scalejax/model/flops.py)."""

import math

import jax
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params

from scalejax.config import Model
from scalejax.model.flops import flops_6nd, forward_flops, training_flops
from scalejax.model.parametrization import standard
from scalejax.model.transformer import abstract, counts, initialize

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
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
        total += sum(products(inner) for inner in jaxprs_in_params(equation.params))
    return total


def abstract_inputs(model: Model):
    params = jax.eval_shape(lambda key: initialize(model, standard(), key), jax.random.key(0))
    return params, jax.ShapeDtypeStruct((1, LENGTH), np.int32)


@pytest.mark.parametrize("tied", [False, True])
def test_forward_flops_are_the_matrix_products_of_the_forward_pass(tied):
    model = Model(width=48, depth=3, heads=6, kv_heads=3, head_size=8, mlp_width=136, vocabulary=96, tied=tied)
    jaxpr = jax.make_jaxpr(forward(model))(*abstract_inputs(model))
    assert forward_flops(model, LENGTH, causal=False) == products(jaxpr.jaxpr)


def test_xla_counts_the_same_within_its_elementwise_work():
    analysis = jax.jit(forward(MODEL)).lower(*abstract_inputs(MODEL)).cost_analysis()
    assert 1 < analysis["flops"] / forward_flops(MODEL, LENGTH, causal=False) < 1.05


def test_causal_attention_needs_half_of_the_square_and_the_diagonal():
    square = forward_flops(MODEL, LENGTH, causal=False) - forward_flops(MODEL, LENGTH)
    assert square == MODEL.depth * 4 * MODEL.heads * MODEL.head_size * (LENGTH**2 - LENGTH * (LENGTH + 1) // 2)


def test_training_flops_are_exact_integers_at_any_scale():
    tokens = 2**50
    assert training_flops(MODEL, LENGTH, tokens) == 3 * forward_flops(MODEL, LENGTH) * (tokens // LENGTH)
    assert flops_6nd(MODEL, tokens) == 6 * counts(MODEL).params_with_head * tokens


def test_attention_is_all_that_parts_exact_flops_from_6nd():
    attention = 3 * MODEL.depth * 2 * MODEL.heads * MODEL.head_size * (LENGTH + 1) * LENGTH
    assert training_flops(MODEL, LENGTH, LENGTH) - flops_6nd(MODEL, LENGTH) == attention
