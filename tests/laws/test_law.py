"""What all kinds of law share (mirrors scalejax/laws/law.py)."""

import pytest

from scalejax import laws
from scalejax.laws.law import Law


@pytest.mark.parametrize(
    ("held", "allowed"),
    [
        ({"A": -3.0}, "positive"),
        ({"A": 0.0}, "positive"),
        ({"E": -1.0}, "0 or more"),
        ({"alpha": float("nan")}, "between 0 and 5"),
        ({"alpha": 5.1}, "between 0 and 5"),
    ],
)
def test_a_parameter_cannot_be_held_at_an_impossible_value(held, allowed):
    with pytest.raises(ValueError, match=f"of the chinchilla law is {allowed}"):
        laws.chinchilla(**held)


def test_a_parameter_that_the_law_does_not_have_cannot_be_held():
    with pytest.raises(ValueError, match="no parameter gamma; it has A, B, E, alpha, beta"):
        laws.chinchilla(gamma=1.0)


def test_a_held_parameter_is_not_free_and_a_later_value_replaces_it():
    law = laws.chinchilla(E=1.5)
    assert law.free == 4 and law.hold(E=1.7).fixed == (("E", 1.7),)
    assert law.hold(alpha=0.3).fixed == (("E", 1.5), ("alpha", 0.3))
    assert laws.chinchilla(tied=True).free == 4


@pytest.mark.parametrize("name", laws.NAMES)
def test_every_kind_of_law_has_names_and_a_formula_with_its_source(name):
    law = laws.named(name)
    assert isinstance(law, Law) and law.name == name
    assert law.names and law.free == len(law.names)
    first, _, letters = law.formula.partition("\n\n")
    assert "=" in first and letters.strip()


def test_laws_of_different_kinds_are_different_types():
    kinds = {name: type(laws.named(name)) for name in laws.NAMES}
    assert kinds["chinchilla"] is kinds["downstream"] is laws.ParametricLaw
    assert kinds["annealing"] is kinds["multipower"] is laws.CurveLaw
    assert kinds["isoflop"] is laws.IsoFLOP
    assert kinds["hyperparameters"] is laws.HyperparameterLaw
