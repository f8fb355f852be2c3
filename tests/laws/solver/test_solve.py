"""laws.solve in a user's own program (mirrors scalejax/laws/solver/solve.py)."""

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


def exponent(targets) -> jax.Array:
    return jnp.asarray(laws.solve(LAW, INPUTS, targets, loss="log-mse").parameters.alpha)


@pytest.mark.parametrize("x64", [False, True])
def test_jit_vmap_grad_and_scan_keep_the_callers_dtype(x64):
    with jax.enable_x64(x64):
        dtype = jnp.float64 if x64 else jnp.float32
        tables = jnp.asarray(np.stack([TARGETS, 1.01 * TARGETS]), dtype)
        solution = jax.jit(lambda y: laws.solve(LAW, INPUTS, y))(tables[0])
        assert all(x.dtype == dtype for x in jax.tree.leaves(solution))
        slopes = jax.jit(jax.vmap(jax.grad(exponent)))(tables)
        assert slopes.dtype == dtype and slopes.shape == tables.shape
        _, scanned = jax.lax.scan(lambda carry, y: (carry, exponent(y)), 0.0, tables)
        np.testing.assert_allclose(scanned, jax.vmap(exponent)(tables), rtol=1e-6)
        # A factor on the loss changes A, B and E only.
        np.testing.assert_allclose(scanned[0], scanned[1], rtol=1e-5)
    assert jnp.result_type(float) == jnp.float32, "x64 must not stay on"


def test_a_target_that_is_no_number_has_no_optimum():
    solution = laws.solve(LAW, INPUTS, jnp.asarray(TARGETS).at[3].set(jnp.nan))
    assert solution.starts_at_optimum == 0 and not jnp.isfinite(solution.objective)
    assert jnp.isnan(solution.gradient_norm) and jnp.isnan(solution.parameters.alpha)


def test_missing_rows_of_weight_0_are_left_out():
    """The last row is repeated to pad the table."""
    missing, sizes, weights = np.array([0, 7, 29]), np.array(INPUTS[0]), np.ones(30)
    sizes[7], weights[missing] = np.nan, 0.0

    def solve(targets):
        return laws.solve(LAW, (sizes, INPUTS[1]), targets, weights, loss="log-mse")

    targets = TARGETS.copy()
    targets[[0, 29]] = np.nan
    left = np.delete(np.arange(30), missing)
    expected = laws.solve(LAW, tuple(x[left] for x in INPUTS), TARGETS[left], loss="log-mse")
    found = solve(targets)
    assert found.starts_at_optimum > 0
    for one, other in zip(found.parameters, expected.parameters, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)
    slopes = jax.grad(lambda y: solve(y).parameters.alpha)(jnp.asarray(targets))
    assert jnp.isfinite(slopes).all() and not slopes[missing].any() and slopes[1]


@pytest.mark.parametrize(
    "transform", [lambda f: jax.vmap(jax.jit(f)), lambda f: jax.vmap(jax.grad(jax.jit(f)))]
)
def test_vmap_over_a_jitted_fit_keeps_float64_inside(transform):
    """Jax batches a traced program outside the scope that enabled x64.

    Without care it would cut the matrix products inside to float32.
    """
    tables = np.stack([TARGETS, 1.01 * TARGETS]).astype(np.float32)
    batched = transform(exponent)(tables)
    function = jax.grad(exponent) if batched.ndim == 2 else exponent
    one_by_one = [function(y) for y in jnp.asarray(tables)]
    np.testing.assert_allclose(batched, one_by_one, rtol=1e-6)


@pytest.mark.parametrize("loss", ["mse", "huber:1e-3"])
def test_the_gradient_through_a_fit_matches_finite_differences(loss):
    """Of alpha, A, E and the objective, along a target, a size and a weight."""
    with jax.enable_x64(True):

        def outputs(targets, sizes, weights):
            solution = laws.solve(LAW, (sizes, INPUTS[1]), targets, weights, loss=loss)
            law = solution.parameters
            return jnp.stack([law.alpha, law.A, law.E, solution.objective])

        arguments = [jnp.asarray(TARGETS), jnp.asarray(INPUTS[0]), jnp.ones(30)]
        slopes = jax.jit(jax.jacrev(outputs, argnums=(0, 1, 2)))(*arguments)
        value = jax.jit(outputs)
        for i, slope in enumerate(slopes):
            # The row on which alpha depends most.
            row = int(np.argmax(np.abs(slope[0] * arguments[i])))
            step = jnp.zeros(30).at[row].set(1e-5 * arguments[i][row])
            ahead, behind = (
                value(*[x + sign * step if j == i else x for j, x in enumerate(arguments)])
                for sign in (1, -1)
            )
            difference = (ahead - behind) / (2 * step[row])
            np.testing.assert_allclose(difference, slope[:, row], rtol=1e-5)


def test_the_starts_of_the_caller_are_used():
    by_grid = laws.solve(LAW, INPUTS, TARGETS)
    from_optimum = laws.solve(LAW, INPUTS, TARGETS, starts=by_grid.parameters)
    assert float(from_optimum.starts_at_optimum) == 1.0
    actual, desired = np.array(from_optimum.parameters), np.array(by_grid.parameters)
    np.testing.assert_allclose(actual, desired, rtol=1e-5)


def test_shapes_that_do_not_fit_the_law_are_refused():
    with pytest.raises(ValueError, match="reads params, tokens"):
        laws.solve(LAW, INPUTS[:1], TARGETS)
    with pytest.raises(ValueError, match="5 free parameters; got 3 rows"):
        laws.solve(LAW, [x[:3] for x in INPUTS], TARGETS[:3])
