"""What bootstraps draw, and what their spread says (mirrors scalejax/laws/bootstrap.py)."""

import numpy as np
import pytest

from scalejax import laws
from scalejax.laws.inference import bootstrap, identification
from scalejax.laws.solver.multistart import refit
from tests.laws.solver.test_multistart import fitted, noisy
from tests.laws.test_forms import TRUTHS, design, exact


def rng():
    return np.random.default_rng(0)


def test_pairs_draw_rows_and_clusters_draw_them_together():
    pairs = bootstrap.resample_counts(rng(), 12, 5000)
    assert pairs.shape == (5000, 12) and np.all(pairs.sum(1) == 12)
    np.testing.assert_allclose(pairs.mean(0), 1, atol=0.06)
    np.testing.assert_allclose(pairs.var(0), 11 / 12, atol=0.08)
    groups = np.repeat([0, 1, 2], 4)
    together = bootstrap.resample_counts(rng(), 12, 200, groups)
    assert np.all(together[:, groups == 1] == together[:, [4]])
    assert together.std() > 0


@pytest.mark.parametrize("text", ["huber:1e-3", "mse"])
def test_a_refit_to_other_targets_is_the_fit_of_those_targets(text):
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 0)
    at, _ = fitted(law, inputs, targets, text)
    others = targets * np.exp(rng().normal(0, 0.01, (3, len(targets))))
    warm = refit(law, at, np.ones_like(others), others)
    for i, other in enumerate(others):
        scratch, _ = fitted(law, inputs, other, text)
        assert float(warm.cost[i]) == pytest.approx(float(scratch.state.cost[0]), rel=1e-6)
    assert np.ptp(np.asarray(warm.cost)) > 1e-3 * float(warm.cost[0]), (
        "all three were fitted to one table"
    )


def deviations(theta):
    return np.std(theta, axis=1)


@pytest.mark.parametrize("text", ["log-mse", "mse"])
def test_where_noise_is_even_all_bootstraps_agree_with_the_linearized_errors(text):
    law, sd = laws.chinchilla(), 0.005
    inputs = design(law, rng(), 120)
    targets = exact(law, TRUTHS["chinchilla"], inputs)
    shake = rng().normal(0, sd, 120)
    targets = targets + shake if text == "mse" else targets * np.exp(shake)
    at, _ = fitted(law, inputs, targets, text)
    errors = identification.identify(law, at, identification.linearize(law, at)).covariance
    std = np.full(120, sd) if text == "mse" else sd * targets
    spreads = {
        "pairs": bootstrap.pairs_bootstrap(law, at, 400, rng()),
        "residuals": bootstrap.residual_bootstrap(law, at, 400, rng()),
        "noise": bootstrap.noise_bootstrap(law, at, std, 400, rng()),
    }
    for name, theta in spreads.items():
        np.testing.assert_allclose(
            deviations(theta), np.sqrt(np.diag(errors)), rtol=0.25, err_msg=name
        )
    twice = bootstrap.noise_bootstrap(law, at, 2 * std, 400, rng())
    np.testing.assert_allclose(deviations(twice), 2 * deviations(spreads["noise"]), rtol=0.15)


def test_residuals_are_too_narrow_where_the_noise_sits_at_the_points_that_matter():
    law = laws.chinchilla()
    inputs = design(law, rng(), 120)
    far = (inputs[0] > np.quantile(inputs[0], 0.85)) | (inputs[0] < np.quantile(inputs[0], 0.15))
    targets = exact(law, TRUTHS["chinchilla"], inputs) * np.exp(
        rng().normal(0, np.where(far, 0.02, 0.001))
    )
    at, _ = fitted(law, inputs, targets, "log-mse")
    alpha = law.names.index("alpha")
    pairs, residuals = (
        deviations(f(law, at, 400, rng()))[alpha]
        for f in (bootstrap.pairs_bootstrap, bootstrap.residual_bootstrap)
    )
    assert residuals < 0.8 * pairs


def test_no_noise_moves_nothing():
    law = laws.chinchilla()
    inputs, targets = noisy(law, "chinchilla", 0)
    at, _ = fitted(law, inputs, targets)
    theta = bootstrap.noise_bootstrap(law, at, np.zeros(len(targets)), 3, rng())
    np.testing.assert_allclose(theta, np.repeat(at.theta[:, None], 3, axis=1), atol=1e-7)


def test_weights_are_inverse_variances_of_drawn_residuals():
    law = laws.power()
    x = np.geomspace(1e6, 1e9, 64)
    sizes = np.where(np.arange(64) % 2, 0.002, 0.02)
    targets = exact(law, law.form(300.0, -0.4, 2.0), [x]) * np.exp(sizes * rng().normal(size=64))
    spread = {}
    for name, weights in (("even", np.ones(64)), ("known", (0.002 / sizes) ** 2)):
        at, _ = fitted(law, [x], targets, "log-mse", weights)
        errors = identification.identify(law, at, identification.linearize(law, at)).covariance
        spread[name] = deviations(bootstrap.residual_bootstrap(law, at, 400, rng()))
        np.testing.assert_allclose(spread[name], np.sqrt(np.diag(errors)), rtol=0.3)
    assert np.all(spread["known"] < 0.5 * spread["even"])
