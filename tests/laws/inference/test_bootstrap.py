"""What bootstraps draw, and how wide they are (mirrors .../inference/bootstrap.py)."""

import numpy as np
import pytest

from scalejax import laws
from scalejax.laws.inference import bootstrap
from scalejax.laws.inference.identification import identify, linearize
from scalejax.laws.solver.multistart import refit
from tests.laws.solver.test_multistart import fitted, noisy
from tests.laws.test_forms import TRUTHS, design, exact


def rng():
    return np.random.default_rng(0)


def deviations(theta):
    return np.std(theta, axis=1)


def linearized_errors(law, optimum):
    return np.sqrt(np.diag(identify(law, optimum, linearize(law, optimum)).covariance))


def test_pairs_draw_rows_and_clusters_draw_them_together():
    counts = bootstrap.resample_counts(rng(), 12, 5000)
    assert counts.shape == (5000, 12) and np.all(counts.sum(1) == 12)
    np.testing.assert_allclose(counts.mean(0), 1, atol=0.06)
    np.testing.assert_allclose(counts.var(0), 11 / 12, atol=0.08)
    clusters = np.repeat([0, 1, 2], 4)
    together = bootstrap.resample_counts(rng(), 12, 200, clusters)
    assert np.all(together[:, clusters == 1] == together[:, [4]])
    assert together.std() > 0


@pytest.mark.parametrize("text", ["huber:1e-3", "mse"])
def test_a_refit_to_other_targets_is_the_fit_of_those_targets(text):
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 0)
    optimum, _ = fitted(law, inputs, targets, text)
    others = targets * np.exp(rng().normal(0, 0.01, (3, len(targets))))
    warm = refit(law, optimum, np.ones_like(others), others)
    for i, other in enumerate(others):
        cold, _ = fitted(law, inputs, other, text)
        assert float(warm.cost[i]) == pytest.approx(float(cold.state.cost[0]), rel=1e-6)
    assert np.ptp(np.asarray(warm.cost)) > 1e-3 * float(warm.cost[0]), (
        "all three were fitted to the same table"
    )


@pytest.mark.parametrize("text", ["log-mse", "mse"])
def test_where_noise_is_even_all_bootstraps_agree_with_the_linearized_errors(text):
    law, sd = laws.chinchilla(), 0.005
    inputs = design(law, rng(), 120)
    targets = exact(law, TRUTHS["chinchilla"], inputs)
    noise = rng().normal(0, sd, 120)
    targets = targets + noise if text == "mse" else targets * np.exp(noise)
    optimum, _ = fitted(law, inputs, targets, text)
    errors = linearized_errors(law, optimum)
    std = np.full(120, sd) if text == "mse" else sd * targets
    bootstraps = {
        "pairs": bootstrap.pairs_bootstrap(law, optimum, 400, rng()),
        "residuals": bootstrap.residual_bootstrap(law, optimum, 400, rng()),
        "noise": bootstrap.noise_bootstrap(law, optimum, std, 400, rng()),
    }
    for name, theta in bootstraps.items():
        np.testing.assert_allclose(deviations(theta), errors, rtol=0.25, err_msg=name)
    twice = bootstrap.noise_bootstrap(law, optimum, 2 * std, 400, rng())
    np.testing.assert_allclose(deviations(twice), 2 * deviations(bootstraps["noise"]), rtol=0.15)


def test_residual_bootstraps_are_too_narrow_where_influential_points_are_noisier():
    law = laws.chinchilla()
    inputs = design(law, rng(), 120)
    low, high = np.quantile(inputs[0], [0.15, 0.85])
    far = (inputs[0] > high) | (inputs[0] < low)
    noise = rng().normal(0, np.where(far, 0.02, 0.001))
    targets = exact(law, TRUTHS["chinchilla"], inputs) * np.exp(noise)
    optimum, _ = fitted(law, inputs, targets, "log-mse")
    alpha = law.names.index("alpha")
    pairs = deviations(bootstrap.pairs_bootstrap(law, optimum, 400, rng()))[alpha]
    residuals = deviations(bootstrap.residual_bootstrap(law, optimum, 400, rng()))[alpha]
    assert residuals < 0.8 * pairs


def test_a_noise_bootstrap_without_noise_changes_nothing():
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 0)
    optimum, _ = fitted(law, inputs, targets)
    theta = bootstrap.noise_bootstrap(law, optimum, np.zeros(len(targets)), 3, rng())
    np.testing.assert_allclose(theta, np.repeat(optimum.theta[:, None], 3, axis=1), atol=1e-7)


def test_weights_are_inverse_variances_of_the_drawn_residuals():
    law = laws.power()
    x = np.geomspace(1e6, 1e9, 64)
    sizes = np.where(np.arange(64) % 2, 0.002, 0.02)
    truth = law.form(300.0, -0.4, 2.0)
    targets = exact(law, truth, [x]) * np.exp(sizes * rng().normal(size=64))
    spread = {}
    for name, weights in (("even", np.ones(64)), ("known", (0.002 / sizes) ** 2)):
        optimum, _ = fitted(law, [x], targets, "log-mse", weights)
        spread[name] = deviations(bootstrap.residual_bootstrap(law, optimum, 400, rng()))
        errors = linearized_errors(law, optimum)
        np.testing.assert_allclose(spread[name], errors, rtol=0.3)
    assert np.all(spread["known"] < 0.5 * spread["even"])
