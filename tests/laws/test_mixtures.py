"""The law of training mixtures (mirrors scalejax/laws/mixtures.py)."""

import numpy as np
import pytest

from scalejax import laws
from scalejax.laws.mixtures import FORMULA


def test_the_law_of_equal_domains_is_one_law_and_says_its_formula():
    law = laws.named("mixture:web,code")
    assert law == laws.mixture(("web", "code")) and law.formula == FORMULA.strip()
    assert law.inputs == ("web", "code") and law.names == ("c", "k", "t_code")
    # Proportions may be zero, and keep their unit.
    assert law.signed == ("web", "code")


def test_a_domain_without_weight_does_not_count():
    law = laws.mixture(("web", "code"))
    form = law.form(2.0, 1.5, -1.0)
    losses = np.asarray(law.predict(form, np.array([1.0, 0.0]), np.array([0.0, 1.0])))
    assert losses == pytest.approx([3.5, 2.0 + 1.5 * np.exp(-1.0)], rel=1e-6)


@pytest.mark.parametrize("domains", [(), ("web",), ("web", "web"), ("web", "")])
def test_one_domain_is_no_mixture(domains):
    with pytest.raises(ValueError, match="two or more different domains, such as mixture:web,code"):
        laws.mixture(domains)
