"""What verdicts and intervals do not depend on: the number of draws, a diverged run.

Mirrors scalejax/fitting/parametric/fit.py and quality.py.
"""

import pytest

from scalejax import laws
from scalejax.cli.text.fit import fit_text
from scalejax.fitting import fit as fits
from scalejax.fitting.parametric.result import ParametricFit
from tests.fitting.test_parametric import ladder

BEYOND = {"params": 1e10, "tokens": 2e11}


@pytest.mark.parametrize(("noise", "label"), [(0.02, "ok"), (0.03, "unidentified")])
def test_the_verdict_does_not_depend_on_the_number_of_draws(noise, label):
    """At 3% the linearized errors of A and B are small, and some draws end at E = 0."""
    found = [
        fits.fit(ladder(25, noise=noise), laws.chinchilla(), bootstrap=draws)
        for draws in (0, 100, 400)
    ]
    assert [fit.verdict for fit in found] == [label] * 3
    assert found[0].intervals == {} and found[0].draws == {}
    assert found[0].reasons == found[1].reasons == found[2].reasons


def test_a_table_too_small_to_resample_says_so_without_draws():
    table = ladder(6)
    fit = fits.fit(table, laws.chinchilla(), bootstrap=0)
    assert fit.verdict == fits.fit(table, laws.chinchilla(), bootstrap=100).verdict
    assert fit.verdict == "unidentified"
    assert "6 rows for 5 parameters: 75% of their resamples" in " ".join(fit.reasons)


def with_a_diverged_run():
    table = ladder(25, noise=0.001).assign(run=lambda t: [f"r{i}" for i in range(len(t))])
    table.loc[12, "loss"] = 10.8
    return table


@pytest.mark.parametrize("draws", [0, 100])
def test_a_diverged_run_is_named_and_does_not_change_the_verdict(draws):
    fit = fits.fit(with_a_diverged_run(), laws.chinchilla(), bootstrap=draws)
    assert fit.verdict == "ok"
    (outlier,) = fit.quality.outliers
    assert (outlier.row, outlier.run, outlier.measured) == (12, "r12", 10.8)
    assert outlier.expected == pytest.approx(ladder(25, noise=0.0).loss[12], rel=0.01)
    assert "row 12 (run r12) stands out: loss 10.8" in " ".join(fit.reasons)
    assert fit.quality.residual_spread == pytest.approx(0.001, rel=0.6)
    # Least squares believes the run, and says how badly the others then fit.
    assert (
        fits.fit(with_a_diverged_run(), laws.chinchilla(), loss="log-mse", bootstrap=0).verdict
        != "ok"
    )


def test_the_quality_of_a_fit_survives_its_file(tmp_path):
    fit = fits.fit(with_a_diverged_run(), laws.chinchilla(), holdout="params < 3e7", bootstrap=0)
    fit.save(tmp_path / "fit.json")
    loaded = fits.load(tmp_path / "fit.json")
    assert isinstance(loaded, ParametricFit) and loaded.quality == fit.quality
    assert "residual spread 0." in fit_text(fit) and ", R2 0.9" in fit_text(fit)


@pytest.mark.parametrize("resample", ["pairs", "residuals"])
def test_a_diverged_run_does_not_widen_forecasts(resample):
    """One of 25 residuals lies beyond an end of a 95% interval."""
    table = with_a_diverged_run()

    def interval(rows):
        fit = fits.fit(rows, laws.chinchilla(), bootstrap=200, resample=resample)
        estimate = fit.predict(**BEYOND)
        assert estimate.low is not None and estimate.high is not None
        return estimate.low, estimate.high

    low, high = interval(table)
    low_without, high_without = interval(table.drop(index=12))
    assert low < high_without and low_without < high
    assert high - low < 2.5 * (high_without - low_without)
