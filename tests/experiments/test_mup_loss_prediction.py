"""Conclusions about losses whose law is known.

Mirrors experiments/mup_loss_prediction.py.
"""

import numpy as np
import pandas as pd
import pytest

from experiments.mup_loss_prediction import conclude


def made(*, miss: float) -> pd.DataFrame:
    """Losses of L = 40 N^-.3 + 2.5 with three seeds; the wide model's miss it.

    miss: relative distance of the wide model from the law.
    """
    widths = np.repeat([32, 40, 48, 56, 64, 256], 3)
    params = 27.0 * widths**2
    noise = np.tile([-5e-4, 0.0, 5e-4], 6)
    loss = (40 * params**-0.3 + 2.5 + noise) * np.where(widths == 256, 1 + miss, 1.0)
    return pd.DataFrame(
        {
            "run": [f"run{k}" for k in range(18)],
            "width": widths,
            "params_with_head": params,
            "seed": np.tile([0, 1, 2], 6),
            "loss": loss,
        }
    )


@pytest.mark.parametrize(
    ("miss", "within", "inside"),
    [(0.0, "holds", "holds"), (0.05, "does not hold", "does not hold")],
)
def test_a_wide_model_on_the_law_is_forecast_and_one_off_it_is_not(miss, within, inside):
    analysis = conclude(made(miss=miss))
    assert [one.verdict for one in analysis.conclusions] == [within, inside]
    error = analysis.conclusions[0]
    assert error.estimate == pytest.approx(100 * miss, abs=0.5)
    (chart,) = analysis.charts
    assert [mark.label for mark in chart.marks][-1].startswith("wide")
