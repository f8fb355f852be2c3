"""The ledger of forecasts: nothing is registered twice or changed later.

Mirrors scalejax/study/ledger.py.
"""

import pandas as pd
import pytest

from scalejax.files import read_lines
from scalejax.fitting.result import Estimate
from scalejax.study import ledger

ROWS = pd.DataFrame(
    {"run": ["a", "b"], "params_with_head": [1e4, 2e4], "tokens": [1e5, 2e5], "loss": [3.0, 2.9]}
)


@pytest.fixture
def fit_file(tmp_path):
    (tmp_path / "fit.json").write_text("{}")
    return tmp_path / "fit.json"


def register(folder, fit_file, rows=ROWS, run="s@1/c", low=2.7, high=2.9):
    estimate = Estimate(2.8, low, high, 0.95, "pairs")
    return ledger.register(
        folder,
        run=run,
        law="chinchilla",
        metric="loss",
        estimate=estimate,
        fits=[fit_file],
        rows=rows,
    )


def results(loss, status="done"):
    return pd.DataFrame({"run": ["c"], "loss": [loss], "status": [status]})


def test_a_forecast_is_registered_once_for_the_same_rows_in_any_order(tmp_path, fit_file):
    first = register(tmp_path, fit_file)
    assert register(tmp_path, fit_file, rows=ROWS.iloc[::-1]) == first
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
def test_an_interval_contains_what_lies_between_its_ends_and_an_open_end_bounds_nothing(
    tmp_path, fit_file, loss, low, high, inside
):
    register(tmp_path, fit_file, low=low, high=high)
    ((forecast, score),) = ledger.score(tmp_path, results(loss))
    assert forecast["value"] == 2.8 and score and score["measured"] == loss
    assert score["inside"] is inside and score["error"] == pytest.approx(loss - 2.8)


def test_scores_are_written_once_and_only_for_runs_that_are_done(tmp_path, fit_file):
    register(tmp_path, fit_file)
    ((_, score),) = ledger.score(tmp_path, results(9.0, status="diverged"))
    assert score is None
    for _ in range(2):
        ledger.score(tmp_path, results(2.85))
    lines = read_lines(tmp_path / "forecasts.jsonl")
    assert [line["kind"] for line in lines] == ["forecast", "score"]
