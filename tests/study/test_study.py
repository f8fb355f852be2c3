"""What a study is, and which studies are refused (mirrors scalejax/study/study.py)."""

import pytest

from scalejax.config import Placement
from scalejax.study.study import Study


def test_a_placement_that_divides_a_forecast_run_unequally_is_refused(tiny_run):
    with pytest.raises(ValueError, match=r"s@1, run \w{16}: .*3 does not divide the batch of 4"):
        Study("s@1", [tiny_run], placement=Placement(accumulate=3))
    wide = tiny_run.replace(batch_tokens=96)
    with pytest.raises(ValueError, match=r"the batch of 6 sequences"):
        Study("s@1", [tiny_run], [wide], placement=Placement(accumulate=4))


def test_a_name_without_a_version_is_refused(tiny_run):
    with pytest.raises(ValueError, match="name@version"):
        Study("quickstart", [tiny_run])


def test_a_study_without_runs_is_refused():
    with pytest.raises(ValueError, match="has no runs"):
        Study("s@1", [])


def test_a_run_that_is_not_a_run_is_refused(tiny_run):
    not_a_run: list = ["run"]
    with pytest.raises(ValueError, match=r"Study.forecast must hold Run values; got 'run'"):
        Study("s@1", [tiny_run], forecast=not_a_run)


def test_a_run_that_is_both_fitted_and_forecast_is_refused(tiny_run):
    with pytest.raises(ValueError, match="is in both"):
        Study("s@1", [tiny_run], [tiny_run])
