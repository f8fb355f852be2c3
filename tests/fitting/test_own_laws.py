"""Laws of one's own: units are checked, and inputs may be zero.

Mirrors scalejax/fitting/parametric/units.py and the field `raw` of a law.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import scalejax
from scalejax.fitting.extrapolation import extrapolation
from scalejax.laws.law import EXPONENT, OFFSET, Coordinate, Linear, ParametricLaw, scale


class Farseer(NamedTuple):
    """L = E + B N^-b D^-(A N^-a): the exponent of D depends on N."""

    E: float
    B: float
    b: float
    A: float
    a: float

    def loss(self, N, D):
        return self.E + self.B * N**-self.b * jnp.exp(-self.A * N**-self.a * jnp.log(D))


FARSEER = ParametricLaw(
    name="farseer",
    form=Farseer,
    predict=Farseer.loss,
    inputs=("params", "tokens"),
    coordinates=(
        OFFSET,
        scale(("b", 0, 1.0)),
        EXPONENT,
        Coordinate(-15.0, 15.0, log=True, units=(("a", 0, 1.0),)),
        EXPONENT,
    ),
    linear=Linear(
        ("E", "B"),
        lambda s, N, D: (1.0, N**-s.b * jnp.exp(-(s.A * N**-s.a) * jnp.log(D))),
    ),
    grid=(("b", (0.05, 0.3)), ("A", (0.1, 0.3, 0.6)), ("a", (0.02, 0.1, 0.3))),
)


class Mixture(NamedTuple):
    """L = c + k exp(t r), of a proportion r."""

    c: float
    k: float
    t: float

    def loss(self, r):
        return self.c + self.k * jnp.exp(self.t * r)


MIXTURE = ParametricLaw(
    name="mixture",
    form=Mixture,
    predict=Mixture.loss,
    inputs=("web",),
    axes=(0,),
    additive=True,
    coordinates=(OFFSET, scale(("t", 0, -1.0)), Coordinate(-20.0, 20.0)),
    linear=Linear(("c", "k"), lambda s, r: (1.0, jnp.exp(s.t * r))),
    grid=(("t", (-4.0, -1.0, 1.0, 4.0)),),
)


def farseer_table():
    N, D = (x.ravel() for x in np.meshgrid(np.geomspace(1e8, 6.4e9, 7), np.geomspace(1e9, 1e11, 7)))
    loss = np.asarray(1.8 + 200 * N**-0.05 * D ** -(2.0 * N**-0.1))
    return pd.DataFrame({"params": N, "tokens": D, "loss": loss})


def test_a_law_that_changes_its_shape_with_a_unit_is_refused_by_the_input():
    with pytest.raises(ValueError, match=r"with the unit of tokens: .* raw=\('tokens',\)"):
        scalejax.fit(farseer_table(), FARSEER, bootstrap=0)


def test_an_input_that_keeps_its_unit_makes_it_exact():
    table = farseer_table()
    law = dataclasses.replace(FARSEER, raw=("tokens",))
    fit = scalejax.fit(table, law, loss="log-mse", bootstrap=0)
    predicted = fit.predict(params=table.params, tokens=table.tokens).value
    assert np.abs(predicted / table.loss - 1).max() < 1e-5


def test_a_forgotten_unit_is_found():
    coordinates = (OFFSET, scale(), EXPONENT, *FARSEER.coordinates[3:])
    wrong = dataclasses.replace(FARSEER, coordinates=coordinates, raw=("tokens",))
    with pytest.raises(ValueError, match="with the unit of params"):
        scalejax.fit(farseer_table(), wrong, bootstrap=0)


def test_a_proportion_may_be_zero():
    r = np.array([0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
    table = pd.DataFrame({"web": r, "loss": 2.2 + 0.6 * np.exp(-3 * r)})
    fit = scalejax.fit(table, MIXTURE, bootstrap=0)
    assert fit.params["c"] == pytest.approx(2.2, rel=1e-6)
    assert fit.params["t"] == pytest.approx(-3, rel=1e-5)
    assert fit.predict(web=0.0).value == pytest.approx(2.8, rel=1e-6)
    assert extrapolation({"web": 1.5}, fit.ranges) == ["web is 1.5, and 0 to 1 in the fit"]
    with pytest.raises(ValueError, match="loss is 0 in row 0"):
        scalejax.fit(table.assign(loss=0.0), MIXTURE, bootstrap=0)


def test_a_raw_input_needs_an_axis_of_its_own():
    with pytest.raises(ValueError, match="no parameter a unit in it"):
        dataclasses.replace(FARSEER, raw=("params",))
    with pytest.raises(ValueError, match="must be among its inputs params, tokens; got web"):
        dataclasses.replace(FARSEER, raw=("web",))
