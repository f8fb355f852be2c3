"""The report of a study folder from somebody else writes nothing outside the folder."""

import json
import re

import pytest

from scalejax.report.write import write_report
from tests.report.studies import register_forecast, results_table, write_study


@pytest.fixture
def study(tmp_path):
    folder = write_study(tmp_path / "out" / "made@1", results_table())
    register_forecast(folder, value=2.5, low=2.4, high=2.6, measured=2.5)
    return folder


def test_a_linked_figure_is_replaced_and_not_what_it_names(study, tmp_path):
    photo, figures = tmp_path / "photo.png", study / "figures"
    photo.write_bytes(b"a photo")
    figures.mkdir()
    (figures / "forecast_loss.png").symlink_to(photo)
    write_report(study)
    assert photo.read_bytes() == b"a photo"
    assert not (figures / "forecast_loss.png").is_symlink()
    assert (figures / "forecast_loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("metric", ["x/../../../../escaped", '" onclick="alert(1)'])
def test_a_forged_metric_names_no_file_outside_and_no_code_of_the_page(metric, study, tmp_path):
    path = study / "forecasts.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line | {"metric": metric}) + "\n" for line in lines))
    # With this folder, the forged path would lead out of the study.
    (study / "figures" / "forecast_x").mkdir(parents=True)
    write_report(study)
    assert {entry.name for entry in tmp_path.iterdir()} == {"out"}
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {"made@1"}
    assert list((study / "figures").glob("forecast_*.png"))
    # The links to the image files must not end before their quotes do.
    assert not re.search(r'href="[^"]*" onclick', (study / "report.html").read_text())
