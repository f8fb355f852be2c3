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


def test_the_quickstart_has_twenty_runs_and_forecasts_about_twice_the_size():
    study, _ = load_study(str(FOLDER / "quickstart.py"))
    assert len(study.runs) == 20
    assert len({run.model.width for run in study.runs}) >= 4
    assert len({run.tokens for run in study.runs}) == 5
    smallest = counts(study.runs[0].model).params_non_embedding
    largest = counts(study.runs[-1].model).params_non_embedding
    forecast = counts(study.forecast[0].model).params_non_embedding
    assert largest >= 6 * smallest
    assert 1.8 <= forecast / largest <= 2.2


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
