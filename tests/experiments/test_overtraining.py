"""Which runs forecast which, and the verdicts (mirrors experiments/overtraining.py)."""

import numpy as np
import pandas as pd
import pytest

from experiments import overtraining
from scalejax.model.flops import flops_6nd


@pytest.mark.parametrize(("scale", "share"), [("mini", 1 / 20), ("paper", 1 / 300)])
def test_every_fitted_run_is_far_cheaper_than_the_most_overtrained_one(scale, share):
    study = getattr(overtraining, scale)
    expensive = study.forecast[0]
    limit = share * flops_6nd(expensive.model, expensive.tokens)
    assert all(flops_6nd(run.model, run.tokens) <= limit for run in study.runs)
    # The law has four parameters, and needs several sizes and ratios.
    assert len({(run.model.width, run.tokens) for run in study.runs}) > 6
    assert len({run.model.width for run in study.runs}) >= 3


def made(*, noise: float) -> pd.DataFrame:
    """Six fitted runs, two of each size, and the run `far`, which measures 3 nats."""
    rng = np.random.default_rng(0)
    rows = [
        (f"run{size}-{seed}", 16, size, 20 * size, 120 * size**2, 4 + noise * rng.normal())
        for size in (100, 200, 300)
        for seed in range(2)
    ]
    rows.append(("far", 32, 200, 64_000, 6 * 200 * 64_000, 3.0))
    columns = ["run", "width", "params_with_head", "tokens", "flops_6nd", "loss"]
    return pd.DataFrame(rows, columns=columns)


def ledger(value: float) -> list[dict]:
    forecast = {"kind": "forecast", "run": "made@1/far", "low": value - 0.1, "high": value + 0.1}
    return [
        {**forecast, "law": "overtraining", "metric": "loss", "value": value},
        {**forecast, "law": "overtraining+downstream", "metric": "top1_error", "value": 9.0},
        {"kind": "score", "measured": 3.0},
    ]


@pytest.mark.parametrize(
    ("value", "noise", "verdict"),
    [
        (3.01, 1e-3, "holds"),
        (3.10, 1e-3, "does not hold"),
        (3.03, 1e-1, "not resolved at this scale"),
    ],
)
def test_a_forecast_is_judged_by_its_error_and_by_the_noise_between_seeds(value, noise, verdict):
    analysis = overtraining.compare(made(noise=noise), ["far"], ledger(value))
    (conclusion,) = analysis.conclusions
    assert conclusion.verdict == verdict
    assert conclusion.estimate == pytest.approx(np.log(value / 3.0))
    assert "overtraining law" in conclusion.claim
    assert "width 32 at 320 tokens per parameter" in conclusion.claim
    # The largest fitted run has 120 x 300^2 of 6 x 200 x 64,000 FLOPs.
    assert "at most 0.141" in conclusion.note


def test_without_seeds_nothing_bounds_the_noise():
    table = made(noise=1e-3)
    analysis = overtraining.compare(table[~table["run"].str.endswith("-1")], ["far"], ledger(3.01))
    assert analysis.conclusions[0].interval == (-np.inf, np.inf)


def test_a_run_that_was_not_trained_is_missed():
    table = made(noise=1e-3)
    with pytest.raises(ValueError, match="run far is forecast and has not been trained"):
        overtraining.compare(table[table["run"] != "far"], ["far"], ledger(3.01))
