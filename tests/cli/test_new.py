"""`scalejax new` (mirrors scalejax/cli/new.py)."""

import json


def test_a_new_project_can_be_planned_as_it_is(call, tmp_path):
    code, out, _ = call("new", tmp_path / "mine")
    assert code == 0 and "experiments/first.py" in out
    code, out, _ = call("plan", tmp_path / "mine" / "experiments" / "first.py", "--json")
    assert code == 0 and json.loads(out)["runs"] == 9


def test_a_folder_with_files_is_refused(call, tmp_path):
    (tmp_path / "notes.txt").write_text("keep me")
    code, _, err = call("new", tmp_path)
    assert code == 2 and "not empty" in err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
