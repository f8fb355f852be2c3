"""Laws of several power terms (mirrors scalejax/laws/log_sum_exp.py)."""

import numpy as np
import pytest

from scalejax import laws
from scalejax.laws.forms import Chinchilla
from tests.laws.solver.test_multistart import fitted, noisy
from tests.laws.test_forms import TRUTHS, design, exact


def test_the_law_is_the_log_sum_exp_of_its_terms():
    law, truth = laws.width_depth(), TRUTHS["width-depth"]
    inputs = design(law, np.random.default_rng(0))
    logs = [np.log(A) - p * np.log(x) for A, p, x in zip(truth[:3], truth[4:], inputs, strict=True)]
    published = np.logaddexp.reduce([*logs, np.full(60, np.log(truth.E))])
    np.testing.assert_allclose(np.log(exact(law, truth, inputs)), published, rtol=1e-12)


def test_two_terms_are_chinchillas_law():
    law = laws.log_sum_exp("two", Chinchilla, ("params", "tokens"))
    inputs, targets = noisy(laws.chinchilla(), "chinchilla", 3)
    two_terms, params = fitted(law, inputs, targets)
    chinchilla, expected = fitted(laws.chinchilla(), inputs, targets)
    cost = float(chinchilla.state.cost[0])
    assert float(two_terms.state.cost[0]) == pytest.approx(cost, rel=1e-12)
    np.testing.assert_allclose(list(params.values()), list(expected.values()), rtol=1e-7)


def test_an_irreducible_loss_of_zero_ends_at_its_bound():
    law, truth = laws.width_depth(), TRUTHS["width-depth"]
    inputs = design(law, np.random.default_rng(0), 120)
    below = exact(law, truth._replace(E=0.0), inputs) - 0.1
    optimum, params = fitted(law, inputs, below)
    assert params["E"] == 0.0 and optimum.starts_at_optimum > 0.05


def test_a_form_with_too_few_parameters_for_the_columns_is_refused():
    with pytest.raises(ValueError, match="has 7 parameters"):
        laws.log_sum_exp("three", Chinchilla, ("width", "depth", "tokens"))
