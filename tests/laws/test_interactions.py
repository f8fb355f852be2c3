"""Laws in which size and tokens interact (mirrors scalejax/laws/interactions.py)."""

import numpy as np
import pytest

from scalejax import laws
from scalejax.laws.interactions import Interaction
from tests.laws.test_forms import TRUTHS, exact


def test_with_k_of_one_the_law_is_chinchillas():
    N, D = np.geomspace(1e7, 1e10, 5), np.geomspace(1e9, 1e11, 5)
    base = TRUTHS["chinchilla"]
    same = Interaction(base.A, base.B, base.E, base.alpha, base.beta, 1.0)
    expected = exact(laws.chinchilla(), base, [N, D])
    np.testing.assert_allclose(exact(laws.interaction(), same, [N, D]), expected, rtol=1e-12)


def test_below_one_more_tokens_help_a_larger_model_more():
    def ratio_of_gains(k):
        law = Interaction(400.0, 900.0, 1.7, 0.4, 0.42, k)
        N = np.array([1e8, 1e10])
        before, after = (exact(laws.interaction(), law, [N, D]) for D in (1e10, 1e11))
        return np.divide(*(before - after)[::-1])

    assert ratio_of_gains(1.0) == pytest.approx(1.0, rel=1e-9)
    assert ratio_of_gains(0.7) > 1.1 and ratio_of_gains(1.5) < 0.9


def test_the_optimal_size_minimizes_the_loss_at_its_budget():
    law, C = TRUTHS["interaction"], 1e21
    best = laws.compute_optimal(law, C)
    around = best.params * np.array([0.99, 1.0, 1.01])
    losses = exact(laws.interaction(), law, [around, C / (6 * around)])
    assert losses[1] < min(losses[0], losses[2])
    draws = Interaction(*(np.full(3, x) for x in law))
    low, high = laws.compute_optimal_bands(draws, C)
    assert low.params == pytest.approx(best.params) == high.params
    # The penalty of over-training needs the size of each term, which k mixes.
    with pytest.raises(ValueError, match="Interaction law"):
        laws.overtraining_penalty(law, C, 2.0)
