"""Derivatives summed over rows (mirrors scalejax/laws/solver/derivatives.py)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalejax import laws
from scalejax.laws.law import Decays, Linear
from scalejax.laws.solver.derivatives import RowWeights, expand
from scalejax.laws.solver.problem import parameters_in_centred_units

SUMS_OF_DECAYS = (
    laws.chinchilla(),
    laws.power(),
    laws.overtraining(),
    laws.width_depth(),
    laws.downstream(),
)


@pytest.mark.parametrize("law", SUMS_OF_DECAYS, ids=lambda law: law.name)
def test_the_sums_of_decays_equal_those_of_differentiating_the_formula(law):
    decays = law.linear
    assert isinstance(decays, Decays)
    by_formula = dataclasses.replace(law, linear=Linear(decays.names, decays.columns))
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        coordinates = jnp.asarray(rng.uniform(0.2, 0.7, (len(law.names), 3)))
        inputs = tuple(jnp.asarray(np.exp(rng.normal(size=40))) for _ in law.inputs)
        weights = RowWeights(*jnp.asarray(rng.normal(size=(3, 40, 3))))
        fast = expand(law, coordinates, inputs)
        slow = expand(by_formula, coordinates, inputs)
        np.testing.assert_allclose(fast.predicted, slow.predicted, rtol=1e-13)
        actual, desired = fast.sums(weights), slow.sums(weights)
        np.testing.assert_allclose(actual.gradient, desired.gradient, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(actual.hessian, desired.hessian, rtol=1e-10, atol=1e-11)
        # The IRLS diagonal is exact for exponents that belong to one term only.
        own = [i for i, name in enumerate(law.names) if decays.exponents.count(name) < 2]
        np.testing.assert_allclose(
            actual.irls_diagonal[jnp.array(own)],
            desired.irls_diagonal[jnp.array(own)],
            rtol=1e-10,
        )


@pytest.mark.parametrize("law", (*SUMS_OF_DECAYS, laws.sigmoid()), ids=lambda law: law.name)
def test_the_columns_of_the_linear_parameters_are_slopes_of_the_formula(law):
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        coordinates = jnp.asarray(rng.uniform(0.2, 0.7, len(law.names)))
        form = parameters_in_centred_units(law, coordinates)
        inputs = [jnp.asarray(np.exp(rng.normal(size=40))) for _ in law.inputs]
        columns = law.linear.columns(form, *inputs)
        for name, column in zip(law.linear.names, columns, strict=True):
            moved = law.predict(form._replace(**{name: getattr(form, name) + 0.125}), *inputs)
            slope = (moved - law.predict(form, *inputs)) / 0.125
            np.testing.assert_allclose(slope, np.broadcast_to(column, slope.shape), rtol=1e-11)
