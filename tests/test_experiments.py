"""Every experiment plans at all of its scales, and asks a question."""

from pathlib import Path

import pytest

from scalejax.study.experiment import load_study
from scalejax.study.plan import plan

FILES = sorted((Path(__file__).parent.parent / "experiments").glob("*.py"))


@pytest.mark.parametrize("scale", ["smoke", "mini", "paper"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_plans_and_asks_a_question(path, scale):
    study, question = load_study(f"{path}:{scale}")
    assert "?" in question and plan(study).flops > 0


def test_the_quickstart_is_what_the_readme_says():
    study, _ = load_study(str(FILES[0].parent / "quickstart.py"))
    sizes = sorted({run.model.width for run in study.runs})
    assert (
        len(sizes) >= 4 and len(study.runs) == 20 and len({run.tokens for run in study.runs}) == 5
    )
    from scalejax.model.transformer import counts

    smallest, largest, ahead = (
        counts(run.model).params_non_embedding
        for run in (study.runs[0], study.runs[-1], study.forecast[0])
    )
    assert 0 < plan(study).saved < 1, "no prefix is shared"
    assert largest >= 6 * smallest and 1.8 <= ahead / largest <= 2.2


def test_the_mup_study_is_one_grid_under_both_parametrizations():
    study, _ = load_study(str(FILES[0].parent / "mup.py"))
    by_name = {
        name: [run for run in study.runs if run.parametrization.name == name]
        for name in ("mup", "standard")
    }
    grids = [
        {(run.model.width, run.optimizer.learning_rate, run.seed) for run in runs}
        for runs in by_name.values()
    ]
    assert grids[0] == grids[1] and len(grids[0]) == len(by_name["mup"])
    widths, rates, seeds = (sorted(set(values)) for values in zip(*grids[0], strict=True))
    assert widths == [32, 64, 128, 256] and len(rates) >= 7 and len(seeds) == 2
