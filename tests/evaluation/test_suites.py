"""Suites: their tasks, where files are found, and what is refused.

Mirrors scalejax/evaluation/suites.py and gadre_tasks.py.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scalejax.evaluation.gadre_tasks import TASKS
from scalejax.evaluation.suites import find_suite
from tests.published import reference

ITEM = {"query": "q", "choices": ["a", "b"], "gold": 0}
NAMES_OF_17 = [name for name, task in TASKS.items() if task.in_17]


def checkout(folder: Path, names) -> Path:
    """A checkout of llm-foundry with a file of one item for each of these tasks."""
    for name in names:
        path = folder / "scripts/eval/local_data" / TASKS[name].file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(ITEM) + "\n")
    return folder


def test_there_are_46_tasks_and_17_of_them_are_the_subset():
    assert len(TASKS) == 46 and len(NAMES_OF_17) == 17
    # Errors of guessing, averaged over the tasks.
    chance_errors = {name: 1 - task.chance_accuracy for name, task in TASKS.items()}
    assert sum(chance_errors.values()) / 46 == pytest.approx(0.75)
    mean_of_17 = sum(chance_errors[name] for name in NAMES_OF_17) / 17
    assert mean_of_17 == pytest.approx(0.8088, abs=5e-5)


@pytest.mark.replication
def test_shots_chances_sizes_and_categories_are_those_of_the_paper():
    table = pd.read_csv(reference("gadre2024") / "tasks.csv").to_dict("records")
    assert {row["task"] for row in table} == set(TASKS)
    for row in table:
        task = TASKS[row["task"]]
        assert task.shots == row["shots"]
        assert task.chance_accuracy == row["random_acc"]
        assert task.in_17 == bool(row["in_17"])
        assert task.category == row["category"].replace(" ", "_")
        assert task.item_count == row["n"] or task.name == "arc_challenge"


@pytest.mark.replication
def test_the_averages_of_the_paper_are_plain_means_over_these_tasks():
    accuracies = pd.read_csv(reference("gadre2024") / "downstream_acc.csv").set_index("name")
    models = pd.read_csv(reference("gadre2024") / "models.csv").set_index("name")
    for column, names in (("err_avg46", list(TASKS)), ("err_avg17", NAMES_OF_17)):
        errors = (1 - accuracies[names].mean(axis=1)).to_numpy()
        assert errors == pytest.approx(models.loc[accuracies.index, column], abs=1e-7)
    for name, task in TASKS.items():
        # An accuracy is a whole number of items over the size of the file, so it
        # reveals the size.
        correct = np.asarray(accuracies[name], float) * task.item_count
        assert task.by_category or np.abs(correct - correct.round()).max() < 0.02


def test_a_checkout_gives_the_tasks_in_the_papers_order(tmp_path):
    suite = find_suite(f"foundry-17:{checkout(tmp_path, NAMES_OF_17)}")
    assert [task.name for task in suite.tasks] == NAMES_OF_17
    assert suite.folder == "foundry"
    winograd = next(task for task in suite.tasks if task.name == "winograd")
    assert winograd.path.name == "winograd_wsc.jsonl" and winograd.shots == 0


def test_missing_tasks_are_named_and_the_rest_is_available_by_name(tmp_path):
    checkout(tmp_path, [name for name in TASKS if name not in ("boolq", "squad")])
    message = r"lacks 2 of the 17 tasks of foundry-17: boolq, squad\. .* foundry-17-available"
    with pytest.raises(ValueError, match=message):
        find_suite(f"foundry-17:{tmp_path}")
    suite = find_suite(f"foundry-46-available:{tmp_path}")
    assert suite.name == "foundry-46-available"
    assert len(suite.tasks) == 44 and suite.missing == ("boolq", "squad")


def test_a_part_of_a_published_file_is_refused(tmp_path):
    (task, *_) = find_suite(f"foundry-17:{checkout(tmp_path, TASKS)}").tasks
    with pytest.raises(ValueError, match=r"has 1 of the 2376 items of arc_easy, .* local:"):
        task.read()


@pytest.mark.replication
def test_the_reference_files_are_complete(monkeypatch):
    monkeypatch.setenv("SCALEJAX_REFERENCE", str(reference("eval_tasks").parent))
    suite = find_suite("foundry-46-available")
    assert len(suite.tasks) == 21 and len(suite.missing) == 25
    duplicates = {
        task.name: sum(item.has_duplicates for item in task.read()) for task in suite.tasks
    }
    with_duplicates = {name: count for name, count in duplicates.items() if count}
    assert with_duplicates == {"arc_easy": 7, "arc_challenge": 4}


def test_without_a_folder_the_message_says_what_to_give(monkeypatch, tmp_path):
    monkeypatch.delenv("SCALEJAX_REFERENCE", raising=False)
    with pytest.raises(ValueError, match=r"foundry-17:FOLDER.*SCALEJAX_REFERENCE"):
        find_suite("foundry-17")
    with pytest.raises(ValueError, match="is not a folder"):
        find_suite(f"foundry-17:{tmp_path / 'nowhere'}")
    with pytest.raises(ValueError, match="there is no suite 'foundry'"):
        find_suite("foundry")


def test_your_own_files_are_prompted_as_their_manifest_says(tmp_path):
    for name in ("mine", "yours"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(ITEM) + "\n")
    record = {
        "file": "mine.jsonl",
        "name": "quiz",
        "num_fewshot": 3,
        "continuation_delimiter": "\nA: ",
        "chance": 0.25,
    }
    (tmp_path / "manifest.json").write_text(json.dumps([record]))
    quiz, yours = find_suite(f"local:{tmp_path}").tasks
    assert (quiz.name, quiz.shots, quiz.delimiter) == ("quiz", 3, "\nA: ")
    assert (quiz.chance_accuracy, quiz.allow_duplicates) == (0.25, True)
    assert (yours.name, yours.shots, yours.delimiter) == ("yours", 0, " ")
    assert (yours.chance_accuracy, yours.allow_duplicates) == (None, False)
    assert find_suite(f"local:{tmp_path / 'mine.jsonl'}").tasks == (quiz,)


# The content of manifest.json, and what the message says.
MALFORMED_MANIFESTS = [
    ("{}x", "not a list of records"),
    ('[{"name": "x"}]', "not a list of records"),
    (
        '[{"file": "a.jsonl", "num_fewshot": "3"}]',
        "num_fewshot of a.jsonl is '3', which has the wrong type; expected int",
    ),
    (
        '[{"file": "a.jsonl", "num_fewshots": 3, "licence": "MIT"}]',
        "there is no field 'num_fewshots' of a.jsonl; did you mean 'num_fewshot'",
    ),
    ('[{"file": "a.jsonl"}, {"file": "a.jsonl", "num_fewshot": 1}]', "lists a file twice"),
    ('[{"file": "a.jsonl", "num_fewshot": -1}]', "num_fewshot of a.jsonl is -1; .* 0 or more"),
    ('[{"file": "a.jsonl", "chance": 1.0}]', "chance of a.jsonl is 1.0; .* below 1"),
    ('[{"file": "a.jsonl", "name": "../../a"}]', r"name of a.jsonl is '../../a'; expected letters"),
    ('[{"file": "a.jsonl", "name": ""}]', "name of a.jsonl is ''; expected letters"),
    (
        '[{"file": "a.jsonl"}, {"file": "b.jsonl"}]',
        "lists b.jsonl, not found in .*An average over the other tasks is not the average",
    ),
]


@pytest.mark.parametrize(("manifest", "message"), MALFORMED_MANIFESTS)
def test_a_malformed_manifest_is_refused(tmp_path, manifest, message):
    (tmp_path / "a.jsonl").write_text(json.dumps(ITEM) + "\n")
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(ValueError, match=f"manifest.json.*{message}"):
        find_suite(f"local:{tmp_path}")


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_compressed_task_is_not_left_out_of_an_average_silently(tmp_path, suffix):
    (tmp_path / "a.jsonl").write_text(json.dumps(ITEM) + "\n")
    (tmp_path / f"b.jsonl.{suffix}").touch()
    with pytest.raises(ValueError, match=rf"b\.jsonl\.{suffix} is not read .* decompress it"):
        find_suite(f"local:{tmp_path}")


def test_a_task_in_a_folder_below_is_not_left_out_of_an_average_silently(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(ITEM) + "\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.jsonl").touch()
    with pytest.raises(ValueError, match=r"more/b\.jsonl is not read .* move it to"):
        find_suite(f"local:{tmp_path}")


def test_a_local_suite_without_files_is_refused(tmp_path):
    for name in ("local", "local:", f"local:{tmp_path}", f"local:{tmp_path / 'no.jsonl'}"):
        with pytest.raises(ValueError, match="names no task file"):
            find_suite(name)
