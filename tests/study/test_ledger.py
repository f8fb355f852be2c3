"""The ledger of forecasts: nothing twice, nothing changed afterwards."""

import pandas as pd
import pytest

from scalejax.files import read_lines
from scalejax.fitting.fit import Estimate
from scalejax.study import ledger as forecasts

ROWS = pd.DataFrame(
    {"run": ["a", "b"], "params_with_head": [1e4, 2e4], "tokens": [1e5, 2e5], "loss": [3.0, 2.9]}
)


@pytest.fixture
def fit_file(tmp_path):
    (tmp_path / "fit.json").write_text("{}")
    return tmp_path / "fit.json"


def register(folder, fit_file, rows=ROWS, run="s@1/c", low=2.7, high=2.9):
    estimate = Estimate(2.8, low, high, 0.95, "pairs")
    return forecasts.register(
        folder,
        run=run,
        law="chinchilla",
        metric="loss",
        estimate=estimate,
        fits=[fit_file],
        rows=rows,
    )


def measured(loss, status="done"):
    return pd.DataFrame({"run": ["c"], "loss": [loss], "status": [status]})


def test_a_forecast_is_registered_once_for_the_same_rows_in_any_order(tmp_path, fit_file):
    first = register(tmp_path, fit_file)
    assert register(tmp_path, fit_file, rows=ROWS[::-1]) == first
    assert len(read_lines(tmp_path / "forecasts.jsonl")) == 1
    assert register(tmp_path, fit_file, rows=ROWS.assign(loss=[3.0, 2.90001])) != first
    assert len(read_lines(tmp_path / "forecasts.jsonl")) == 2


@pytest.mark.parametrize(
    ("loss", "low", "high", "inside"),
    [
        (2.85, 2.7, 2.9, True),
        (2.95, 2.7, 2.9, False),
        (2.0, None, 2.9, True),
        (3.0, None, 2.9, False),
    ],
)
def test_a_score_says_whether_the_interval_held(tmp_path, fit_file, loss, low, high, inside):
    register(tmp_path, fit_file, low=low, high=high)
    (joined,) = forecasts.score(tmp_path, measured(loss))
    assert joined["inside"] is inside and joined["error"] == pytest.approx(loss - 2.8)


def test_scores_are_written_once_and_only_for_runs_that_are_done(tmp_path, fit_file):
    register(tmp_path, fit_file)
    assert "measured" not in forecasts.score(tmp_path, measured(9.0, status="diverged"))[0]
    for _ in range(2):
        forecasts.score(tmp_path, measured(2.85))
    assert [line["kind"] for line in read_lines(tmp_path / "forecasts.jsonl")] == [
        "forecast",
        "score",
    ]
