"""Loss curves of Luo et al. 2025 (arXiv 2503.12811), github.com/thu-yao-01-luo/MultiPowerLaw: 2 model sizes x 9 schedules.

Tables lr_schedules/{mpl_loss_curves.csv,schedules_per_step.parquet}: both laws fitted on three schedules and scored on the six
others, each curve counting once; "late" scores only steps after a curve has left the ones it was branched from.
"""

import functools

import numpy as np
import pandas as pd
import pytest

from scalejax.fitting.selection import select
from scalejax.laws import fit_curves, multipower, predict_curve
from scalejax.laws.curves.data import curve_data
from tests.published import reference

pytestmark = pytest.mark.replication

TRAIN = ("cosine_24000", "constant_24000", "wsdcon_9")
BRANCH = {"wsd_20000_24000": 20000, "wsdld_20000_24000": 20000, "wsdcon_3": 8000, "wsdcon_18": 8000}
BRANCH |= {"constant_72000": 24000, "cosine_72000": 0}
ANNEALING = {  # lambda -> parameters L0, A, alpha, C
    ("25M", 0.999): (3.158, 0.514, 0.513, 0.402),
    ("100M", 0.999): (2.789, 0.593, 0.455, 0.481),
    ("25M", None): (3.152, 0.520, 0.505, 0.740),
    ("100M", None): (2.784, 0.599, 0.449, 0.792),
}


@functools.cache
def tables():
    path = reference("lr_schedules")
    rates = pd.read_parquet(path / "schedules_per_step.parquet").groupby("curve").learning_rate
    return pd.read_csv(path / "mpl_loss_curves.csv"), {
        name: group.to_numpy() for name, group in rates
    }


@functools.cache
def refit(law: str, model: str, **options):
    losses, rates = tables()
    rows = losses[(losses.model == model) & losses.schedule.isin(TRAIN)]
    curve = rows.schedule.map(TRAIN.index)
    data = curve_data([rates[name] for name in TRAIN], curve, rows.step, rows.loss)
    fixed = {"lambda": options.pop("momentum")} if options.get("momentum") else None
    return fit_curves(
        law, data, fixed=fixed, **{k: v for k, v in options.items() if k != "momentum"}
    )


def errors(fit, model: str) -> tuple[float, float]:
    """Mean over the six curves of each one's mean absolute error: all points, and late ones."""
    losses, rates = tables()
    every, late = [], []
    for name, branch in BRANCH.items():
        rows = losses[(losses.model == model) & (losses.schedule == name)]
        error = np.abs(predict_curve(fit, rates[name])[rows.step] - rows.loss.to_numpy())
        every.append(error.mean())
        late.append(error[rows.step.to_numpy() >= branch].mean())
    return float(np.mean(every)), float(np.mean(late))


@pytest.mark.parametrize("model, momentum", ANNEALING)
def test_annealing_parameters(model, momentum):
    fit = refit("annealing", model, momentum=momentum)
    assert fit.verdict == "ok" and fit.starts_at_optimum == 1
    np.testing.assert_allclose(fit.law[:4], ANNEALING[model, momentum], rtol=0.01)
    if momentum is None:
        assert fit.law.momentum == pytest.approx({"25M": 0.9981, "100M": 0.9983}[model], abs=1e-4)


@pytest.mark.parametrize("model, every, late", [("25M", 0.0048, 0.0079), ("100M", 0.0047, 0.0077)])
def test_annealing_errors_on_curves_it_has_not_seen(model, every, late):
    found = errors(refit("annealing", model, momentum=0.999), model)
    assert found[0] <= every and found[1] <= late


@pytest.mark.parametrize(
    "model, objective, late", [("25M", 0.000128, 0.0054), ("100M", 0.000023, 0.0074)]
)
def test_the_converged_multi_power_fit(model, objective, late):
    fit = refit("multipower", model, prior=False)
    assert fit.objective == pytest.approx(objective, rel=0.02) and fit.starts_at_optimum == 1
    assert errors(fit, model)[1] <= late + 5e-5


@pytest.mark.parametrize("model, every, late", [("25M", 0.0038, 0.0054), ("100M", 0.0044, 0.0074)])
def test_maximum_a_posteriori_makes_the_multi_power_law_better_on_curves_it_has_not_seen(
    model, every, late
):
    held, free = (
        errors(refit("multipower", model, loss="lad"), model),
        errors(refit("multipower", model, prior=False), model),
    )
    assert held[0] <= every and held[1] <= late
    assert held[0] < free[0] and held[1] < free[1]


@pytest.mark.parametrize("model, every, late", [("25M", 0.0039, 0.0048), ("100M", 0.0044, 0.0063)])
def test_the_default_loss_gains_from_the_prior_too(model, every, late):
    found = errors(refit("multipower", model), model)
    assert found[0] <= every and found[1] <= late


@pytest.mark.slow
@pytest.mark.parametrize("model, every, late", [("25M", 0.0038, 0.0054), ("100M", 0.0044, 0.0074)])
def test_a_loss_chosen_on_the_three_curves_alone_does_as_well_on_the_six_others(model, every, late):
    losses, _ = tables()
    found = select(
        losses[(losses.model == model) & losses.schedule.isin(TRAIN)],
        [multipower()],
        columns={"curve": "schedule", "learning_rate": "lr"},
        schedules=reference("lr_schedules") / "schedules_per_step.parquet",
    )
    assert {candidate.splits for candidate in found.ranking} == {3}
    error = errors(found.fit, model)
    assert error[0] <= every and error[1] <= late


def test_one_curve_leaves_lambda_unidentified():
    losses, rates = tables()
    rows = losses[(losses.model == "25M") & (losses.schedule == "cosine_24000")]
    data = curve_data(
        [rates["cosine_24000"]], np.zeros(len(rows), int), rows.step, rows.loss
    )
    assert fit_curves("annealing", data).verdict == "unidentified"
