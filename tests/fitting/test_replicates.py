"""Noise and averages of repeated runs (mirrors scalejax/fitting/replicates.py)."""

import numpy as np
import pandas as pd
import pytest

from scalejax import laws
from scalejax.fitting import fit as fits
from scalejax.fitting import replicates
from scalejax.fitting.parametric.result import ParametricFit
from tests.fitting.test_fit import ladder


def fitted(frame, *, bootstrap: int = 0, **options) -> ParametricFit:
    return fits.fit(frame, laws.chinchilla(), loss="log-mse", bootstrap=bootstrap, **options)


def repeated(seed=0, noise=0.004, bend=0.0):
    """Four runs per design point of the ladder.

    bend: relative size of a deviation that no Chinchilla law can follow.
    """
    rng = np.random.default_rng(seed)
    frame = pd.concat([ladder(noise=0.0).assign(seed=s) for s in range(4)], ignore_index=True)
    sign = np.where(np.log2(frame.tokens).round().astype(int) % 2, 1, -1)
    frame["loss"] *= np.exp(rng.normal(0, noise, len(frame)) + bend * sign)
    return frame.assign(run=[f"r{i}" for i in range(len(frame))])


def test_a_fit_reports_the_noise_of_its_replicates_and_no_lack_of_fit_of_a_true_law():
    fit = fitted(repeated())
    assert fit.noise is not None and fit.noise.degrees_of_freedom == 60
    assert fit.noise.std == pytest.approx(0.004, rel=0.25)
    assert not any("lack of fit" in reason for reason in fit.reasons)
    assert fitted(ladder()).noise is None


def test_a_law_that_the_replicates_contradict_gets_a_reason_with_its_bias():
    fit = fitted(repeated(bend=0.01))
    (reason,) = (reason for reason in fit.reasons if "lack of fit" in reason)
    bias = float(reason.partition("points by ")[2].partition(" ")[0])
    assert 0.007 < bias < 0.01, "the five parameters follow a part of the deviation of 0.01"
    assert "15 and 60 degrees of freedom" in reason and fit.verdict == "ok"


def test_a_sweep_with_one_seed_has_no_replicates():
    assert fitted(repeated().assign(seed=0)).noise is None


def test_an_average_of_r_runs_counts_as_r_runs():
    # Without the last seven rows, design points have three runs or four.
    frame = repeated().iloc[:-7]
    averages = replicates.average(frame)
    assert len(averages) == 20 and sorted(set(averages.replicates)) == [3, 4]
    all_runs = fitted(frame)
    weighted = fitted(averages, weights="replicates")
    assert weighted.params == pytest.approx(all_runs.params, rel=1e-6)
    unweighted = fitted(averages)
    assert unweighted.params["alpha"] != pytest.approx(all_runs.params["alpha"], rel=1e-4)
    three, four = (averages[averages.replicates == r].iloc[0] for r in (3, 4))
    assert three.loss_se / three.loss * np.sqrt(3) == pytest.approx(
        four.loss_se / four.loss * np.sqrt(4)
    )
    with pytest.raises(ValueError, match="to average"):
        replicates.average(ladder())


def test_a_noise_bootstrap_draws_the_noise_of_the_replicates():
    frame = repeated()
    from_replicates = fitted(frame, resample="noise", bootstrap=200)
    known = frame.assign(sd=0.004 * frame.loss)
    from_column = fitted(known, resample="noise:sd", bootstrap=200)

    def width(fit: ParametricFit) -> float:
        low, high = fit.intervals["alpha"]
        assert low is not None and high is not None
        return high - low

    assert from_replicates.noise is not None
    ratio = from_replicates.noise.std / 0.004
    assert width(from_replicates) == pytest.approx(width(from_column) * ratio, rel=0.02)
    assert from_replicates.resample == "noise"
    method = from_replicates.predict(params=1e7, tokens=1e7).method
    assert "draws of noise x" in method


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resample": "rows"}, "not one of pairs, trunks, residuals, noise"),
        ({"resample": "residuals:2"}, "not one of pairs"),
        (
            {"resample": "residuals", "cluster": "run"},
            "drawn together with resample=.pairs. or .trunks. only",
        ),
        ({"resample": "noise"}, "the table has none"),
        ({"resample": "noise:sd"}, "or a column of the table"),
        ({"resample": "noise:-1"}, "neither STD nor"),
        ({"resample": "noise:seed_sd"}, "a positive number"),
    ],
)
def test_a_resampling_that_is_not_possible_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fits.fit(ladder().assign(seed_sd=0.0), laws.chinchilla(), bootstrap=10, **options)


def test_the_interval_of_a_mean_covers_the_truth_as_often_as_it_says():
    draws = np.random.default_rng(3).normal(0.5, 0.01, (2_000, 3))
    estimates = [replicates.mean_of(values) for values in draws]
    inside = np.mean([(it.low or 0) < 0.5 < (it.high or 0) for it in estimates])
    assert inside == pytest.approx(0.95, abs=0.015)


def test_a_single_run_has_no_interval_and_a_mean_of_none_is_refused():
    assert replicates.mean_of([0.5])[:3] == (0.5, None, None)
    with pytest.raises(ValueError, match="finite values"):
        replicates.mean_of([])
    with pytest.raises(ValueError, match="finite values"):
        replicates.mean_of([0.5, np.inf])
