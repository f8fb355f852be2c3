import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalejax import laws
from scalejax.laws.law import Decays, Linear
from scalejax.laws.solver.derivatives import RowWeights, expand
from scalejax.laws.solver.problem import parameters_in_centred_units

LAWS = (laws.chinchilla(), laws.power(), laws.overtraining(), laws.width_depth(), laws.downstream())


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_the_sums_of_decays_are_those_of_differentiating_the_formula(law):
    assert isinstance(law.linear, Decays)
    by_formula = dataclasses.replace(law, linear=Linear(law.linear.names, law.linear.columns))
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        coordinates = jnp.asarray(rng.uniform(0.2, 0.7, (len(law.names), 3)))
        inputs = tuple(jnp.asarray(np.exp(rng.normal(size=40))) for _ in law.inputs)
        weights = RowWeights(*jnp.asarray(rng.normal(size=(3, 40, 3))))
        (predicted, sums), (expected, differentiated) = (
            expand(each, coordinates, inputs) for each in (law, by_formula)
        )
        np.testing.assert_allclose(predicted, expected, rtol=1e-13)
        found, wanted = sums(weights), differentiated(weights)
        for sum_, expected in zip(found[:2], wanted[:2], strict=True):
            np.testing.assert_allclose(sum_, expected, rtol=1e-10, atol=1e-11)
        own = [i for i, name in enumerate(law.names) if law.linear.exponents.count(name) < 2]
        np.testing.assert_allclose(found[2][jnp.array(own)], wanted[2][jnp.array(own)], rtol=1e-10)


@pytest.mark.parametrize("law", (*LAWS, laws.sigmoid()), ids=lambda law: law.name)
def test_the_columns_are_slopes_of_the_formula(law):
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        form = parameters_in_centred_units(law, jnp.asarray(rng.uniform(0.2, 0.7, len(law.names))))
        inputs = [jnp.asarray(np.exp(rng.normal(size=40))) for _ in law.inputs]
        for name, column in zip(law.linear.names, law.linear.columns(form, *inputs), strict=True):
            moved = law.predict(form._replace(**{name: getattr(form, name) + 0.125}), *inputs)
            slope = (moved - law.predict(form, *inputs)) / 0.125
            np.testing.assert_allclose(slope, np.broadcast_to(column, slope.shape), rtol=1e-11)
