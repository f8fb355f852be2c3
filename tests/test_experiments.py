"""Every experiment can be planned at all of its scales (mirrors experiments/)."""

import functools
import re
from pathlib import Path

import pytest

from scalejax.model.transformer import counts
from scalejax.study.experiment import load_study
from scalejax.study.plan import Plan, plan
from scalejax.study.resources import resources
from scalejax.study.topology.chips import parse_topology

FOLDER = Path(__file__).parent.parent / "experiments"


@functools.cache
def plan_of(path: Path, scale: str) -> tuple[Plan, str]:
    """The plan of a study, and its question."""
    study, question = load_study(f"{path}:{scale}")
    return plan(study), question


@pytest.mark.parametrize("scale", ["smoke", "mini", "paper"])
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_an_experiment_asks_a_question_and_can_be_planned(path, scale):
    planned, question = plan_of(path, scale)
    assert "?" in question
    assert planned.flops > 0


PRICES = {"v5e:4x4": 1.2, "h100:8": 3.0}


def test_the_table_of_what_the_papers_cost_is_what_their_plans_say(tmp_path):
    text = (FOLDER.parent / "docs" / "papers" / "index.md").read_text(encoding="utf-8")
    section = text.partition("## What the papers' own scale costs")[2].partition("## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE)
    assert len(rows) == 7
    for name, cells in rows:
        planned, _ = plan_of(FOLDER / f"{name}.py", "paper")
        expected = [f"{planned.flops:.3g}"]
        for topology, price in PRICES.items():
            kind = parse_topology(topology).chip.device_kind
            needs = resources(planned, tmp_path, device_kind=kind, price=price)
            expected += [f"{needs['device_hours']:,.0f}", f"{needs['dollars']:,.0f}"]
        assert cells.split(" | ") == expected, name


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
