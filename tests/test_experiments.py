"""Every experiment can be planned at all of its scales (mirrors experiments/)."""

from pathlib import Path

import pytest

from scalejax.model.transformer import counts
from scalejax.study.experiment import load_study
from scalejax.study.plan import plan

FOLDER = Path(__file__).parent.parent / "experiments"


@pytest.mark.parametrize("scale", ["smoke", "mini", "paper"])
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_an_experiment_asks_a_question_and_can_be_planned(path, scale):
    study, question = load_study(f"{path}:{scale}")
    assert "?" in question
    assert plan(study).flops > 0


def test_the_quickstart_measures_its_noise_and_forecasts_half_as_large_again():
    study, _ = load_study(str(FOLDER / "quickstart.py"))
    assert len(study.runs) == 32 and len(study.forecast) == 2
    seeds = {width: set() for width in (16, 32, 48, 64)}
    for run in study.runs:
        seeds[run.model.width].add(run.seed)
    assert [len(of_size) for of_size in seeds.values()] == [3, 3, 1, 1]
    smallest = counts(study.runs[0].model).params_with_head
    largest = counts(study.runs[-1].model).params_with_head
    forecast = counts(study.forecast[0].model).params_with_head
    assert largest >= 8 * smallest
    assert 1.4 <= forecast / largest <= 1.6


def test_the_runs_of_the_quickstart_share_their_trunks():
    study, _ = load_study(str(FOLDER / "quickstart.py"))
    assert 0 < plan(study).saved_fraction < 1


def test_the_mup_study_is_one_grid_under_both_parametrizations():
    study, _ = load_study(str(FOLDER / "mup.py"))
    grids = {}
    for name in ("mup", "standard"):
        runs = [run for run in study.runs if run.parametrization.name == name]
        grids[name] = {(run.model.width, run.optimizer.learning_rate, run.seed) for run in runs}
        assert len(grids[name]) == len(runs), "a point of the grid is repeated"
    assert grids["mup"] == grids["standard"]
    widths, rates, seeds = (sorted(set(values)) for values in zip(*grids["mup"], strict=True))
    assert widths == [32, 64, 128, 256]
    assert len(rates) >= 7
    assert len(seeds) == 2
