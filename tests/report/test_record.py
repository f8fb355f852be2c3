"""Folders without a study, or with a damaged one, are refused.

Mirrors scalejax/report/record.py.
"""

import pytest

from scalejax.files import write_json
from scalejax.report.record import read_study
from scalejax.report.summary import runs_text
from scalejax.report.write import write_report
from tests.report.studies import DIVERGED_RUN, FORECAST_RUN, results_table, write_study


@pytest.mark.parametrize("missing", ["study.json", "results.parquet"])
def test_a_folder_without_a_study_is_refused_and_nothing_is_written(tmp_path, missing):
    folder = write_study(tmp_path / "made@1", results_table())
    (folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"made@1 .*: it has no {missing}"):
        write_report(folder)
    assert not (folder / "report.html").exists() and not (folder / "figures").exists()


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not the folder of a study"):
        write_report(tmp_path / "nowhere")


def test_a_table_without_a_finished_run_is_refused(tmp_path):
    folder = write_study(tmp_path / "made@1", results_table())
    results_table().iloc[:0].to_parquet(folder / "results.parquet")
    with pytest.raises(ValueError, match="no finished run"):
        read_study(folder)


def test_damaged_files_are_named(tmp_path):
    folder = write_study(tmp_path / "made@1", results_table())
    results_table().drop(columns=["loss", "status"]).to_parquet(folder / "results.parquet")
    with pytest.raises(ValueError, match=r"results.parquet lacks status, loss"):
        read_study(folder)
    write_json(folder / "study.json", {"name": "made@1"})
    with pytest.raises(ValueError, match=r"study.json lacks question, runs, forecast, plan"):
        read_study(folder)


def test_rows_are_split_into_fitted_and_forecast_runs_without_the_diverged_ones(tmp_path):
    rows = results_table()
    rows.loc[rows["run"] == DIVERGED_RUN, "status"] = "diverged"
    record = read_study(write_study(tmp_path / "made@1", rows))
    assert len(record.fitted) == len(rows) - 2
    assert DIVERGED_RUN not in set(record.fitted["run"])
    assert list(record.forecast_runs["run"]) == [FORECAST_RUN]
    assert record.chance_error == 0.75 and not record.unfinished


def test_runs_that_finished_since_the_tables_were_written_are_not_called_unfinished(tmp_path):
    rows = results_table()
    folder = write_study(tmp_path / "made@1", rows)
    rows.iloc[1:].to_parquet(folder / "results.parquet", index=False)
    first = rows["run"].iloc[0]
    assert read_study(folder).unfinished == [first]
    (folder / "runs" / first).mkdir(parents=True)
    (folder / "runs" / first / "DONE").touch()
    record = read_study(folder)
    assert not record.unfinished
    text = runs_text(record)
    assert f"and not in this report: {first}; `scalejax run`" in text and "Not fin" not in text
