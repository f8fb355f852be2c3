"""Fits of the whole-curve laws (mirrors scalejax/laws/curve_solver.py and curve_rows.py)."""

import numpy as np
import pytest

from scalejax.laws.curves import rows as curve_rows
from scalejax.laws.curves import solver as curve_solver
from scalejax.laws.curves.forms import Annealing, AnnealingSize, MultiPower, predict_curve
from scalejax.laws.curves.solver import fit_curves, profile_curves

PEAK, STEPS, WARMUP = 3e-4, 3000, 200
UP = np.linspace(0, PEAK, WARMUP)
X = np.linspace(0, 1, STEPS - WARMUP)
SCHEDULES = [
    np.r_[UP, PEAK * (0.55 + 0.45 * np.cos(np.pi * X))],
    np.r_[UP, np.full(STEPS - WARMUP, PEAK)],
    np.r_[UP, np.where(X < 0.5, PEAK, 0.3 * PEAK)],
    np.r_[UP, np.where(X < 0.7, PEAK, PEAK * (1 - 3 * (X - 0.7)))],
]
ANNEALING = Annealing(3.1, 0.5, 0.45, 0.9, 0.995)
MULTIPOWER = MultiPower(3.1, 0.5, 0.45, 500.0, 1.4, 0.5, 0.6)


def rows(law, schedules, noise=0.0, every=50):
    rng = np.random.default_rng(0)
    steps = np.arange(WARMUP, STEPS, every)
    loss = np.concatenate([predict_curve(law, s)[steps] for s in schedules])
    curve = np.repeat(np.arange(len(schedules)), len(steps))
    return curve_data(
        schedules,
        curve,
        np.tile(steps, len(schedules)),
        loss * np.exp(noise * rng.normal(size=loss.size)),
    )


@pytest.mark.parametrize(
    "law, truth, exact", [("annealing", ANNEALING, 1e-8), ("multipower", MULTIPOWER, 1e-4)]
)
def test_noise_free_curves_give_the_law_back(law, truth, exact):
    fit = fit_curves(law, rows(truth, SCHEDULES[:3]))
    assert fit.verdict == "ok" and fit.starts_at_optimum > 0
    np.testing.assert_allclose(fit.law, truth, rtol=exact)
    unseen = SCHEDULES[3]
    np.testing.assert_allclose(
        predict_curve(fit, unseen)[WARMUP:], predict_curve(truth, unseen)[WARMUP:], atol=1e-8
    )


SIZED = AnnealingSize(2.0, 0.5, 0.45, 300.0, 0.3, 0.9e-2, 0.995, 0.25)


def sized_rows(sizes, schedules=SCHEDULES[:3], noise=0.0):
    rng, steps = np.random.default_rng(0), np.arange(WARMUP, STEPS, 100)
    curves = [(N, s) for N in sizes for s in range(len(schedules))]
    loss = np.concatenate([predict_curve(SIZED, schedules[s], params=N)[steps] for N, s in curves])
    curve = np.repeat(np.arange(len(curves)), len(steps))
    params = np.array([N for N, _ in curves])[curve]
    loss = loss * np.exp(noise * rng.normal(size=loss.size))
    return curve_data(
        [schedules[s] for _, s in curves], curve, np.tile(steps, len(curves)), loss, params
    )


def test_four_sizes_give_the_law_of_sizes_back():
    fit = fit_curves("annealing-size", sized_rows((1e7, 3e7, 1e8, 4e8)))
    assert fit.verdict == "ok"
    np.testing.assert_allclose(fit.law, SIZED, rtol=1e-6)
    for N in (2e7, 1e9):
        unseen = [predict_curve(law, SCHEDULES[3], params=N)[WARMUP:] for law in (fit, SIZED)]
        np.testing.assert_allclose(*unseen, atol=1e-8)


@pytest.mark.parametrize(
    "sizes, said",
    [
        ((3e7, 1e8), "2 model sizes do not tell L0, B, beta apart: at least 3"),
        ((1e8,), "not tell C, gamma apart"),
    ],
)
def test_few_sizes_leave_the_terms_of_size_unidentified(sizes, said):
    fit = fit_curves("annealing-size", sized_rows(sizes, noise=1e-3))
    assert fit.verdict == "unidentified" and any(said in reason for reason in fit.reasons)
    assert fit_curves("annealing-size", sized_rows((3e7, 1e8, 4e8), noise=1e-3)).verdict == "ok"


def test_holding_terms_of_size_identifies_the_others():
    fit = fit_curves("annealing-size", sized_rows((3e7, 1e8)), fixed={"L0": 2.0})
    assert fit.verdict == "ok" and fit.params["L0"] == 2.0
    np.testing.assert_allclose(fit.law, SIZED, rtol=1e-5)
    held = fit_curves("annealing-size", sized_rows((1e7, 3e7, 1e8, 4e8)), fixed={"C": SIZED.C})
    np.testing.assert_allclose(held.law, SIZED, rtol=1e-5)


def test_the_objective_is_that_of_the_returned_parameters():
    data = rows(ANNEALING, SCHEDULES[:3], noise=3e-3)
    fit = fit_curves("annealing", data)
    predicted = np.array(
        [predict_curve(fit, data.rates[c])[s] for c, s in zip(data.curve, data.step, strict=True)]
    )
    r = np.abs(np.log(predicted / data.loss))
    huber = np.where(r <= 1e-3, r**2 / 2, 1e-3 * (r - 5e-4)).sum()
    assert fit.objective == pytest.approx(huber, rel=1e-9) and huber > 1e-5
    at_truth = np.abs(
        np.log(
            [
                predict_curve(ANNEALING, data.rates[c])[s]
                for c, s in zip(data.curve, data.step, strict=True)
            ]
            / data.loss
        )
    )
    assert (
        fit.objective < np.where(at_truth <= 1e-3, at_truth**2 / 2, 1e-3 * (at_truth - 5e-4)).sum()
    )
    assert fit.gradient_norm < 1e-8


def test_a_held_parameter_stays_and_costs():
    data = rows(ANNEALING, SCHEDULES[:3], noise=1e-3)
    free, held = fit_curves("annealing", data), fit_curves("annealing", data, fixed={"lambda": 0.9})
    assert held.params["lambda"] == 0.9 and held.law.momentum == 0.9
    assert held.objective > free.objective


def test_the_profile_is_lowest_at_the_fit_and_flat_on_one_curve():
    data = rows(ANNEALING, SCHEDULES[:3], noise=1e-3)
    values = [0.98, fit_curves("annealing", data).params["lambda"], 0.999]
    several = profile_curves("annealing", data, "lambda", values)
    assert several[1] < several[0] and several[1] < several[2]
    alone = profile_curves(
        "annealing", rows(ANNEALING, SCHEDULES[:1], noise=1e-3), "lambda", values
    )
    assert np.ptp(alone) / alone.min() < np.ptp(several) / several.min() / 3


def test_the_prior_holds_the_ridge_and_leaves_exact_data_alone():
    data = rows(MULTIPOWER._replace(gamma=0.9), SCHEDULES[:3], noise=3e-3, every=100)
    free, held = fit_curves("multipower", data, prior=False), fit_curves("multipower", data)
    assert abs(held.params["gamma"] - 0.5) < abs(free.params["gamma"] - 0.5)
    assert free.objective <= held.objective < 1.5 * free.objective


def uneven():
    """Noisy curves of which one has four times as many losses as the others."""
    data = rows(MULTIPOWER, SCHEDULES[:3], noise=3e-3, every=100)
    kept = (data.curve == 0) | (data.step % 400 == 0)
    return data._replace(
        **{name: getattr(data, name)[kept] for name in ("curve", "step", "loss", "params")}
    )


def test_under_the_prior_each_curve_counts_once_unless_weights_are_given():
    data = uneven()
    once = len(data.loss) / 3 / np.bincount(data.curve)[data.curve]
    default = fit_curves("multipower", data)
    assert fit_curves("multipower", data, weights=once).params == default.params
    by_row = fit_curves("multipower", data, weights=np.ones(len(data.loss)), start=default)
    assert abs(by_row.law.L0 - default.law.L0) > 1e-4
    np.testing.assert_array_equal(default_weights("annealing", data), 1)


def test_the_prior_under_lad_is_maximum_a_posteriori():
    data, spread = uneven(), (np.log(2), 0.25)

    def surprise(
        fit,
    ):  # minus the log posterior: exponential mean errors of three curves, the mean error at its best
        error = fit.objective / len(data.loss)
        away = (np.log(fit.params["beta"] / 0.5), fit.params["gamma"] - 0.5)
        return 3 * np.log(error) + sum((a / s) ** 2 for a, s in zip(away, spread, strict=True)) / 2

    best = fit_curves("multipower", data, loss="lad")
    assert best.verdict == "ok"
    for name, factor in (("gamma", 0.8), ("gamma", 1.2), ("beta", 0.7), ("beta", 1.4)):
        moved = fit_curves(
            "multipower", data, loss="lad", fixed={name: factor * best.params[name]}, start=best
        )
        assert surprise(moved) > surprise(best)
    assert surprise(
        fit_curves(
            "multipower",
            data,
            loss="lad",
            prior=False,
            weights=weights_by_curve(data.curve),
        )
    ) > surprise(best)


@pytest.mark.parametrize("loss", ["lad", "mse", "log-mse", "huber:1e-2", "asymmetric:10"])
def test_every_loss_finds_the_law_in_little_noise(loss):
    fit = fit_curves("annealing", rows(ANNEALING, SCHEDULES[:3], noise=1e-4), loss=loss)
    assert abs(fit.law.L0 - ANNEALING.L0) < 0.01 and fit.verdict == "ok"


def test_lad_minimizes_absolute_errors_and_so_goes_through_some_losses():
    data = rows(ANNEALING, SCHEDULES[:3], noise=3e-3)
    fits = [fit_curves("annealing", data, loss=loss) for loss in ("lad", "huber:1e-3")]
    predicted = [
        [predict_curve(fit, data.rates[c])[s] for c, s in zip(data.curve, data.step, strict=True)]
        for fit in fits
    ]
    lad, huber = np.abs(np.log(np.array(predicted) / data.loss))
    assert np.sum(lad < 1e-6) >= 3 > np.sum(huber < 1e-6) and lad.sum() < huber.sum()
    assert fits[0].verdict == "ok" and fits[0].objective == pytest.approx(lad.sum(), rel=1e-4)


def test_over_predictions_cost_more_under_the_asymmetric_loss():
    data = rows(ANNEALING, SCHEDULES[:3], noise=3e-3)

    def share_above(loss):
        fit = fit_curves("annealing", data, loss=loss)
        return np.mean(
            [
                predict_curve(fit, data.rates[c])[s] > y
                for c, s, y in zip(data.curve, data.step, data.loss, strict=True)
            ]
        )

    assert share_above("asymmetric:10") < 0.3 < share_above("huber:1e-3")


def test_one_curve_does_not_identify_the_shape():
    fit = fit_curves("annealing", rows(ANNEALING, SCHEDULES[:1]))
    assert fit.verdict == "unidentified" and any(
        "one curve cannot identify lambda" in reason for reason in fit.reasons
    )


def test_curves_that_never_anneal_do_not_identify_the_credit():
    fit = fit_curves("annealing", rows(ANNEALING, [SCHEDULES[1], 0.5 * SCHEDULES[1]]))
    assert fit.verdict == "unidentified"


def test_intervals_resample_curves_and_repeat_with_their_seed():
    data = rows(ANNEALING, SCHEDULES, noise=2e-3)
    fit = fit_curves("annealing", data)
    a, b = (
        bootstrap_curves("annealing", data, fit, draws=20, seed=1) for _ in range(2)
    )
    assert all(np.array_equal(a[name], b[name]) for name in a)
    low, high = intervals("annealing", a)["L0"]
    assert low < fit.params["L0"] < high


@pytest.mark.parametrize(
    "change, said",
    [
        ({"step": [5000]}, "beyond the 3000 steps"),
        ({"step": [2.5]}, "whole numbers"),
        ({"step": [0]}, "sums to zero"),
        ({"loss": [-1.0]}, "positive and finite"),
        ({"loss": [np.inf]}, "positive and finite"),
        ({"params": [0.0]}, "params are positive"),
        (
            {"curve": [0, 0], "step": [500, 600], "loss": [3.0, 3.0], "params": [1e7, 2e7]},
            "one curve is one model",
        ),
        ({"rates": [-SCHEDULES[0]]}, "finite and not negative"),
        ({"curve": [], "step": [], "loss": []}, "no measured loss"),
    ],
)
def test_rows_that_cannot_be_are_errors(change, said):
    good = {"rates": SCHEDULES[:1], "curve": [0], "step": [500], "loss": [3.0]}
    with pytest.raises(ValueError, match=said):
        curve_data(**(good | change))


@pytest.mark.parametrize(
    "options, said",
    [
        ({"fixed": {"gamma": 1.0}}, "no parameter gamma"),
        ({"fixed": {"lambda": 1.5}}, "outside"),
        ({"loss": "huber:-1"}, "positive"),
    ],
)
def test_choices_that_cannot_be_are_errors(options, said):
    with pytest.raises(ValueError, match=said):
        fit_curves("annealing", rows(ANNEALING, SCHEDULES[:2]), **options)


def test_fewer_rows_than_parameters_is_an_error():
    with pytest.raises(ValueError, match="5 free parameters"):
        fit_curves(
            "annealing",
            curve_data(SCHEDULES[:1], [0] * 3, [500, 900, 1500], [3.5, 3.4, 3.3]),
        )
