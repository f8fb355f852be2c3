"""Whole-curve laws on the loss curves of Luo et al. 2025 (arXiv 2503.12811).

The annealing law of Tissue et al. 2024 (arXiv 2408.11029, eq. 1) and the multi-power
law of Luo et al. (eq. 3). Tables:
lr_schedules/{mpl_loss_curves.csv,schedules_per_step.parquet}, two model sizes x nine
schedules, from github.com/thu-yao-01-luo/MultiPowerLaw. As in that repository, the laws
are fitted to three schedules and scored on the six others, each curve counting once.
"""

import functools
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from scalejax.fitting.selection import select
from scalejax.laws import fit_curves, multipower, predict_curve
from scalejax.laws.curves.data import curve_data
from tests.published import reference

pytestmark = pytest.mark.replication

TRAIN = ("cosine_24000", "constant_24000", "wsdcon_9")

# Held-out schedule -> step at which its curve leaves the one that it was branched from.
BRANCH_STEP = {
    "wsd_20000_24000": 20000,
    "wsdld_20000_24000": 20000,
    "wsdcon_3": 8000,
    "wsdcon_18": 8000,
    "constant_72000": 24000,
    "cosine_72000": 0,
}

# (model, lambda or None where it is fitted) -> L0, A, alpha, C.
ANNEALING = {
    ("25M", 0.999): (3.158, 0.514, 0.513, 0.402),
    ("100M", 0.999): (2.789, 0.593, 0.455, 0.481),
    ("25M", None): (3.152, 0.520, 0.505, 0.740),
    ("100M", None): (2.784, 0.599, 0.449, 0.792),
}


@functools.cache
def tables():
    """The losses, and the learning rate of every step of every schedule."""
    path = reference("lr_schedules")
    rates = pd.read_parquet(path / "schedules_per_step.parquet").groupby("curve").learning_rate
    return pd.read_csv(path / "mpl_loss_curves.csv"), {
        name: group.to_numpy() for name, group in rates
    }


@functools.cache
def refit(law: str, model: str, momentum: float | None = None, **options):
    """A law fitted to the three training schedules of one model."""
    losses, rates = tables()
    rows = losses[(losses.model == model) & losses.schedule.isin(TRAIN)]
    curve = rows.schedule.map(TRAIN.index)
    data = curve_data([rates[name] for name in TRAIN], curve, rows.step, rows.loss)
    fixed = None if momentum is None else {"lambda": momentum}
    return fit_curves(law, data, fixed=fixed, **options)


class Errors(NamedTuple):
    """Mean over held-out curves of the mean absolute error, nats per token."""

    all_points: float
    after_branch: float
    """Only steps after a curve has left the one that it was branched from: some of the
    others are training points."""


def errors(fit, model: str) -> Errors:
    losses, rates = tables()
    all_points, after_branch = [], []
    for name, branch_step in BRANCH_STEP.items():
        rows = losses[(losses.model == model) & (losses.schedule == name)]
        error = np.abs(predict_curve(fit, rates[name])[rows.step] - rows.loss.to_numpy())
        all_points.append(error.mean())
        after_branch.append(error[rows.step.to_numpy() >= branch_step].mean())
    return Errors(float(np.mean(all_points)), float(np.mean(after_branch)))


@pytest.mark.parametrize(("model", "momentum"), ANNEALING)
def test_the_annealing_law_has_the_expected_parameters(model, momentum):
    """The expected parameters were computed once with another solver."""
    fit = refit("annealing", model, momentum=momentum)
    assert fit.verdict == "ok" and fit.starts_at_optimum == 1
    parameters = [fit.params[name] for name in ("L0", "A", "alpha", "C")]
    np.testing.assert_allclose(parameters, ANNEALING[model, momentum], rtol=0.01)
    if momentum is None:
        assert fit.params["lambda"] == pytest.approx(
            {"25M": 0.9981, "100M": 0.9983}[model], abs=1e-4
        )


@pytest.mark.parametrize(
    ("model", "all_points", "after_branch"), [("25M", 0.0048, 0.0079), ("100M", 0.0047, 0.0077)]
)
def test_the_annealing_law_predicts_unseen_schedules(model, all_points, after_branch):
    error = errors(refit("annealing", model, momentum=0.999), model)
    assert error.all_points <= all_points and error.after_branch <= after_branch


@pytest.mark.parametrize(
    ("model", "objective", "after_branch"),
    [("25M", 0.000128, 0.0054), ("100M", 0.000023, 0.0074)],
)
def test_the_multi_power_fit_converges_without_a_prior(model, objective, after_branch):
    fit = refit("multipower", model, prior=False)
    assert fit.objective == pytest.approx(objective, rel=0.02) and fit.starts_at_optimum == 1
    assert errors(fit, model).after_branch <= after_branch + 5e-5


@pytest.mark.parametrize(
    ("model", "all_points", "after_branch"), [("25M", 0.0038, 0.0054), ("100M", 0.0044, 0.0074)]
)
def test_with_the_prior_and_lad_the_multi_power_law_predicts_better(
    model, all_points, after_branch
):
    """The published procedure has as low errors because it stops early."""
    with_prior = errors(refit("multipower", model, loss="lad"), model)
    without = errors(refit("multipower", model, prior=False), model)
    assert with_prior.all_points <= all_points and with_prior.after_branch <= after_branch
    assert with_prior.all_points < without.all_points
    assert with_prior.after_branch < without.after_branch


@pytest.mark.parametrize(
    ("model", "all_points", "after_branch"), [("25M", 0.0039, 0.0048), ("100M", 0.0044, 0.0063)]
)
def test_the_prior_also_helps_under_the_default_loss(model, all_points, after_branch):
    error = errors(refit("multipower", model), model)
    assert error.all_points <= all_points and error.after_branch <= after_branch


@pytest.mark.slow
def test_cross_validation_on_the_three_curves_selects_a_loss_that_does_as_well():
    losses, _ = tables()
    selected = select(
        losses.loc[(losses.model == "100M") & losses.schedule.isin(TRAIN)],
        [multipower()],
        columns={"curve": "schedule", "learning_rate": "lr"},
        schedules=reference("lr_schedules") / "schedules_per_step.parquet",
    )
    assert {candidate.splits for candidate in selected.ranking} == {3}
    error = errors(selected.fit, "100M")
    assert error.all_points <= 0.0044 and error.after_branch <= 0.0074


def test_one_curve_leaves_lambda_unidentified():
    losses, rates = tables()
    rows = losses[(losses.model == "25M") & (losses.schedule == "cosine_24000")]
    data = curve_data([rates["cosine_24000"]], np.zeros(len(rows), int), rows.step, rows.loss)
    assert fit_curves("annealing", data).verdict == "unidentified"
