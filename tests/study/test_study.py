"""What a study is, and which studies are refused (mirrors scalejax/study/study.py)."""

from typing import Any

import pytest

from scalejax.config import Measure, Placement
from scalejax.laws.forms import chinchilla
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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"laws": chinchilla()}, r"Study.laws must be a tuple or list of laws.*; got Parametric"),
        ({"laws": ["chinchilla"]}, r"such as `laws.chinchilla\(\)`; got 'chinchilla'"),
        ({"laws": [chinchilla]}, r"Study.laws must hold laws.*; got <function chinchilla"),
        ({"measure": Measure}, "Study.measure must be a Measure; got <class"),
        ({"placement": {"data": 2}}, "Study.placement must be a Placement; got {'data': 2}"),
        ({"bootstrap": -1}, "Study.bootstrap must be a whole number of at least 0; got -1"),
        ({"bootstrap": True}, "Study.bootstrap must be a whole number .*; got True"),
        ({"analysis": "conclude"}, "Study.analysis must be a function .*; got 'conclude'"),
        ({"name": 3}, "Study.name must be text; got 3"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused_before_anything_is_trained(tiny_run, fields, message):
    arguments: dict[str, Any] = {"name": "s@1", "runs": [tiny_run], **fields}
    with pytest.raises(ValueError, match=message):
        Study(**arguments)


def test_a_single_run_is_refused_in_a_short_message(tiny_run):
    one_run: Any = tiny_run
    with pytest.raises(ValueError, match=r"runs=\(Run\(...\),\); got Run\(...\)$"):
        Study("s@1", one_run)


def test_runs_of_a_generator_are_kept(tiny_run):
    """It would be empty when it is read again: a study of no runs."""
    runs: Any = (tiny_run.replace(seed=seed) for seed in range(2))
    assert [run.seed for run in Study("s@1", runs).runs] == [0, 1]


def test_two_laws_of_one_name_are_refused(tiny_run):
    """The second fit would replace the first."""
    with pytest.raises(ValueError, match="has 2 laws named chinchilla"):
        Study("s@1", [tiny_run], laws=[chinchilla(), chinchilla().hold(alpha=0.3)])
