"""Compute-optimal and inference-optimal runs (mirrors scalejax/laws/optimal.py)."""

import numpy as np
import pytest

from scalejax import laws
from scalejax.laws.forms import Chinchilla
from tests.laws.test_forms import TRUTHS

EPOCH = Chinchilla(A=477.825868, B=2143.41736, E=1.81721810, alpha=0.34731050, beta=0.36717243)


def loss(law, N, D):
    return law.E + law.A * N**-law.alpha + law.B * D**-law.beta


def test_the_compute_optimal_run_costs_its_budget_and_no_other_size_is_better():
    C = np.geomspace(1e18, 1e26, 5)
    best = laws.compute_optimal(EPOCH, C)
    np.testing.assert_allclose(6 * best.params * best.tokens, C, rtol=1e-12)
    np.testing.assert_allclose(best.tokens / best.params, best.tokens_per_param, rtol=1e-12)
    for factor in (0.99, 1.01):
        assert np.all(
            loss(EPOCH, best.params * factor, best.tokens / factor)
            > loss(EPOCH, best.params, best.tokens)
        )


def test_the_over_training_law_has_the_optimum_of_its_chinchilla_view():
    gadre = TRUTHS["overtraining"]
    best = laws.compute_optimal(gadre, 1e21)
    assert best.params == pytest.approx(
        laws.compute_optimal(gadre.chinchilla(), 1e21).params, rel=1e-12
    )
    others = [laws.compute_optimal(gadre, C).tokens_per_param for C in (1e18, 1e24)]
    # With equal exponents, tokens per parameter are the same at every budget.
    np.testing.assert_allclose(others, best.tokens_per_param, rtol=1e-9)


def test_bands_are_percentiles_of_the_draws_at_each_budget():
    beta = np.linspace(0.30, 0.45, 1001)
    held = {name: np.full(beta.shape, value) for name, value in EPOCH._asdict().items()}
    draws = Chinchilla(**(held | {"beta": beta}))
    budgets = np.array([1e20, 1e23])
    low, high = laws.compute_optimal_bands(draws, budgets)
    for i, C in enumerate(budgets):
        each = [
            float(laws.compute_optimal(EPOCH._replace(beta=b), C).tokens_per_param) for b in beta
        ]
        assert low.tokens_per_param[i] == pytest.approx(np.percentile(each, 2.5), rel=0.01)
        assert high.tokens_per_param[i] == pytest.approx(np.percentile(each, 97.5), rel=0.01)
    narrow = laws.compute_optimal_bands(draws, 1e23, level=0.5)
    wide = laws.compute_optimal_bands(draws, 1e23)
    assert wide[0].params < narrow[0].params < narrow[1].params < wide[1].params


def test_draws_without_an_optimum_open_the_band():
    # In 5% of the draws both exponents are zero.
    flat = np.arange(100) < 5
    draws = Chinchilla(*(np.full(100, x) for x in EPOCH))
    draws = draws._replace(
        alpha=np.where(flat, 0.0, EPOCH.alpha), beta=np.where(flat, 0.0, EPOCH.beta)
    )
    low, high = laws.compute_optimal_bands(draws, 1e23)
    assert low.params == 0 and high.params == np.inf
    # 1 of 96 is not enough to open a 95% band.
    few = Chinchilla._make(np.asarray(x)[4:] for x in draws)
    low, high = laws.compute_optimal_bands(few, 1e23)
    assert 0 < low.params <= high.params < np.inf


def test_the_penalty_is_the_difference_of_two_losses_at_one_budget():
    factor, C = np.array([0.1, 0.5, 1.0, 4.0, 32.0]), 1e22
    best = laws.compute_optimal(EPOCH, C)
    N, D = best.params / np.sqrt(factor), best.tokens * np.sqrt(factor)
    penalty = laws.overtraining_penalty(EPOCH, C, factor)
    np.testing.assert_allclose(
        penalty, loss(EPOCH, N, D) - loss(EPOCH, best.params, best.tokens), atol=1e-13
    )
    assert penalty[2] == 0 and np.all(penalty[[0, 1, 3, 4]] > 0)


def test_without_inference_the_cheapest_run_of_a_loss_is_the_compute_optimal_one():
    best = laws.compute_optimal(EPOCH, 1e22)
    cheapest = laws.inference_optimal(EPOCH, loss(EPOCH, best.params, best.tokens), 0.0)
    np.testing.assert_allclose(cheapest, best, rtol=1e-9)


def test_with_inference_a_smaller_model_on_more_tokens_is_cheapest():
    target, served = loss(EPOCH, 7e10, 1.4e12), np.array([0.0, 1e11, 1e13, 1e16])
    cheapest = laws.inference_optimal(EPOCH, target, served)
    assert np.all(np.diff(cheapest.params) < 0) and np.all(np.diff(cheapest.tokens) > 0)
    reached = loss(EPOCH, cheapest.params, cheapest.tokens)
    np.testing.assert_allclose(reached, target, rtol=1e-12)

    def cost(N):
        D = (EPOCH.B / (target - EPOCH.E - EPOCH.A * N**-EPOCH.alpha)) ** (1 / EPOCH.beta)
        return 6 * N * D + 2 * N * served

    for factor in (0.999, 1.001):
        assert np.all(cost(cheapest.params * factor) > cost(cheapest.params))


def test_draws_that_never_reach_the_loss_have_no_run():
    draws = Chinchilla(*(np.full(3, x) for x in EPOCH))._replace(E=np.array([1.7, 1.8, 2.1]))
    cheapest = laws.inference_optimal(draws, 2.0, 1e12)
    np.testing.assert_array_equal(np.isnan(cheapest.params), [False, False, True])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: laws.compute_optimal(EPOCH, -1.0), "flops must be positive"),
        (
            lambda: laws.compute_optimal(TRUTHS["kaplan"], 1e20),
            "Kaplan law has no compute-optimal run",
        ),
        (lambda: laws.overtraining_penalty(EPOCH, 1e20, 0.0), "factor must be positive"),
        (lambda: laws.inference_optimal(EPOCH, 1.5, 1e12), "no run reaches a loss of 1.5"),
        (lambda: laws.inference_optimal(EPOCH, 2.5, -1.0), "inference_tokens must be 0 or more"),
    ],
)
def test_questions_without_an_answer_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
