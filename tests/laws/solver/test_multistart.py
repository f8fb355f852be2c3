"""The optimum, whatever the padding and the units (mirrors .../multistart.py)."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalejax import laws
from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.losses import parse_loss
from scalejax.laws.solver.multistart import Optimum, find_optimum, refit
from scalejax.laws.solver.problem import parameters_in_table_units
from tests.laws.test_forms import TRUTHS, design, exact


def fitted(
    law: ParametricLaw,
    inputs: list[np.ndarray],
    targets: np.ndarray,
    text: str = "huber:1e-3",
    weights: np.ndarray | None = None,
) -> tuple[Optimum, dict[str, float]]:
    """Fit a law; returns the optimum, and the parameters in table units."""
    weights = np.ones(len(targets)) if weights is None else weights
    optimum = find_optimum(law, inputs, targets, weights, parse_loss(text))
    parameters = parameters_in_table_units(law, optimum.problem, optimum.theta[:, None])
    return optimum, {name: float(value[0]) for name, value in parameters._asdict().items()}


def noisy(
    law: ParametricLaw, name: str, seed: int, rows: int = 60, noise: float = 0.01
) -> tuple[list[np.ndarray], np.ndarray]:
    """Inputs, and targets around the true law of a name with log-normal noise."""
    rng = np.random.default_rng(seed)
    inputs = design(law, rng, rows)
    return inputs, exact(law, TRUTHS[name], inputs) * np.exp(rng.normal(0, noise, rows))


@pytest.mark.parametrize("name", TRUTHS)
def test_a_noise_free_truth_is_recovered(name):
    law, truth = laws.named(name), TRUTHS[name]
    assert isinstance(law, ParametricLaw)
    inputs = design(law, np.random.default_rng(0))
    targets = exact(law, truth, inputs)
    optimum, params = fitted(law, inputs, targets)
    predicted = exact(law, law.form(**params), inputs)
    np.testing.assert_allclose(predicted, targets, rtol=1e-10)
    tolerance = {"chinchilla": 1e-12, "power": 1e-12, "overtraining": 1e-11}.get(name, 1e-8)
    np.testing.assert_allclose(list(params.values()), truth, rtol=tolerance)
    assert optimum.starts_at_optimum > 0.2


@pytest.mark.parametrize("text", ["huber:1e-3", "lad", "mse", "log-mse", "asymmetric:10"])
def test_every_loss_recovers_a_noise_free_truth(text):
    law, truth = laws.chinchilla(), TRUTHS["chinchilla"]
    inputs = design(law, np.random.default_rng(2))
    _, params = fitted(law, inputs, exact(law, truth, inputs), text)
    np.testing.assert_allclose(list(params.values()), truth, rtol=1e-9)


@pytest.mark.parametrize("text", ["huber:1e-3", "log-mse", "mse"])
def test_no_nearby_parameters_are_better(text):
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 3)
    optimum, params = fitted(law, inputs, targets, text)
    loss = parse_loss(text)

    def objective(form):
        predicted = exact(law, form, inputs)
        r = np.log(predicted / targets) if loss.residual == "log" else predicted - targets
        return float(np.sum(np.asarray(loss.stages[-1].cost(r), np.float64)))

    best = float(optimum.state.cost[0])
    np.testing.assert_allclose(best, objective(law.form(**params)), rtol=1e-6)
    rng = np.random.default_rng(0)
    for _ in range(200):
        moved = law.form(**{name: x * np.exp(rng.normal(0, 0.02)) for name, x in params.items()})
        assert objective(moved) >= best * (1 - 1e-6)


@given(extra=st.integers(1, 200), seed=st.integers(0, 10**6))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_rows_of_weight_zero_change_nothing(extra, seed):
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", seed % 7)
    _, without = fitted(law, inputs, targets)
    picks = np.random.default_rng(seed).integers(len(targets), size=extra)
    more_inputs = [np.concatenate([x, x[picks]]) for x in inputs]
    more_targets = np.concatenate([targets, 3 * targets[picks]])
    weights = np.concatenate([np.ones(len(targets)), np.zeros(extra)])
    _, with_them = fitted(law, more_inputs, more_targets, weights=weights)
    np.testing.assert_allclose(list(with_them.values()), list(without.values()), rtol=1e-9)


def test_a_row_of_weight_two_counts_twice():
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 4)
    repeated = [np.append(x, x[0]) for x in inputs]
    _, twice = fitted(law, repeated, np.append(targets, targets[0]))
    weights = np.ones(len(targets))
    weights[0] = 2
    _, weighted = fitted(law, inputs, targets, weights=weights)
    _, plain = fitted(law, inputs, targets)
    np.testing.assert_allclose(list(weighted.values()), list(twice.values()), rtol=1e-9)
    assert abs(weighted["A"] / plain["A"] - 1) > 1e-6, (
        "the row has no influence at all: this test could not fail"
    )


def test_the_units_of_the_inputs_change_only_the_scales():
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 5)
    _, units = fitted(law, inputs, targets)
    _, billions = fitted(law, [x / 1e9 for x in inputs], targets)
    for name in ("E", "alpha", "beta"):
        assert billions[name] == pytest.approx(units[name], rel=1e-9)
    assert billions["A"] == pytest.approx(units["A"] * 1e9 ** -units["alpha"], rel=1e-8)


def test_held_parameters_keep_their_values_and_the_others_adapt():
    inputs, targets = noisy(laws.chinchilla(), "chinchilla", 6)
    best, free = fitted(laws.chinchilla(), inputs, targets)
    constrained, params = fitted(laws.chinchilla(A=500.0, beta=0.3), inputs, targets)
    assert params["A"] == pytest.approx(500.0, rel=1e-12) and params["beta"] == 0.3
    assert params["alpha"] != free["alpha"]
    assert float(constrained.state.cost[0]) > float(best.state.cost[0])
    _, held_at_best = fitted(laws.chinchilla(A=free["A"], E=free["E"]), inputs, targets)
    np.testing.assert_allclose(list(held_at_best.values()), list(free.values()), rtol=1e-7)


def test_chinchilla_with_tied_exponents_is_the_overtraining_law():
    inputs, targets = noisy(laws.overtraining(), "overtraining", 7)
    _, gadre = fitted(laws.overtraining(), inputs, targets)
    _, tied = fitted(laws.chinchilla(tied=True), inputs, targets)
    assert tied["alpha"] == tied["beta"]
    as_chinchilla = laws.overtraining().form(**gadre).chinchilla()
    np.testing.assert_allclose(list(tied.values()), np.array(as_chinchilla), rtol=1e-8)


def test_the_irreducible_loss_stops_at_zero():
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 8)
    optimum, params = fitted(law, inputs, targets - 1.9)
    assert params["E"] == 0.0
    assert float(optimum.state.gradient[law.names.index("E"), 0]) > 0, (
        "a smaller E would lower the cost further; only the bound stops it"
    )


def test_refits_from_the_optimum_are_as_good_as_fits_from_all_starts():
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 9)
    optimum, _ = fitted(law, inputs, targets)
    rows = len(targets)
    counts = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), size=40)
    weights = counts.astype(float)
    warm = refit(law, optimum, weights)
    for i in (0, 17, 39):
        cold, _ = fitted(law, inputs, targets, weights=weights[i])
        assert float(warm.cost[i]) <= float(cold.state.cost[0]) * (1 + 1e-6)
