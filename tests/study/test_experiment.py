"""Experiment files: run once, and only if they are experiments.

Mirrors scalejax/study/experiment.py.
"""

import sys

import pytest

from scalejax.study.experiment import load_study

GOOD = '''"""A question?"""
from configs import sizes
from scalejax import Data, Optimizer, Run, Study, cosine

run = Run(
    model=sizes.SMALL,
    data=Data(source="synthetic:32", tokenizer="own", sequence_length=16),
    optimizer=Optimizer(learning_rate=0.01),
    schedule=cosine(warmup=0),
    tokens=640,
    batch_tokens=64,
)
study = Study("good@1", [run])
smoke = Study("good-smoke@1", [run])
'''


SIZES = """from scalejax import Model

SMALL = Model.sized(width=16, depth=1, head_size=8, vocabulary=32)
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "sizes.py").write_text(SIZES)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "good.py").write_text(GOOD)
    return tmp_path / "experiments"


def test_a_file_gives_its_study_by_name_and_its_question(project):
    study, question = load_study(str(project / "good.py"))
    assert (study.name, question) == ("good@1", "A question?")
    assert load_study(f"{project / 'good.py'}:smoke")[0].name == "good-smoke@1"


def test_each_project_has_its_own_configs(project, tmp_path):
    other = tmp_path / "other"
    (other / "configs").mkdir(parents=True)
    (other / "configs" / "sizes.py").write_text(SIZES.replace("width=16", "width=32"))
    (other / "good.py").write_text(GOOD)
    widths = [
        load_study(str(folder / "good.py"))[0].runs[0].model.width
        for folder in (project, other, project)
    ]
    assert widths == [16, 32, 16]


HELPED = """from __future__ import annotations
from dataclasses import dataclass
from neighbour import RATES
from good import run
from scalejax import Study, grid

@dataclass(frozen=True)
class Arm:
    rate: float

def conclude(folder):
    import late_neighbour
    return late_neighbour.NAME

study = Study("helped@1", grid(run, learning_rate=[Arm(x).rate for x in RATES]), analysis=conclude)
"""


def test_a_file_may_have_helpers_beside_it_and_dataclasses(project, monkeypatch):
    """As a Python script may; an analysis imports them when all runs are trained."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = project / "mit Leerzeichen é"
    folder.mkdir()
    (folder / "good.py").write_text(GOOD)
    (folder / "helped.py").write_text(HELPED)
    (folder / "neighbour.py").write_text("RATES = [0.01, 0.02]\n")
    (folder / "late_neighbour.py").write_text("NAME = 'late'\n")
    study, _ = load_study(str(folder / "helped.py"))
    assert [run.optimizer.learning_rate for run in study.runs] == [0.01, 0.02]
    assert study.analysis is not None and study.analysis(folder) == "late"


def test_a_script_that_is_not_an_experiment_is_refused_without_running_it(project):
    script = project / "script.py"
    script.write_text("raise SystemExit('this must not run')\n")
    with pytest.raises(ValueError, match="does not assign `study`"):
        load_study(str(script))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study = 3\n", "must be a Study; it is of the type int"),
        ("study = (\n", "not valid Python"),
        ("import nothing_of_that_name\nstudy = 1\n", r"ModuleNotFoundError.*line 1"),
        ("sizes = {}\nstudy = sizes['small']\n", r"KeyError: 'small' \(line 2\)"),
        ("study = 1 / 0\n", r"bad.py cannot be run: ZeroDivisionError.*line 1"),
        ("\nopen('nope.csv')\nstudy = 1\n", r"bad.py .*FileNotFoundError.*nope.csv.*line 2"),
        ("import sys\nsys.exit('no')\nstudy = 1\n", r"SystemExit: no \(line 2\)"),
        (
            "from scalejax import Optimizer\nx = Optimizer(learning_rate=-1)\nstudy = x\n",
            r"learning_rate.*line 2",
        ),
        (
            "from scalejax import Optimizer\nx = Optimizer(learning_rat=1)\nstudy = x\n",
            r"learning_rat.*line 2",
        ),
    ],
)
def test_a_message_about_a_bad_file_gives_the_error_and_its_line(project, text, message):
    (project / "bad.py").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_study(str(project / "bad.py"))


def test_a_missing_file_is_refused_and_so_is_a_name_that_is_not_assigned(project):
    with pytest.raises(FileNotFoundError, match="no experiment file"):
        load_study(str(project / "none.py"))
    with pytest.raises(ValueError, match=r"does not assign `paper`.*it assigns smoke, study"):
        load_study(f"{project / 'good.py'}:paper")


def test_what_a_file_prints_goes_to_standard_error(project, capsys):
    """With --json a command prints one JSON object on standard output."""
    file = project / "good.py"
    file.write_text(GOOD + 'print("3 sizes")\n')
    load_study(str(file))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "3 sizes\n")
