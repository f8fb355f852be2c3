"""The chunked loss and its gradient (mirrors scalejax/training/loss.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params

from scalejax.config import Model
from scalejax.model.parametrization import mup
from scalejax.model.transformer import abstract, initialize
from scalejax.training import loss

Z_LOSS = 0.03


def make_loss(*, tied: bool = False, compute_dtype: str = "float32"):
    """The parameters of a model, its output multiplier, and its two sums.

    The sums are a function of parameters, hidden states, targets, weights and z-loss.
    """
    model = Model(
        width=16, depth=1, heads=2, kv_heads=2, head_size=8, mlp_width=32, vocabulary=40, tied=tied
    )
    parametrization = mup(base_width=8)
    graphdef, _ = abstract(model, parametrization, compute_dtype)
    params = initialize(model, parametrization, jax.random.key(0))

    def sums(params, *arguments):
        return loss.summed_loss(nnx.merge(graphdef, params), *arguments)

    return params, nnx.merge(graphdef, params).output_multiplier, sums


@pytest.fixture
def batch():
    """Hidden states, targets and weights, a third of which are zero."""
    keys = jax.random.split(jax.random.key(1), 3)
    x_btd = 3 * jax.random.normal(keys[0], (3, 12, 16))
    targets_bt = jax.random.randint(keys[1], (3, 12), 0, 40)
    weights_bt = jax.random.randint(keys[2], (3, 12), 0, 3) / jnp.float32(30)
    return x_btd, targets_bt, weights_bt


def in_float64(kernel_dv, batch, multiplier):
    """The formula, written once more: both sums, and the gradients of the first."""
    x_btd, targets_bt, weights_bt = batch
    kernel, x, weights = (np.asarray(a, np.float64) for a in (kernel_dv, x_btd, weights_bt))
    logits = multiplier * x @ kernel
    maximum = logits.max(-1, keepdims=True)
    z = np.exp(logits - maximum)
    log_z = np.log(z.sum(-1)) + maximum[..., 0]
    losses = log_z - np.take_along_axis(logits, np.asarray(targets_bt)[..., None], -1)[..., 0]
    without = (weights * losses).sum()
    probabilities = z / z.sum(-1, keepdims=True)
    dlogits = probabilities * (1 + 2 * Z_LOSS * log_z[..., None]) - np.eye(40)[targets_bt]
    dlogits *= multiplier * weights[..., None]
    gradients = (np.einsum("btd,btv->dv", x, dlogits), dlogits @ kernel.T)
    return without + Z_LOSS * (weights * log_z**2).sum(), without, gradients


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("positions", [1, 4, 12])
def test_chunks_give_the_sums_and_gradients_of_the_formula(tied, positions, batch, monkeypatch):
    monkeypatch.setattr(loss, "CACHED_LOGITS", positions * 3 * 40)
    params, multiplier, sums = make_loss(tied=tied)
    kernel = params["embedding"].T if tied else params["head"]
    expected_total, expected_without, expected_gradients = in_float64(kernel, batch, multiplier)

    def losses(params, x_btd):
        with_z_loss, without = sums(params, x_btd, *batch[1:], jnp.float32(Z_LOSS))
        # Scaled, so that the cotangent is not 1.
        return 3 * with_z_loss, without

    (total, without), (dparams, dx_btd) = jax.value_and_grad(losses, argnums=(0, 1), has_aux=True)(
        params, batch[0]
    )
    np.testing.assert_allclose(total / 3, expected_total, rtol=1e-6)
    np.testing.assert_allclose(without, expected_without, rtol=1e-6)
    dkernel = dparams["embedding"].T if tied else dparams["head"]
    np.testing.assert_allclose(dkernel / 3, expected_gradients[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dx_btd / 3, expected_gradients[1], rtol=1e-5, atol=1e-6)


def test_one_chunk_of_logits_exists_at_a_time(batch, monkeypatch):
    params, _, sums = make_loss()

    def largest_array() -> int:
        total = lambda params, *arrays: sums(params, *arrays, jnp.float32(0))[0]  # noqa: E731
        jaxpr = jax.make_jaxpr(jax.grad(total))(params, *batch)
        shapes = [var.aval.shape for eqn in flat_equations(jaxpr.jaxpr) for var in eqn.outvars]
        return max(int(np.prod(shape)) for shape in shapes if shape[-1:] == (40,))

    assert largest_array() == 3 * 12 * 40
    monkeypatch.setattr(loss, "CACHED_LOGITS", 2 * 3 * 40)
    # The kernel, [16, 40], is now larger than a chunk's logits.
    assert largest_array() == 16 * 40


def flat_equations(jaxpr):
    """Yield the equations of a jaxpr and of all jaxprs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from flat_equations(inner)


def test_bfloat16_activations_give_float32_sums_and_kernel_gradients(batch):
    x_btd, targets_bt, weights_bt = batch
    params, multiplier, sums = make_loss(compute_dtype="bfloat16")

    def total(params, x_btd):
        return sums(params, x_btd, targets_bt, weights_bt, jnp.float32(0))[0]

    value, (dparams, dx_btd) = jax.value_and_grad(total, argnums=(0, 1))(
        params, x_btd.astype(jnp.bfloat16)
    )
    expected = in_float64(params["head"], batch, multiplier)
    dtypes = (value.dtype, dparams["head"].dtype, dx_btd.dtype)
    assert dtypes == (jnp.float32, jnp.float32, jnp.bfloat16)
    np.testing.assert_allclose(value, expected[1], rtol=0.02)
