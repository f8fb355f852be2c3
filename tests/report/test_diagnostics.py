"""Conclusions about residuals, noise and trunks (mirrors
scalejax/report/diagnostics.py)."""

from dataclasses import replace

import numpy as np
import pandas as pd

from scalejax.laws.inference.replicates import NoiseFloor
from scalejax.report.diagnostics import noise, residual_trends, shared_trunks
from tests.report.studies import LAW, results_table
from tests.report.test_figures import exact_fit


def fitted_rows() -> pd.DataFrame:
    """Twenty runs on the law of `exact_fit`, with noise of 0.004 nats."""
    return results_table().iloc[:-1]


def test_residuals_that_are_noise_have_no_trend_and_bent_ones_do():
    rows = fitted_rows()
    law = LAW.loss(rows["params_with_head"].to_numpy(), rows["tokens"].to_numpy())
    noise_size = float(np.sqrt(np.mean((rows["loss"] - np.asarray(law)) ** 2)))
    assert f"{noise_size:.2g} nats" in residual_trends(exact_fit(), rows)
    assert "no reason to doubt" in residual_trends(exact_fit(), rows)
    z = np.log(rows["tokens"] / 1.2e6)
    bent = rows.assign(loss=rows["loss"] + 0.05 * z**2)
    assert "still depend on tokens: the form" in residual_trends(exact_fit(), bent)
    larger = rows.assign(loss=rows["loss"] + 0.02 * np.log(rows["params_with_head"] / 5e4))
    assert "still depend on size: the form" in residual_trends(exact_fit(), larger)


def test_the_noise_floor_is_named_and_its_absence_too():
    assert "second seed" in noise(exact_fit()).conclusion
    floor = replace(exact_fit(), noise=NoiseFloor(0.0125, 6))
    assert "scatter by 1.25% of the loss" in noise(floor).conclusion
    assert "6 degrees of freedom" in noise(floor).details


def test_runs_that_share_trunks_are_not_called_independent():
    rows = fitted_rows()
    assert "no two of these runs share" in shared_trunks(exact_fit(), rows).conclusion
    rows = rows.assign(trunk=rows["params_with_head"].map(str))
    naive = shared_trunks(exact_fit(), rows)
    assert "20 runs share 4 trunks" in naive.conclusion and "too narrow" in naive.conclusion
    assert naive.details.count("<tr>") == 1 + 4
    clustered = shared_trunks(replace(exact_fit(), clusters="trunk"), rows)
    assert "the intervals allow for that" in clustered.conclusion
