"""Experiment files: imported once, and only when they are experiments."""

import pytest

from scalejax.study.experiment import load_study

GOOD = '''"""A question?"""
from configs import sizes
from scalejax import Data, Optimizer, Run, Study, cosine

run = Run(model=sizes.SMALL, data=Data(source="synthetic:32", tokenizer="own", sequence_length=16),
          optimizer=Optimizer(learning_rate=0.01), schedule=cosine(warmup=0), tokens=640, batch_tokens=64)
study = Study("good@1", [run])
smoke = Study("good-smoke@1", [run])
'''


@pytest.fixture
def project(tmp_path):
    (tmp_path / "configs").mkdir()
    sizes = "from scalejax import Model\nSMALL = Model.sized(width=16, depth=1, head_size=8, vocabulary=32)\n"
    (tmp_path / "configs" / "sizes.py").write_text(sizes)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "good.py").write_text(GOOD)
    return tmp_path / "experiments"


def test_a_study_and_its_question_are_found_by_name(project):
    study, question = load_study(str(project / "good.py"))
    assert (study.name, question) == ("good@1", "A question?")
    assert load_study(f"{project / 'good.py'}:smoke")[0].name == "good-smoke@1"


def test_each_project_has_its_own_configs(project, tmp_path):
    other = tmp_path / "other"
    (other / "configs").mkdir(parents=True)
    (other / "configs" / "sizes.py").write_text(
        "from scalejax import Model\nSMALL = Model.sized(width=32, depth=1, head_size=8, vocabulary=32)\n"
    )
    (other / "good.py").write_text(GOOD)
    widths = [
        load_study(str(folder / "good.py"))[0].runs[0].model.width
        for folder in (project, other, project)
    ]
    assert widths == [16, 32, 16]


def test_a_script_that_is_no_experiment_is_refused_unread(project):
    script = project / "script.py"
    script.write_text("raise SystemExit('this must not run')\n")
    with pytest.raises(ValueError, match="assigns no `study`"):
        load_study(str(script))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("study = 3\n", "is a int, not a Study"),
        ("study = (\n", "not Python"),
        ("import nothing_of_that_name\nstudy = 1\n", r"ModuleNotFoundError.*line 1"),
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
def test_what_is_wrong_in_the_file_is_said_with_its_line(project, text, said):
    (project / "bad.py").write_text(text)
    with pytest.raises(ValueError, match=said):
        load_study(str(project / "bad.py"))


def test_a_missing_file_or_name_is_said(project):
    with pytest.raises(FileNotFoundError, match="no experiment file"):
        load_study(str(project / "none.py"))
    with pytest.raises(ValueError, match=r"assigns no `paper`.*it has smoke, study"):
        load_study(f"{project / 'good.py'}:paper")
