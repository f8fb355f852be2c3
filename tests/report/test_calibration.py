"""All forecasts of a results folder (mirrors scalejax/report/calibration.py)."""

import shutil
from pathlib import Path

import pytest

from scalejax.files import append_chained
from scalejax.report.calibration import (
    Hits,
    calibration_text,
    read_calibration,
    write_calibration,
)


def add(
    study: Path,
    name: str,
    *,
    distance: float | None = 2.0,
    low: float | None = 2.7,
    high: float | None = 2.9,
    measured: float | None = None,
    inside: bool | None = None,
) -> None:
    study.mkdir(exist_ok=True)
    forecast = {"kind": "forecast", "id": name, "run": f"{study.name}/{name}", "law": "kaplan"}
    forecast |= {"metric": "loss", "value": 2.8, "low": low, "high": high, "level": 0.95}
    append_chained(study / "forecasts.jsonl", forecast | {"distance": distance})
    if measured is not None:
        score = {"kind": "score", "id": name, "measured": measured, "error": measured - 2.8}
        append_chained(study / "forecasts.jsonl", score | {"inside": inside})


@pytest.fixture
def studies(tmp_path):
    add(tmp_path / "a@1", "r1", distance=1.0, measured=2.8, inside=True)
    add(tmp_path / "a@1", "r2", distance=20.0, measured=3.5, inside=False)
    add(tmp_path / "a@1", "r3", distance=20.0)
    # Without an interval, nothing can be inside.
    add(tmp_path / "b@1", "r4", low=None, high=None, measured=2.8, inside=None)
    add(tmp_path / "b@1", "r5", distance=None, measured=2.75, inside=True)
    return tmp_path


def test_forecasts_are_counted_over_all_studies_by_their_distance(studies):
    calibration = read_calibration(studies)
    assert calibration.total == Hits("all", 5, 4, 3, 2)
    assert calibration.by_distance == [
        Hits("within the fitted rows", 1, 1, 1, 1),
        Hits("1 to 3 times beyond", 1, 1, 0, 0),
        Hits("10 to 30 times beyond", 2, 1, 1, 0),
        Hits("unknown", 1, 1, 1, 1),
    ]
    text = calibration_text(calibration)
    assert "2 of 3 inside: 67% [21%, 94%]" in text
    assert "1 to 3 times beyond: none with an interval has been measured" in text


def test_the_interval_is_wilsons():
    """Wilson (1927) for 8 of 10: (0.4902, 0.9433)."""
    assert Hits("", 10, 10, 10, 8).interval == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert Hits("", 1, 0, 0, 0).interval is None


def test_a_ledger_that_was_changed_by_hand_is_left_out_and_named(studies):
    path = studies / "a@1" / "forecasts.jsonl"
    path.write_text(path.read_text().replace('"measured": 3.5', '"measured": 2.8', 1))
    calibration = read_calibration(studies)
    assert calibration.total.forecasts == 2
    assert "a@1/forecasts.jsonl was changed by hand: line" in calibration_text(calibration)


def test_a_copied_study_counts_once(studies):
    """The copy was made before the run r3 was measured in the original."""
    shutil.copytree(studies / "a@1", studies / "0 copy of a@1")
    score = {"kind": "score", "id": "r3", "measured": 2.8, "error": 0.0, "inside": True}
    append_chained(studies / "a@1" / "forecasts.jsonl", score)
    calibration = read_calibration(studies)
    assert calibration.total == Hits("all", 5, 5, 4, 3)
    assert "3 forecasts of copied studies left out" in calibration_text(calibration)


def test_the_page_shows_every_forecast(studies, call):
    code, out, _ = call("report", studies)
    assert code == 0 and out.strip().endswith("calibration.html")
    page = write_calibration(read_calibration(studies)).read_text()
    assert "5 forecasts in 2 studies" in page and "a@1/r2" in page and ">NO<" in page


def test_a_folder_without_studies_is_refused(tmp_path, call):
    code, _, err = call("report", tmp_path)
    assert code == 2 and "is not the folder of a study" in err
    with pytest.raises(FileNotFoundError, match="nor one of studies with forecasts"):
        read_calibration(tmp_path)
