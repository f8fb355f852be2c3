"""Hyperparameter laws from tables (mirrors scalejax/fitting/hyperparameters.py)."""

import numpy as np
import pandas as pd
import pytest

from scalejax import laws
from scalejax.fitting import fit as fits


def sweep_table():
    """Sweep of learning rate and batch size in nine cells of (params, tokens)."""
    away = np.linspace(-2, 2, 7)
    sizes, budgets = [1e8, 4e8, 1e9], [2e9, 8e9, 3e10]
    N, D, x, y = (a.ravel() for a in np.meshgrid(sizes, budgets, away, away))
    rates, batches = 2 * N**-0.7 * D**0.3 * np.exp(x), 0.6 * D**0.57 * np.exp(y)
    loss = 2.5 + 0.02 * (x**2 + y**2)
    return pd.DataFrame(
        {"params": N, "tokens": D, "learning_rate": rates, "batch_tokens": batches, "loss": loss}
    )


def test_three_cells_give_a_law_and_no_interval():
    few = sweep_table().query(
        "(params == 1e8 and tokens == 2e9) or (params == 1e9 and tokens in (2e9, 8e9))"
    )
    fit = fits.fit(few, laws.hyperparameter_law(), bootstrap=50)
    assert fit.verdict == "unidentified" and set(fit.intervals.values()) == {(None, None)}
    reasons = " ".join(fit.reasons)
    assert "3 cells: " in reasons
    assert "do not identify the law, and no interval follows" in reasons
    estimate = fit.predict(params=1e9, tokens=8e9)
    assert estimate.value > 0 and (estimate.low, estimate.high) == (None, None)
    assert "too few of 50 draws of cells" in estimate.method


def test_parameters_are_nested_by_quantity_and_cells_are_scored_by_regret():
    fit = fits.fit(
        sweep_table(),
        laws.hyperparameter_law(),
        bootstrap=50,
        holdout="params == 1e9 and tokens == 8e9",
    )
    record = fit.summary()
    assert record["params"]["learning_rate"]["params_exponent"] == pytest.approx(-0.7)
    assert record["params"]["batch_tokens"] == {
        "coefficient": pytest.approx(0.6),
        "tokens_exponent": pytest.approx(0.57),
    }
    assert record["intervals"]["learning_rate"]["tokens_exponent"][0] <= 0.3 + 1e-9
    assert record["holdout"]["cells"] == 1 and record["cross_validation"]["cells"] == 8
    assert fit.holdout.cells == 1 and fit.cross_validation.splits == 8


def test_a_saved_fit_forecasts_learning_rate_and_batch(tmp_path):
    fit = fits.fit(sweep_table(), laws.hyperparameter_law(), bootstrap=50)
    fit.save(tmp_path / "fit.json")
    loaded = fits.load(tmp_path / "fit.json")
    assert loaded.summary() == fit.summary()
    forecast = loaded.forecast(params=1e9, tokens=8e9).summary()
    assert forecast["value"] == pytest.approx(2 * 1e9**-0.7 * 8e9**0.3)
    assert forecast["batch_tokens"] == pytest.approx(0.6 * 8e9**0.57)


def test_beta2_joins_the_law_when_the_table_has_several(tmp_path):
    table = sweep_table()
    one = fits.fit(table.assign(beta2=0.95), laws.hyperparameter_law(), bootstrap=0)
    assert "beta2" not in one.summary()["params"]
    tables = [table.assign(off=off, loss=table.loss + 0.2 * off**2) for off in (-1.0, 0.0, 1.0)]
    swept = pd.concat(tables).assign(beta2=lambda t: 1 - 3e-4 * t.batch_tokens**0.4 * np.exp(t.off))
    fit = fits.fit(swept, laws.hyperparameter_law(), bootstrap=20)
    fit.save(tmp_path / "fit.json")
    record = fits.load(tmp_path / "fit.json").summary()
    assert record["params"]["beta2"] == {
        "coefficient": pytest.approx(3e-4),
        "batch_exponent": pytest.approx(0.4),
    }
    assert set(record["intervals"]["beta2"]) == {"coefficient", "batch_exponent"}
    run = fit.forecast(params=1e9, tokens=8e9).run
    assert run["beta2"] == pytest.approx(1 - 3e-4 * run["batch_tokens"] ** 0.4)


@pytest.mark.parametrize("options", [{"loss": "lad"}, {"cluster": "params"}, {"weights": "loss"}])
def test_options_that_the_law_does_not_read_are_refused(options):
    with pytest.raises(ValueError, match="the hyperparameters law does not read"):
        fits.fit(sweep_table(), laws.hyperparameter_law(), **options)


def test_a_table_of_histories_is_refused():
    table = sweep_table()
    early = table.assign(tokens=table.tokens / 2, loss=table.loss + 0.1)
    histories = pd.concat([early.assign(step=50), table.assign(step=100)])
    histories["run"] = histories.index
    with pytest.raises(ValueError, match=r"run '0' has several rows.*last\(run, step\)"):
        fits.fit(histories.reset_index(drop=True), laws.hyperparameter_law(), bootstrap=0)


def test_params_in_millions_are_named():
    table = sweep_table()
    fit = fits.fit(table.assign(params=table.params / 1e6), laws.hyperparameter_law(), bootstrap=0)
    assert "params=params*1e6" in fit.reasons[0]
