"""The solver recovers known truths, whatever the starts, the padding and the units (mirrors scalejax/laws/fit.py)."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalejax import laws
from scalejax.laws.solver.losses import parse_loss
from scalejax.laws.solver.multistart import find_optimum, refit
from scalejax.laws.solver.problem import parameters_in_table_units
from tests.laws.test_forms import TRUTHS, design, exact


def fitted(law, inputs, targets, text="huber:1e-3", weights=None):
    at = find_optimum(
        law,
        inputs,
        targets,
        np.ones(len(targets)) if weights is None else weights,
        parse_loss(text),
    )
    return at, {
        name: float(x[0])
        for name, x in parameters_in_table_units(law, at.problem, at.theta[:, None])
        ._asdict()
        .items()
    }


@pytest.mark.parametrize("name", TRUTHS)
def test_noise_free_truth_is_recovered(name):
    law, truth = laws.named(name), TRUTHS[name]
    inputs = design(law, np.random.default_rng(0))
    targets = exact(law, truth, inputs)
    at, found = fitted(law, inputs, targets)
    predicted = exact(law, law.form(**found), inputs)
    np.testing.assert_allclose(predicted, targets, rtol=1e-10)
    tolerance = {"chinchilla": 1e-12, "power": 1e-12, "overtraining": 1e-11}.get(name, 1e-8)
    np.testing.assert_allclose(list(found.values()), truth, rtol=tolerance)
    assert at.starts_at_optimum > 0.2


@pytest.mark.parametrize("text", ["huber:1e-3", "lad", "mse", "log-mse", "asymmetric:10"])
def test_every_loss_recovers_a_noise_free_truth(text):
    law, truth = laws.chinchilla(), TRUTHS["chinchilla"]
    inputs = design(law, np.random.default_rng(2))
    _, found = fitted(law, inputs, exact(law, truth, inputs), text)
    np.testing.assert_allclose(list(found.values()), truth, rtol=1e-9)


def noisy(law, name, seed, rows=60, noise=0.01):
    rng = np.random.default_rng(seed)
    inputs = design(law, rng, rows)
    return inputs, exact(law, TRUTHS[name], inputs) * np.exp(rng.normal(0, noise, rows))


@pytest.mark.parametrize("text", ["huber:1e-3", "log-mse", "mse"])
def test_no_nearby_parameters_are_better(text):
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 3)
    at, found = fitted(law, inputs, targets, text)
    chosen = parse_loss(text)

    def objective(form):
        predicted = exact(law, form, inputs)
        r = np.log(predicted / targets) if chosen.residual == "log" else predicted - targets
        return float(np.sum(np.asarray(chosen.stages[-1].cost(r), np.float64)))

    best = float(at.state.cost[0])
    np.testing.assert_allclose(best, objective(law.form(**found)), rtol=1e-6)
    rng = np.random.default_rng(0)
    for _ in range(200):
        moved = law.form(**{name: x * np.exp(rng.normal(0, 0.02)) for name, x in found.items()})
        assert objective(moved) >= best * (1 - 1e-6)


@given(extra=st.integers(1, 200), seed=st.integers(0, 10**6))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_rows_of_weight_zero_change_nothing(extra, seed):
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", seed % 7)
    _, alone = fitted(law, inputs, targets)
    pick = np.random.default_rng(seed).integers(len(targets), size=extra)
    more = [np.concatenate([x, x[pick]]) for x in inputs]
    weights = np.concatenate([np.ones(len(targets)), np.zeros(extra)])
    _, padded = fitted(law, more, np.concatenate([targets, 3 * targets[pick]]), weights=weights)
    np.testing.assert_allclose(list(padded.values()), list(alone.values()), rtol=1e-9)


def test_a_row_of_weight_two_counts_twice():
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 4)
    _, twice = fitted(law, [np.append(x, x[0]) for x in inputs], np.append(targets, targets[0]))
    weights = np.ones(len(targets))
    weights[0] = 2
    _, weighted = fitted(law, inputs, targets, weights=weights)
    _, plain = fitted(law, inputs, targets)
    np.testing.assert_allclose(list(weighted.values()), list(twice.values()), rtol=1e-9)
    assert abs(weighted["A"] / plain["A"] - 1) > 1e-6, (
        "the row has no weight at all: this test could not fail"
    )


def test_units_of_the_inputs_move_only_the_scales():
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 5)
    _, tokens = fitted(law, inputs, targets)
    _, billions = fitted(law, [x / 1e9 for x in inputs], targets)
    for name in ("E", "alpha", "beta"):
        assert billions[name] == pytest.approx(tokens[name], rel=1e-9)
    assert billions["A"] == pytest.approx(tokens["A"] * 1e9 ** -tokens["alpha"], rel=1e-8)


def test_held_parameters_stay_and_the_others_adapt():
    inputs, targets = noisy(laws.chinchilla(), "chinchilla", 6)
    at, free = fitted(laws.chinchilla(), inputs, targets)
    bound, held = fitted(laws.chinchilla(A=500.0, beta=0.3), inputs, targets)
    assert held["A"] == pytest.approx(500.0, rel=1e-12) and held["beta"] == 0.3
    assert held["alpha"] != free["alpha"]
    assert float(bound.state.cost[0]) > float(at.state.cost[0])
    _, at_best = fitted(laws.chinchilla(A=free["A"], E=free["E"]), inputs, targets)
    np.testing.assert_allclose(list(at_best.values()), list(free.values()), rtol=1e-7)


def test_tied_exponents_give_the_overtraining_law():
    inputs, targets = noisy(laws.overtraining(), "overtraining", 7)
    _, gadre = fitted(laws.overtraining(), inputs, targets)
    _, tied = fitted(laws.chinchilla(tied=True), inputs, targets)
    assert tied["alpha"] == tied["beta"]
    np.testing.assert_allclose(
        list(tied.values()), laws.overtraining().form(**gadre).chinchilla(), rtol=1e-8
    )


def test_the_irreducible_loss_stops_at_zero():
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 8)
    at, found = fitted(law, inputs, targets - 1.9)
    assert found["E"] == 0.0
    assert float(at.state.gradient[law.names.index("E"), 0]) > 0, (
        "E rests on its bound and would go on falling"
    )


def test_refits_from_the_optimum_reach_what_starts_from_scratch_reach():
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 9)
    at, _ = fitted(law, inputs, targets)
    draws = (
        np.random.default_rng(0)
        .multinomial(len(targets), np.full(len(targets), 1 / len(targets)), size=40)
        .astype(float)
    )
    warm = refit(law, at, draws)
    for i in (0, 17, 39):
        scratch, _ = fitted(law, inputs, targets, weights=draws[i])
        assert float(warm.cost[i]) <= float(scratch.state.cost[0]) * (1 + 1e-6)
