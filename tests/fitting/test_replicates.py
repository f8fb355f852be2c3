"""Replicate replicates: the noise a Fit reports, the law they contradict, their averages (mirrors scalejax/study/seeds.py)."""

import numpy as np
import pandas as pd
import pytest

from scalejax import laws
from scalejax.fitting import fit as fits
from scalejax.fitting import replicates
from tests.fitting.test_fit import ladder

LOG_MSE = {"law": laws.chinchilla(), "loss": "log-mse"}


def repeated(seed=0, noise=0.004, bend=0.0):
    """Four runs at each design point of the ladder; `bend` is a loss that no Chinchilla law has."""
    rng = np.random.default_rng(seed)
    frame = pd.concat([ladder(noise=0.0).assign(seed=s) for s in range(4)], ignore_index=True)
    odd = np.where(np.log2(frame.tokens).round().astype(int) % 2, 1, -1)
    frame["loss"] *= np.exp(rng.normal(0, noise, len(frame)) + bend * odd)
    return frame.assign(run=[f"r{i}" for i in range(len(frame))])


def test_a_fit_reports_the_noise_of_its_replicates_and_no_lack_of_fit_of_a_true_law():
    made = fits.fit(repeated(), **LOG_MSE)
    assert made.noise.degrees_of_freedom == 60 and made.noise.std == pytest.approx(0.004, rel=0.25)
    assert not any("lack of fit" in reason for reason in made.reasons)
    assert fits.fit(ladder(), **LOG_MSE).noise is None


def test_a_law_that_replicates_contradict_is_named_with_the_size_of_its_miss():
    made = fits.fit(repeated(bend=0.01), **LOG_MSE)
    (reason,) = (reason for reason in made.reasons if "lack of fit" in reason)
    miss = float(reason.partition("points by ")[2].partition(" ")[0])
    assert 0.007 < miss < 0.01, "five parameters take up a part of the bend of 0.01"
    assert "15 and 60 degrees of freedom" in reason and made.verdict == "ok"


def test_a_sweep_at_one_seed_is_no_replicate():
    assert fits.fit(repeated().assign(seed=0), **LOG_MSE).noise is None


def test_an_average_of_r_runs_counts_as_r_runs():
    frame = repeated()[:-7]  # design points with three runs and with four
    averages = replicates.average(frame)
    assert len(averages) == 20 and sorted(set(averages.replicates)) == [3, 4]
    alone = fits.fit(frame, **LOG_MSE)
    weighted = fits.fit(averages, weights="replicates", **LOG_MSE)
    assert weighted.params == pytest.approx(alone.params, rel=1e-6)
    assert fits.fit(averages, **LOG_MSE).params["alpha"] != pytest.approx(
        alone.params["alpha"], rel=1e-4
    )
    small, large = (averages[averages.replicates == r].iloc[0] for r in (3, 4))
    assert small.loss_se / small.loss * np.sqrt(3) == pytest.approx(
        large.loss_se / large.loss * np.sqrt(4)
    )
    with pytest.raises(ValueError, match="to average"):
        replicates.average(ladder())


def test_a_noise_bootstrap_draws_what_the_replicates_show():
    frame = repeated()
    measured = fits.fit(frame, resample="noise", bootstrap=200, **LOG_MSE)
    known = fits.fit(
        frame.assign(sd=0.004 * frame.loss), resample="noise:sd", bootstrap=200, **LOG_MSE
    )
    width = lambda made: np.subtract(*made.intervals["alpha"][::-1])
    assert width(measured) == pytest.approx(width(known) * measured.noise.std / 0.004, rel=0.02)
    assert (
        measured.resample == "noise"
        and "draws of noise x" in measured.predict(params=1e7, tokens=1e7).method
    )


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"resample": "rows"}, "not one of pairs, residuals, noise"),
        ({"resample": "residuals:2"}, "not one of pairs"),
        ({"resample": "residuals", "cluster": "run"}, "drawn together with resample='pairs' only"),
        ({"resample": "noise"}, "the table has none"),
        ({"resample": "noise:sd"}, "or a column of the table"),
        ({"resample": "noise:-1"}, "neither STD nor"),
        ({"resample": "noise:seed_sd"}, "a positive number"),
    ],
)
def test_a_resampling_that_cannot_be_is_refused(choice, said):
    with pytest.raises(ValueError, match=said):
        fits.fit(ladder().assign(seed_sd=0.0), laws.chinchilla(), bootstrap=10, **choice)
