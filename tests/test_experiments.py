"""Every experiment plans at all of its scales, and asks a question."""

from pathlib import Path

import pytest

from scalejax.study.experiment import load_study
from scalejax.study.plan import plan

FILES = sorted((Path(__file__).parent.parent / "experiments").glob("*.py"))


@pytest.mark.parametrize("scale", ["smoke", "mini", "paper"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_plans_and_shares_prefixes(path, scale):
    study, question = load_study(f"{path}:{scale}")
    assert "?" in question and 0 < plan(study).saved < 1


def test_the_quickstart_is_what_the_readme_says():
    study, _ = load_study(str(FILES[0].parent / "quickstart.py"))
    sizes = sorted({run.model.width for run in study.runs})
    assert len(sizes) >= 4 and len(study.runs) == 20 and len({run.tokens for run in study.runs}) == 5
    from scalejax.model.transformer import counts

    smallest, largest, ahead = (
        counts(run.model).params_non_embedding for run in (study.runs[0], study.runs[-1], study.forecast[0])
    )
    assert largest >= 6 * smallest and 1.8 <= ahead / largest <= 2.2
