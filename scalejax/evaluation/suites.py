"""Suites of downstream tasks: those of Gadre et al. 2024, or your own files."""

import json
import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from scalejax.evaluation.gadre_tasks import TASKS
from scalejax.evaluation.task_files import Item, read_items

# The suite that needs no files: its one task is made from held-out text.
CONTINUATION = "continuation"

# Suffix of a suite's name that asks for the tasks whose files exist, and for their
# average.
AVAILABLE_SUFFIX = "-available"

# Folders that hold the task files, below a checkout of llm-foundry, below its
# scripts/eval, and in local_data itself.
LOCAL_DATA_FOLDERS = ("scripts/eval/local_data", "local_data", "")

# Types of the optional fields of a manifest record.
MANIFEST_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "num_fewshot": (int,),
    "continuation_delimiter": (str,),
    "chance": (int, float),
    "category": (str,),
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task file, and how prompts are made from it."""

    name: str
    """Name of the task; its error is the column `error_<name>`."""
    path: Path
    """The task's .jsonl file."""
    shots: int = 0
    """Number of few-shot examples, drawn from the same file."""
    delimiter: str = " "
    """Text between context and answer."""
    chance_accuracy: float | None = None
    """Published accuracy of guessing; None for one over the number of choices."""
    category: str = ""
    """Group of the task in averages over categories."""
    by_category: bool = False
    """Whether items have a `category`.

    Few-shot examples then come from the item's own category, and the task's accuracy is
    the mean of its categories' accuracies.
    """
    item_count: int | None = None
    """Number of items in the published file; None where it is not known."""
    allow_duplicates: bool = False
    """Whether items may have equal choices, which are then counted.

    True for published files and for files listed in a manifest.
    """

    def read(self) -> list[Item]:
        """Read the items. Raises ValueError for a malformed or incomplete file."""
        items = read_items(
            self.path, allow_duplicates=self.allow_duplicates, with_categories=self.by_category
        )
        if self.item_count is not None and len(items) != self.item_count:
            raise ValueError(
                f"{self.path} has {len(items)} of the {self.item_count} items of {self.name}, "
                "and published averages are over all of them. Get the whole file, or score "
                f"this one as local:{self.path}"
            )
        return items


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tasks whose errors are averaged."""

    name: str
    """Name of the suite, without the folder of its files."""
    tasks: tuple[Task, ...]
    """Tasks in the order of the publication, or of the file names."""
    missing: tuple[str, ...] = ()
    """Published tasks without a file, for suites whose name ends in `-available`."""

    @property
    def folder(self) -> str:
        """Name of the folder of stored scores. The published suites share one."""
        return "foundry" if self.name.startswith("foundry") else self.name

    @property
    def file_versions(self) -> tuple[tuple[Path, int, int], ...]:
        """(path, bytes, modification time in ns) of every task file."""
        stats = [(task.path, task.path.stat()) for task in self.tasks]
        return tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)


def find_suite(name: str) -> Suite:
    """Find the tasks of a suite and their files.

    Args:
        name: `continuation`; or `foundry-46`, `foundry-17` or `local`, followed by
            `:FOLDER` with the task files (`local:FILE` works too). Without a folder,
            the published suites use $SCALEJAX_REFERENCE/eval_tasks.
            `foundry-17-available` is the part of the 17 that has files.

    Raises:
        ValueError: if the name is unknown, or if files are missing; all missing tasks
            are named.
    """
    kind, _, location = name.partition(":")
    if name == CONTINUATION:
        return Suite(name=name, tasks=())
    if kind == "local":
        return _local_suite(Path(location).expanduser(), name)
    if kind.removesuffix(AVAILABLE_SUFFIX) not in ("foundry-46", "foundry-17"):
        raise ValueError(
            f"there is no suite {name!r}; the suites are continuation, foundry-46, foundry-17 "
            "and local:PATH"
        )
    return _published_suite(kind, _published_folder(location, name))


def _published_suite(name: str, folder: Path) -> Suite:
    full_name = name.removesuffix(AVAILABLE_SUFFIX)
    published = [task for task in TASKS.values() if full_name == "foundry-46" or task.in_17]
    paths = {task.name: _published_file(folder, task.name) for task in published}
    missing = tuple(task for task, path in paths.items() if path is None)
    may_be_partial = name != full_name
    if (missing and not may_be_partial) or len(missing) == len(published):
        raise ValueError(
            f"{folder} lacks {len(missing)} of the {len(published)} tasks of {full_name}: "
            f"{', '.join(missing)}. An average over the other tasks is not {full_name}: give "
            f"a checkout of llm-foundry ({name}:FOLDER), or ask for {full_name}{AVAILABLE_SUFFIX}"
        )
    tasks = tuple(_published_task(task, path) for task, path in paths.items() if path is not None)
    return Suite(name=name, tasks=tasks, missing=missing)


def _published_task(name: str, path: Path) -> Task:
    published = TASKS[name]
    return Task(
        name=name,
        path=path,
        shots=published.shots,
        delimiter=published.delimiter,
        chance_accuracy=published.chance_accuracy,
        category=published.category,
        by_category=published.by_category,
        item_count=published.item_count,
        allow_duplicates=True,
    )


def _published_folder(location: str, name: str) -> Path:
    reference = os.environ.get("SCALEJAX_REFERENCE")
    if location:
        folder = Path(location).expanduser()
    elif reference:
        folder = Path(reference, "eval_tasks")
    else:
        raise ValueError(
            f"the task files of {name} are not part of scalejax: give a checkout of "
            f"llm-foundry ({name}:FOLDER), or set SCALEJAX_REFERENCE to a folder that "
            "contains eval_tasks/"
        )
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is not a folder; give a checkout of llm-foundry, or a folder of its "
            "task files"
        )
    return folder


def _published_file(folder: Path, task: str) -> Path | None:
    """The file of a task in a checkout of llm-foundry or in a flat folder, or None."""
    file = TASKS[task].file
    candidates = [folder / below / file for below in LOCAL_DATA_FOLDERS]
    candidates += [folder / Path(file).name, folder / f"{task}.jsonl"]
    return next((path for path in candidates if path.is_file()), None)


def _local_suite(path: Path, name: str) -> Suite:
    folder, files = (path, sorted(path.glob("*.jsonl"))) if path.is_dir() else (path.parent, [path])
    if path.is_dir() and (unread := sorted([*path.glob("*.jsonl.gz"), *path.glob("*.jsonl.zst")])):
        raise ValueError(
            f"{unread[0]} is not read as a task of {name!r}, so that the average would be over the "
            "others; decompress it, or move it away"
        )
    if path.is_dir() and files and (below := sorted(path.glob("[!.]*/**/*.jsonl"))):
        raise ValueError(
            f"{below[0]} is not read as a task of {name!r}, because it lies in another folder; "
            f"move it to {path}, or away"
        )
    if not name.partition(":")[2] or not files or not files[0].is_file():
        raise ValueError(
            f"{name!r} names no task file; expected local:PATH with a .jsonl file, or a folder "
            "of them"
        )
    manifest = folder / "manifest.json"
    records = _read_manifest(manifest)
    missing = [file for file in records if not (folder / file).is_file()]
    if missing and path.is_dir():
        raise ValueError(
            f"{manifest} lists {', '.join(missing)}, not found in {folder}. An average over "
            "the other tasks is not the average of the suite: get the missing files, or remove "
            "their records"
        )
    tasks = tuple(_local_task(file, records.get(file.name)) for file in files)
    if len({task.name for task in tasks}) < len(tasks):
        raise ValueError(f"{manifest} gives two tasks the same name; rename one of them")
    return Suite(name=f"local-{path.stem}", tasks=tasks)


def _read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """Records of a manifest by file name; empty when there is no manifest."""
    if not path.is_file():
        return {}
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        by_file = {str(record["file"]): record for record in records}
    except (ValueError, TypeError, KeyError) as error:
        example = '{"file": "copa.jsonl", "num_fewshot": 0}'
        raise ValueError(f"{path} is not a list of records like {example}: {error}") from error
    if len(by_file) < len(records):
        raise ValueError(
            f"{path} lists a file twice, but a file is one task; copy the file to another name"
        )
    return by_file


def _local_task(file: Path, record: dict[str, Any] | None) -> Task:
    """The task of your own file; without examples unless its manifest says so."""
    if record is None:
        return Task(name=file.stem, path=file)
    _check_record(file, record)
    return Task(
        name=record.get("name", file.stem),
        path=file,
        shots=record.get("num_fewshot", 0),
        delimiter=record.get("continuation_delimiter", " "),
        chance_accuracy=record.get("chance"),
        category=record.get("category", ""),
        allow_duplicates=True,
    )


def _check_record(file: Path, record: dict[str, Any]) -> None:
    """Raise ValueError for a manifest record with a wrong type or value."""
    manifest = file.parent / "manifest.json"
    # Other fields are ignored, but a misspelt one would leave a prompt as it is.
    for key in record.keys() - MANIFEST_TYPES:
        if close := get_close_matches(key, MANIFEST_TYPES, 1, cutoff=0.7):
            raise ValueError(
                f"{manifest}: there is no field {key!r} of {file.name}; did you mean {close[0]!r}?"
            )
    for key, types in MANIFEST_TYPES.items():
        if key not in record:
            continue
        # bool is a subclass of int, and no field is a boolean.
        if not isinstance(record[key], types) or isinstance(record[key], bool):
            expected = " or ".join(kind.__name__ for kind in types)
            raise ValueError(
                f"{manifest}: {key} of {file.name} is {record[key]!r}, which has the wrong "
                f"type; expected {expected}"
            )
    expected_values = {}
    name, chance = record.get("name", file.stem), record.get("chance")
    if name != file.stem and not re.fullmatch(r"\w[\w.-]*", name):
        # The name becomes part of a file name and of a column name.
        expected_values["name"] = "letters, digits and _ . -, and a letter, digit or _ first"
    if record.get("num_fewshot", 0) < 0:
        expected_values["num_fewshot"] = "0 or more"
    if chance is not None and not 0 <= chance < 1:
        expected_values["chance"] = "an accuracy, at least 0 and below 1"
    for key, expected in expected_values.items():
        raise ValueError(
            f"{manifest}: {key} of {file.name} is {record[key]!r}; expected {expected}"
        )
