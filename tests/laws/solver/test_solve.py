"""laws.solve in a user's own program (mirrors scalejax/laws/solution.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalejax import laws
from tests.laws.test_forms import TRUTHS, design, exact

LAW = laws.chinchilla()
RNG = np.random.default_rng(0)
INPUTS = design(LAW, RNG, 30)
TARGETS = exact(LAW, TRUTHS["chinchilla"], INPUTS) * np.exp(RNG.normal(0, 0.01, 30))


def exponent(targets, loss="log-mse"):
    return laws.solve(LAW, INPUTS, targets, loss=loss).parameters.alpha


@pytest.mark.parametrize("x64", [False, True])
def test_jit_vmap_grad_and_scan_keep_the_callers_dtype(x64):
    with jax.enable_x64(x64):
        dtype = jnp.float64 if x64 else jnp.float32
        two = jnp.asarray(np.stack([TARGETS, 1.01 * TARGETS]), dtype)
        solution = jax.jit(lambda y: laws.solve(LAW, INPUTS, y))(two[0])
        assert all(x.dtype == dtype for x in jax.tree.leaves(solution))
        slopes = jax.jit(jax.vmap(jax.grad(exponent)))(two)
        assert slopes.dtype == dtype and slopes.shape == two.shape
        _, scanned = jax.lax.scan(lambda carry, y: (carry, exponent(y)), 0.0, two)
        np.testing.assert_allclose(scanned, jax.vmap(exponent)(two), rtol=1e-6)
        np.testing.assert_allclose(
            scanned[0], scanned[1], rtol=1e-5
        )  # a factor on the loss moves A, B and E only
    assert jnp.result_type(float) == jnp.float32, "x64 must not stay on"


@pytest.mark.parametrize(
    "program", [lambda f: jax.vmap(jax.jit(f)), lambda f: jax.vmap(jax.grad(jax.jit(f)))]
)
def test_batching_what_was_jitted_before_keeps_float64_inside(program):
    """jax batches a traced program outside the scope that enabled x64; without care its matrix products are cut to float32."""
    two = np.stack([TARGETS, 1.01 * TARGETS]).astype(np.float32)
    batched = program(exponent)(two)
    alone = [jax.grad(exponent)(y) if batched.ndim == 2 else exponent(y) for y in jnp.asarray(two)]
    np.testing.assert_allclose(batched, alone, rtol=1e-6)


@pytest.mark.parametrize("loss", ["mse", "huber:1e-3"])
def test_the_gradient_through_a_fit_matches_finite_differences(loss):
    """alpha, A, E and the objective, with respect to a measured loss, a size and a weight."""
    with jax.enable_x64(True):

        def outputs(targets, sizes, weights):
            found = laws.solve(LAW, (sizes, INPUTS[1]), targets, weights, loss=loss)
            return jnp.stack(
                [found.parameters.alpha, found.parameters.A, found.parameters.E, found.objective]
            )

        at = [jnp.asarray(TARGETS), jnp.asarray(INPUTS[0]), jnp.ones(30)]
        slopes = jax.jit(jax.jacrev(outputs, argnums=(0, 1, 2)))(*at)
        value = jax.jit(outputs)
        for i, slope in enumerate(slopes):
            row = int(np.argmax(np.abs(slope[0] * at[i])))
            step = jnp.zeros(30).at[row].set(1e-5 * at[i][row])
            ahead, behind = (
                value(*[x + sign * step if j == i else x for j, x in enumerate(at)])
                for sign in (1, -1)
            )
            np.testing.assert_allclose((ahead - behind) / (2 * step[row]), slope[:, row], rtol=1e-5)


def test_given_starts_are_used():
    close = laws.solve(LAW, INPUTS, TARGETS)
    from_it = laws.solve(LAW, INPUTS, TARGETS, starts=close.parameters)
    assert float(from_it.starts_at_optimum) == 1.0
    np.testing.assert_allclose(from_it.parameters, close.parameters, rtol=1e-5)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="reads params, tokens"):
        laws.solve(LAW, INPUTS[:1], TARGETS)
    with pytest.raises(ValueError, match="5 free parameters; got 3 rows"):
        laws.solve(LAW, [x[:3] for x in INPUTS], TARGETS[:3])
