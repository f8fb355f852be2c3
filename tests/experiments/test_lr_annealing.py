"""The study of annealing laws (mirrors experiments/lr_annealing.py)."""

import numpy as np
import pandas as pd
import pytest

from experiments import lr_annealing as study
from scalejax import laws
from scalejax.grids import flatten, run_id
from scalejax.optim.schedules import learning_rates
from scalejax.study.results import WholeCurves

TRUTH = laws.Annealing(L0=2.6, A=0.9, alpha=0.5, C=0.6, momentum=0.95)


def made_curves(law: laws.Annealing, noise: float) -> list[WholeCurves]:
    """The curves of every seed of the mini study under a known law."""
    rng = np.random.default_rng(0)
    table, losses, schedules = [], [], []
    for run in study.mini.runs:
        rates, steps = learning_rates(run), np.arange(19, run.steps, 20)
        loss = laws.predict_curve(law, rates)[steps] * np.exp(rng.normal(0, noise, len(steps)))
        table.append({**flatten(run), "run": run_id(run)})
        losses.append(pd.DataFrame({"curve": run_id(run), "step": steps, "loss": loss}))
        columns = {"curve": run_id(run), "step": range(len(rates)), "learning_rate": rates}
        schedules.append(pd.DataFrame(columns))
    curves = WholeCurves(pd.concat(losses), pd.concat(schedules))
    return [study.named(rows, curves) for _, rows in pd.DataFrame(table).groupby("seed")]


@pytest.mark.parametrize(("noise", "verdict"), [(0.001, "holds"), (0.03, "does not hold")])
def test_the_verdict_is_that_of_curves_with_a_known_error(noise, verdict):
    fits = [study.fitted(seed, laws.annealing()) for seed in made_curves(TRUTH, noise)]
    errors = [study.error(one) for one in fits]
    conclusion = study.conclusion("The law predicts", errors, below=0.5)
    # The mean absolute value of normal noise is sqrt(2 / pi) of its standard deviation.
    # The error of the fit comes on top.
    assert 1 < conclusion.estimate / (100 * noise * np.sqrt(2 / np.pi)) < 2.5
    assert conclusion.verdict == verdict


def test_unseen_curves_are_scored_only_after_they_left_the_constant_rate():
    curves = made_curves(TRUTH, 0.0)[0]
    first = {str(name): int(np.min(rows["step"])) for name, rows in curves.losses.groupby("curve")}
    steps = study.mini.runs[0].steps
    assert set(first) == {
        *("constant", "cosine", "linear", "cyclic", "step 0.3"),
        *("20% 1-sqrt", "10% linear", "20% linear", "40% linear"),
    }
    assert first["20% 1-sqrt"] >= 0.8 * steps and first["step 0.3"] >= 0.5 * steps - 1
    # Both fitted curves begin at twice the warmup, 80 steps.
    assert first["constant"] == first["cosine"] == 99


def test_the_schedule_that_the_true_law_calls_best_is_the_best():
    curves = made_curves(TRUTH, 0.0)
    choices = [study.choice(seed, study.fitted(seed, laws.annealing())) for seed in curves]
    assert {choice.name for choice in choices} == {"20% linear"}
    forecast, gain, expected, regret = study.chosen_schedule(choices)
    assert forecast.estimate < 0.02 and forecast.verdict == "holds"
    assert gain.estimate == pytest.approx(expected.estimate, abs=0.02) and gain.verdict == "holds"
    # No other schedule has a lower loss under that law.
    assert regret.estimate == pytest.approx(0, abs=1e-9)


def test_an_analysis_without_the_fitted_schedules_says_which_are_missing():
    curves = WholeCurves(
        pd.DataFrame({"curve": ["a"], "step": [9], "loss": [3.0]}),
        pd.DataFrame({"curve": ["a"], "step": [0], "learning_rate": [0.1]}),
    )
    run = study.mini.runs[0]
    table = pd.DataFrame([{**flatten(run), "run": "a"}])
    with pytest.raises(ValueError, match="not trained yet: cosine"):
        study.named(table, curves)


def test_the_paper_study_has_the_nine_released_schedules_of_three_sizes():
    assert len(study.paper.runs) == 27
    assert {run.steps for run in study.paper.runs} == {16_000, 24_000, 72_000}
