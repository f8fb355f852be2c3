"""The ledger of forecasts: nothing is registered twice or changed later.

Mirrors scalejax/study/ledger.py.
"""

import json
import threading

import numpy as np
import pandas as pd
import pytest

from scalejax import laws
from scalejax.files import read_lines
from scalejax.fitting.fit import fit
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
        distance=2.0,
        fits=[fit_file],
        rows=rows,
    )


def results(loss, status="done"):
    return pd.DataFrame({"run": ["c"], "loss": [loss], "status": [status]})


def test_a_forecast_is_registered_once_for_the_same_rows_in_any_order(tmp_path, fit_file):
    first = register(tmp_path, fit_file)
    assert first and register(tmp_path, fit_file, rows=ROWS.iloc[::-1])
    assert len(read_lines(tmp_path / "forecasts.jsonl")) == 1
    assert register(tmp_path, fit_file, rows=ROWS.assign(loss=[3.0, 2.90001]))
    assert len(read_lines(tmp_path / "forecasts.jsonl")) == 2


def test_a_law_that_holds_another_parameter_makes_another_forecast(tmp_path, fit_file):
    """Both are of the law of one name and the same rows."""
    for fixed in ({}, {"E": 1.7}, {"E": 1.7}):
        fit_file.write_text(json.dumps({"form": {"fixed": fixed, "tied": []}}))
        assert register(tmp_path, fit_file)
    assert len(read_lines(tmp_path / "forecasts.jsonl")) == 2


@pytest.mark.parametrize(
    ("loss", "low", "high", "inside"),
    [
        (2.85, 2.7, 2.9, True),
        (2.95, 2.7, 2.9, False),
        (2.0, None, 2.9, True),
        (3.0, None, 2.9, False),
        (2.8, None, None, None),
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


def test_the_forecast_of_a_run_that_has_started_is_refused(tmp_path, fit_file):
    assert register(tmp_path, fit_file, run="s@1/a")
    for run, name in (("a", "status.json"), ("b", "metrics.jsonl"), ("c", "DONE")):
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / name).touch()
    assert not register(tmp_path, fit_file, run="s@1/b")
    assert not register(tmp_path, fit_file, run="s@1/c")
    assert register(tmp_path, fit_file, run="s@1/a"), "it was registered before the run started"
    assert not register(tmp_path, fit_file, run="s@1/a", rows=ROWS.iloc[:1]), "a second thought"
    assert len(read_lines(tmp_path / "forecasts.jsonl")) == 1


def test_a_line_that_was_changed_is_found(tmp_path, fit_file):
    for run in ("s@1/a", "s@1/b", "s@1/c"):
        register(tmp_path, fit_file, run=run)
    ledger.score(tmp_path, results(2.85))
    ledger.check_ledger(tmp_path)
    path = tmp_path / "forecasts.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    changes = [
        [lines[0].replace(b"2.8,", b"2.85,"), *lines[1:]],
        lines[1:],
        [lines[0], *lines[2:]],
        [lines[1], lines[0], *lines[2:]],
        # No line follows that would show the change.
        [lines[0].replace(b"2.8,", b"2.85,")],
        [lines[0], lines[1].replace(b"2.8,", b"2.85,")],
    ]
    for changed in changes:
        path.write_bytes(b"".join(changed))
        with pytest.raises(
            ValueError, match=r"forecasts\.jsonl: line [12] does not carry the hash"
        ):
            ledger.check_ledger(tmp_path)


def test_the_hash_of_a_fit_does_not_depend_on_how_long_it_took(tmp_path, fit_file):
    hashes = []
    for number, content in enumerate(({"seconds": 1}, {"seconds": 2}, {"seconds": 1, "A": 2})):
        folder = tmp_path / str(number)
        folder.mkdir()
        fit_file.write_text(json.dumps(content))
        register(folder, fit_file)
        hashes.append(read_lines(folder / "forecasts.jsonl")[0]["fit_sha256"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_hash_of_a_real_fit_has_no_time_in_it(tmp_path):
    """Two fits of the same rows take different times, and are the same evidence."""
    params, tokens = np.meshgrid([1e6, 4e6, 16e6, 64e6], [1e8, 4e8, 16e8, 64e8])
    loss = 1.7 + 400 / params**0.34 + 410 / tokens**0.28
    table = pd.DataFrame({"params": params.ravel(), "tokens": tokens.ravel(), "loss": loss.ravel()})
    hashes = []
    for number in range(2):
        path = tmp_path / f"{number}.json"
        fit(table, laws.chinchilla(), bootstrap=4).save(path)
        hashes.append(ledger._hash_fits([path]))
    contents = [(tmp_path / f"{number}.json").read_text() for number in range(2)]
    assert contents[0] != contents[1], "the files hold the seconds"
    assert hashes[0] == hashes[1]


def test_several_processes_that_register_at_once_keep_the_chain(tmp_path, fit_file):
    threads = [
        threading.Thread(target=register, args=(tmp_path, fit_file), kwargs={"run": f"s@1/{name}"})
        for name in "abcdefgh"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.check_ledger(tmp_path)
    assert len(read_lines(tmp_path / "forecasts.jsonl")) == 8
