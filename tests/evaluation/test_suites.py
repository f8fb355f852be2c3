"""Suites: what is in them, where the files are, what is refused (mirrors scalejax/evaluation/suites.py and foundry.py)."""

import json
from pathlib import Path

import pandas as pd
import pytest

from scalejax.evaluation.gadre_tasks import TASKS
from scalejax.evaluation.suites import suite
from tests.published import reference

COPA = {"query": "q", "choices": ["a", "b"], "gold": 0}


def checkout(folder: Path, tasks) -> Path:
    """A checkout of llm-foundry with a file of one item for each task."""
    for name in tasks:
        path = folder / "scripts/eval/local_data" / TASKS[name].file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(COPA) + "\n")
    return folder


def test_there_are_46_tasks_and_17_of_them():
    assert len(TASKS) == 46 and sum(task.in_17 for task in TASKS.values()) == 17
    assert 1 - sum(task.chance for task in TASKS.values()) / 46 == pytest.approx(0.75)
    assert 1 - sum(task.chance for task in TASKS.values() if task.in_17) / 17 == pytest.approx(
        0.8088, abs=5e-5
    )


@pytest.mark.replication
def test_the_tasks_are_those_of_the_paper():
    table = pd.read_csv(reference("gadre2024") / "tasks.csv").set_index("task")
    assert set(table.index) == set(TASKS)
    for name, task in TASKS.items():
        row = table.loc[name]
        assert (task.shots, task.chance, task.in_17) == (
            row["shots"],
            row["random_acc"],
            bool(row["in_17"]),
        )
        assert task.category == row["category"].replace(" ", "_")
        assert task.items == row["n"] or name == "arc_challenge"
    accuracies = pd.read_csv(reference("gadre2024") / "downstream_acc.csv").set_index("name")
    models = pd.read_csv(reference("gadre2024") / "models.csv").set_index("name")
    for column, names in (
        ("err_avg46", list(TASKS)),
        ("err_avg17", [name for name in TASKS if TASKS[name].in_17]),
    ):
        assert (1 - accuracies[names].mean(axis=1)).to_numpy() == pytest.approx(
            models.loc[accuracies.index, column], abs=1e-7
        )
    for (
        name,
        task,
    ) in TASKS.items():  # accuracies are whole numbers of items, which tells the size of a file
        counts = accuracies[name] * task.items
        assert task.by_category or (counts - counts.round()).abs().max() < 0.02


def test_a_checkout_has_the_tasks_in_the_papers_order(tmp_path):
    found = suite(f"foundry-17:{checkout(tmp_path, [n for n in TASKS if TASKS[n].in_17])}")
    assert [task.name for task in found.tasks] == [name for name in TASKS if TASKS[name].in_17]
    winograd = next(task for task in found.tasks if task.name == "winograd")
    assert (
        winograd.path.name == "winograd_wsc.jsonl"
        and winograd.shots == 0
        and found.folder == "foundry"
    )


def test_a_missing_task_is_named_and_the_rest_is_asked_for_by_name(tmp_path):
    checkout(tmp_path, [name for name in TASKS if name not in ("boolq", "squad")])
    with pytest.raises(
        ValueError,
        match=r"lacks 2 of the 17 tasks of foundry-17: boolq, squad; .* foundry-17-available",
    ):
        suite(f"foundry-17:{tmp_path}")
    found = suite(f"foundry-46-available:{tmp_path}")
    assert (
        len(found.tasks) == 44
        and found.missing == ("boolq", "squad")
        and found.name == "foundry-46-available"
    )


def test_a_part_of_a_published_file_is_refused(tmp_path):
    (task, *_) = suite(f"foundry-17:{checkout(tmp_path, TASKS)}").tasks
    with pytest.raises(ValueError, match=r"holds 1 of the 2376 items of arc_easy: .* local:"):
        task.read()


@pytest.mark.replication
def test_the_reference_files_are_whole(monkeypatch):
    monkeypatch.setenv("SCALEJAX_REFERENCE", str(reference("eval_tasks").parent))
    found = suite("foundry-46-available")
    assert len(found.tasks) == 21 and len(found.missing) == 25
    duplicates = {
        task.name: sum(item.has_duplicates for item in task.read()) for task in found.tasks
    }
    assert {name: count for name, count in duplicates.items() if count} == {
        "arc_easy": 7,
        "arc_challenge": 4,
    }


def test_without_a_folder_the_message_says_what_to_give(monkeypatch, tmp_path):
    monkeypatch.delenv("SCALEJAX_REFERENCE", raising=False)
    with pytest.raises(ValueError, match=r"foundry-17:FOLDER.*SCALEJAX_REFERENCE"):
        suite("foundry-17")
    with pytest.raises(ValueError, match="is no folder"):
        suite(f"foundry-17:{tmp_path / 'nowhere'}")
    with pytest.raises(ValueError, match="there is no suite 'foundry'"):
        suite("foundry")


def test_files_of_ones_own_are_asked_as_their_manifest_says(tmp_path):
    for name in ("mine", "yours"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(COPA) + "\n")
    manifest = [
        {
            "file": "mine.jsonl",
            "name": "quiz",
            "num_fewshot": 3,
            "continuation_delimiter": "\nA: ",
            "chance": 0.25,
        }
    ]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    quiz, yours = suite(f"local:{tmp_path}").tasks
    assert (quiz.name, quiz.shots, quiz.delimiter, quiz.chance, quiz.vouched) == (
        "quiz",
        3,
        "\nA: ",
        0.25,
        True,
    )
    assert (yours.name, yours.shots, yours.delimiter, yours.chance, yours.vouched) == (
        "yours",
        0,
        " ",
        None,
        False,
    )
    assert suite(f"local:{tmp_path / 'mine.jsonl'}").tasks == (quiz,)


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ("{}x", "not a list of records"),
        ('[{"name": "x"}]', "not a list of records"),
        ('[{"file": "a.jsonl", "num_fewshot": "3"}]', "wrong type"),
        ('[{"file": "a.jsonl", "num_fewshot": -1}]', "num_fewshot of a.jsonl is -1; .* 0 or more"),
        ('[{"file": "a.jsonl", "chance": 1.0}]', "chance of a.jsonl is 1.0; .* below 1"),
        (
            '[{"file": "a.jsonl", "name": "../../a"}]',
            "name of a.jsonl is '../../a'; a name is of letters",
        ),
        ('[{"file": "a.jsonl", "name": ""}]', "name of a.jsonl is ''; a name is"),
        (
            '[{"file": "a.jsonl"}, {"file": "b.jsonl"}]',
            "lists b.jsonl, not in .*: an average over the rest is another one",
        ),
    ],
)
def test_a_malformed_manifest_is_refused(tmp_path, manifest, said):
    (tmp_path / "a.jsonl").write_text(json.dumps(COPA) + "\n")
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(ValueError, match=f"manifest.json.*{said}"):
        suite(f"local:{tmp_path}")


def test_a_local_suite_without_files_is_refused(tmp_path):
    for name in ("local", "local:", f"local:{tmp_path}", f"local:{tmp_path / 'no.jsonl'}"):
        with pytest.raises(ValueError, match="names no task file"):
            suite(name)
