"""Fits of the whole-curve laws (mirrors scalejax/laws/curves/solver.py)."""

import numpy as np
import pytest

from scalejax.laws.curves.data import curve_data, weights_by_curve
from scalejax.laws.curves.forms import predict_curve
from scalejax.laws.curves.solver import default_weights, fit_curves
from tests.laws.curves.examples import (
    ANNEALING,
    MULTIPOWER,
    SCHEDULES,
    SIZED,
    WARMUP,
    noisy_curves,
    noisy_curves_of_sizes,
    parameters,
    predictions,
    uneven_curves,
)


@pytest.mark.parametrize(
    ("law", "truth", "tolerance"),
    [("annealing", ANNEALING, 1e-8), ("multipower", MULTIPOWER, 1e-4)],
)
def test_curves_without_noise_recover_the_law(law, truth, tolerance):
    fit = fit_curves(law, noisy_curves(truth, SCHEDULES[:3]))
    assert fit.verdict == "ok" and fit.starts_at_optimum > 0
    np.testing.assert_allclose(parameters(fit.law), parameters(truth), rtol=tolerance)
    unseen = SCHEDULES[3]
    np.testing.assert_allclose(
        predict_curve(fit, unseen)[WARMUP:], predict_curve(truth, unseen)[WARMUP:], atol=1e-8
    )


def test_four_sizes_without_noise_recover_the_law_of_sizes():
    fit = fit_curves("annealing-size", noisy_curves_of_sizes((1e7, 3e7, 1e8, 4e8)))
    assert fit.verdict == "ok"
    np.testing.assert_allclose(parameters(fit.law), parameters(SIZED), rtol=1e-6)
    for N in (2e7, 1e9):
        fitted, true = (predict_curve(law, SCHEDULES[3], params=N)[WARMUP:] for law in (fit, SIZED))
        np.testing.assert_allclose(fitted, true, atol=1e-8)


def test_holding_a_function_of_size_identifies_the_others():
    fit = fit_curves("annealing-size", noisy_curves_of_sizes((3e7, 1e8)), fixed={"L0": 2.0})
    assert fit.verdict == "ok" and fit.params["L0"] == 2.0
    np.testing.assert_allclose(parameters(fit.law), parameters(SIZED), rtol=1e-5)
    four_sizes = noisy_curves_of_sizes((1e7, 3e7, 1e8, 4e8))
    held = fit_curves("annealing-size", four_sizes, fixed={"C": float(SIZED.C)})
    np.testing.assert_allclose(parameters(held.law), parameters(SIZED), rtol=1e-5)


def huber(r):
    """The sum of Huber losses of width 1e-3."""
    size = np.abs(r)
    return np.where(size <= 1e-3, size**2 / 2, 1e-3 * (size - 5e-4)).sum()


def test_the_objective_is_that_of_the_returned_parameters():
    data = noisy_curves(ANNEALING, SCHEDULES[:3], noise=3e-3)
    fit = fit_curves("annealing", data)
    at_fit, at_truth = (
        huber(np.log(predictions(law, data) / data.loss)) for law in (fit, ANNEALING)
    )
    assert fit.objective == pytest.approx(at_fit, rel=1e-9) and at_fit > 1e-5
    assert fit.objective < at_truth
    assert fit.gradient_norm < 1e-8


def test_a_held_parameter_keeps_its_value_and_raises_the_objective():
    data = noisy_curves(ANNEALING, SCHEDULES[:3], noise=1e-3)
    free, held = fit_curves("annealing", data), fit_curves("annealing", data, fixed={"lambda": 0.9})
    assert held.params["lambda"] == 0.9 and held.law[-1] == 0.9
    assert held.objective > free.objective


def test_the_prior_pulls_gamma_to_one_half_at_little_cost():
    data = noisy_curves(MULTIPOWER._replace(gamma=0.9), SCHEDULES[:3], noise=3e-3, every=100)
    free, held = fit_curves("multipower", data, prior=False), fit_curves("multipower", data)
    assert abs(held.params["gamma"] - 0.5) < abs(free.params["gamma"] - 0.5)
    assert free.objective <= held.objective < 1.5 * free.objective


def test_under_the_prior_each_curve_counts_once_unless_weights_are_given():
    data = uneven_curves()
    by_curve = len(data.loss) / 3 / np.bincount(data.curve)[data.curve]
    default = fit_curves("multipower", data)
    assert fit_curves("multipower", data, weights=by_curve).params == default.params
    by_row = fit_curves("multipower", data, weights=np.ones(len(data.loss)), start=default)
    assert abs(by_row.params["L0"] - default.params["L0"]) > 1e-4
    np.testing.assert_array_equal(default_weights("annealing", data), 1)


def test_under_lad_the_prior_gives_the_maximum_a_posteriori():
    data, std = uneven_curves(), (np.log(2), 0.25)

    def minus_log_posterior(fit):
        """For exponentially distributed mean errors of three curves."""
        error = fit.objective / len(data.loss)
        distances = (np.log(fit.params["beta"] / 0.5), fit.params["gamma"] - 0.5)
        prior = sum((d / s) ** 2 for d, s in zip(distances, std, strict=True)) / 2
        return 3 * np.log(error) + prior

    best = fit_curves("multipower", data, loss="lad")
    assert best.verdict == "ok"
    for name, factor in (("gamma", 0.8), ("gamma", 1.2), ("beta", 0.7), ("beta", 1.4)):
        moved = {name: factor * best.params[name]}
        other = fit_curves("multipower", data, loss="lad", fixed=moved, start=best)
        assert minus_log_posterior(other) > minus_log_posterior(best)
    by_curve = weights_by_curve(data.curve)
    without = fit_curves("multipower", data, loss="lad", prior=False, weights=by_curve)
    assert minus_log_posterior(without) > minus_log_posterior(best)


@pytest.mark.parametrize("loss", ["lad", "mse", "log-mse", "huber:1e-2", "asymmetric:10"])
def test_every_loss_finds_the_law_in_little_noise(loss):
    fit = fit_curves("annealing", noisy_curves(ANNEALING, SCHEDULES[:3], noise=1e-4), loss=loss)
    assert abs(fit.params["L0"] - ANNEALING.L0) < 0.01 and fit.verdict == "ok"


def test_lad_minimizes_absolute_errors_and_so_goes_through_some_losses():
    data = noisy_curves(ANNEALING, SCHEDULES[:3], noise=3e-3)
    fits = [fit_curves("annealing", data, loss=loss) for loss in ("lad", "huber:1e-3")]
    lad, huber_errors = (np.abs(np.log(predictions(fit, data) / data.loss)) for fit in fits)
    assert np.sum(lad < 1e-6) >= 3 > np.sum(huber_errors < 1e-6)
    assert lad.sum() < huber_errors.sum()
    assert fits[0].verdict == "ok" and fits[0].objective == pytest.approx(lad.sum(), rel=1e-4)


def test_over_predictions_cost_more_under_the_asymmetric_loss():
    data = noisy_curves(ANNEALING, SCHEDULES[:3], noise=3e-3)

    def share_above(loss):
        return np.mean(predictions(fit_curves("annealing", data, loss=loss), data) > data.loss)

    assert share_above("asymmetric:10") < 0.3 < share_above("huber:1e-3")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": {"gamma": 1.0}}, "no parameter gamma"),
        ({"fixed": {"lambda": 1.5}}, "outside"),
        ({"loss": "huber:-1"}, "positive"),
    ],
)
def test_impossible_options_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        fit_curves("annealing", noisy_curves(ANNEALING, SCHEDULES[:2]), **options)


def test_fewer_rows_than_parameters_is_an_error():
    three_rows = curve_data(SCHEDULES[:1], [0] * 3, [500, 900, 1500], [3.5, 3.4, 3.3])
    with pytest.raises(ValueError, match="5 free parameters"):
        fit_curves("annealing", three_rows)
