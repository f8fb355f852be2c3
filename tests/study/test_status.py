"""How far a study is (mirrors scalejax/study/status.py)."""

from scalejax.files import append_lines, write_json, write_text
from scalejax.study.plan import plan
from scalejax.study.status import run_status, study_status
from scalejax.study.study import Study
from scalejax.training.loop import train


def test_a_folder_that_does_not_exist_is_a_run_that_waits(tmp_path):
    assert run_status(tmp_path / "none") == {"status": "waiting", "step": 0, "loss": None}


def test_a_run_that_was_stopped_has_its_last_step_and_training_loss(tmp_path):
    write_json(tmp_path / "status.json", {"status": "started"})
    rows = [{"step": 20, "train_loss": 4.0}, {"step": 40, "train_loss": 3.5}]
    append_lines(tmp_path / "metrics.jsonl", rows)
    assert run_status(tmp_path) == {"status": "started", "step": 40, "loss": 3.5}


def test_a_run_that_is_done_has_its_held_out_loss(tiny_run, tiny_measure, tmp_path):
    result = train(tiny_run, out=tmp_path / "run", measure=tiny_measure)
    status = run_status(tmp_path / "run")
    assert status == {"status": "done", "step": 60, "loss": result.loss}


def test_a_study_counts_the_runs_in_each_state(tiny_run, tmp_path):
    planned = plan(Study("s@1", [tiny_run, tiny_run.replace(seed=1)]))
    folder = tmp_path / planned.segments[0].folder
    folder.mkdir(parents=True)
    write_text(folder / "status.json", "{}")
    status = study_status(planned, tmp_path)
    assert status["totals"] == {"started": 1, "waiting": 1}
    assert (status["study"], status["folder"]) == ("s@1", str(tmp_path))
    assert list(status["runs"]) == [segment.id for segment in planned.segments]
