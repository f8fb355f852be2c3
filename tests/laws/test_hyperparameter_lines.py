"""Power laws of hyperparameters (mirrors scalejax/laws/hyperparameter_lines.py)."""

import numpy as np
import pandas as pd
import pytest

import scalejax
from scalejax import laws


def test_the_timescale_of_the_best_runs_is_computed_from_their_columns():
    N, D = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, 4), np.geomspace(1e9, 1e11, 5)))
    best = pd.DataFrame({"params": N, "tokens": D, "batch_tokens": 0.6 * D**0.5})
    best["learning_rate"] = 2e-3
    tau = 1.1 * (D / N) ** -0.53
    best["weight_decay"] = best.batch_tokens / (best.learning_rate * tau * D)
    columns = {"timescale": "batch_tokens / (learning_rate * weight_decay * tokens)"}
    fit = scalejax.fit(best, "timescale", columns=columns, bootstrap=0)
    assert fit.verdict == "ok" and fit.params["m"] == pytest.approx(-0.53, rel=1e-8)
    assert fit.predict(params=1e10, tokens=2e11).value == pytest.approx(1.1 * 20**-0.53, rel=1e-7)
    batch = scalejax.fit(best, laws.best_batch(), bootstrap=0)
    assert batch.params == pytest.approx({"c": 0.6, "m": 0.5}, rel=1e-7)
