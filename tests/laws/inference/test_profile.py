"""Profile likelihoods (mirrors scalejax/laws/inference/profile.py)."""

import numpy as np
import pytest

from scalejax import laws
from tests.laws.solver.test_multistart import fitted, noisy
from tests.laws.test_forms import TRUTHS, exact


def test_a_profile_is_lowest_at_the_fit_and_rises_on_both_sides():
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 0)
    optimum, params = fitted(law, inputs, targets)
    values = params["alpha"] + np.array([-0.1, -0.02, 0.0, 0.02, 0.1])
    objective = laws.profile(law, inputs, targets, "alpha", values)
    assert objective[2] == pytest.approx(float(optimum.state.cost[0]), rel=1e-9)
    assert np.all(np.diff(objective) * [-1, -1, 1, 1] > 1e-4 * objective[2])


def test_a_profile_is_flat_where_the_rows_do_not_determine_the_parameter():
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 1)
    line = [inputs[0], 20 * inputs[0]]
    noise = np.random.default_rng(0).normal(0, 0.01, len(targets))
    on_line = exact(law, TRUTHS["chinchilla"], line) * np.exp(noise)
    values = [0.25, 0.3, 0.35]
    flat = laws.profile(law, line, on_line, "alpha", values)
    steep = laws.profile(law, inputs, targets, "alpha", values)
    assert np.ptp(flat) / flat.min() < 0.1 * np.ptp(steep) / steep.min()


def test_a_profile_of_an_unknown_parameter_is_refused():
    inputs, targets = noisy(laws.chinchilla(), "chinchilla", 1)
    with pytest.raises(ValueError, match="no parameter gamma"):
        laws.profile(laws.chinchilla(), inputs, targets, "gamma", [1.0])
