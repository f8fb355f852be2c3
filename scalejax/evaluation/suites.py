"""Suites of tasks by name: the published 46 and 17 from their files, or any files of one's own."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalejax.evaluation.gadre_tasks import TASKS, Published
from scalejax.evaluation.task_files import Item, read_items

CONTINUATION = "continuation"
"""The suite that needs no files: its one task is made of held-out text."""
AVAILABLE = "-available"
"""End of the name that asks for the tasks whose files are there, and for the average over them."""
LOCAL_DATA = ("scripts/eval/local_data", "local_data", "")
"""Where the task files lie below a checkout of llm-foundry, its scripts/eval, or local_data itself."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task file and how it is asked."""

    name: str
    """Of the task: a column `error_<name>`."""
    path: Path
    """Its .jsonl file."""
    shots: int = 0
    """Few-shot examples, drawn from the same file."""
    delimiter: str = " "
    """Between context and answer."""
    chance: float | None = None
    """Accuracy of guessing, as published; None: one over the number of choices."""
    category: str = ""
    """Group in averages over categories."""
    by_category: bool = False
    """Whether items have a `category`: examples come from it, and the task's accuracy is the mean over categories."""
    items: int | None = None
    """Of the whole published file; None where that is not known."""
    vouched: bool = False
    """Published or listed in a manifest: equal choices pass, and are counted."""

    def read(self) -> list[Item]:
        """The items. Raises ValueError for a file that is malformed, or not the whole published one."""
        items = read_items(self.path, duplicates=self.vouched, categories=self.by_category)
        if self.items is not None and len(items) != self.items:
            raise ValueError(
                f"{self.path} holds {len(items)} of the {self.items} items of {self.name}: no published average is over a part; "
                f"get the whole file, or score it as local:{self.path}"
            )
        return items


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tasks that are averaged."""

    name: str
    """As asked for."""
    tasks: tuple[Task, ...]
    """In the order of the publication, or of the files' names."""
    missing: tuple[str, ...] = ()
    """Tasks of the publication that have no file; never without `-available` in the name."""

    @property
    def folder(self) -> str:
        """Where scores are kept: suites of one publication share them."""
        return "foundry" if self.name.startswith("foundry") else self.name

    @property
    def files(self) -> tuple[tuple[Path, int, int], ...]:
        """(path, bytes, time of change in ns) of the tasks' files: others once a file has changed."""
        stats = [(task.path, task.path.stat()) for task in self.tasks]
        return tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)


def suite(name: str) -> Suite:
    """The suite `continuation`, or `foundry-46`, `foundry-17` or `local` with `:FOLDER` where its files are.

    `foundry-..` without a folder takes $SCALEJAX_REFERENCE/eval_tasks; `foundry-17-available` is what is there of the 17. Raises
    ValueError when files are missing (all are named), and for an unknown name.
    """
    kind, _, place = name.partition(":")
    if name == CONTINUATION:
        return Suite(name=name, tasks=())
    if kind == "local":
        return _local(Path(place).expanduser(), name)
    whole = kind.removesuffix(AVAILABLE)
    if whole not in ("foundry-46", "foundry-17"):
        raise ValueError(
            f"there is no suite {name!r}: name continuation, foundry-46, foundry-17 or local:PATH"
        )
    folder = _folder(place, name)
    wanted = {
        task: published
        for task, published in TASKS.items()
        if whole == "foundry-46" or published.in_17
    }
    paths = {task: _file(folder, task, published) for task, published in wanted.items()}
    missing = tuple(task for task, path in paths.items() if path is None)
    if (missing and whole == kind) or len(missing) == len(wanted):
        raise ValueError(
            f"{folder} lacks {len(missing)} of the {len(wanted)} tasks of {whole}: {', '.join(missing)}; an average over the "
            f"rest is not {whole}. Give a checkout of llm-foundry ({kind}:FOLDER), or ask for {whole}{AVAILABLE}"
        )
    tasks = tuple(_published(task, path) for task, path in paths.items() if path is not None)
    return Suite(name=kind, tasks=tasks, missing=missing)


def _published(name: str, path: Path) -> Task:
    found = TASKS[name]
    return Task(
        name=name,
        path=path,
        shots=found.shots,
        delimiter=found.delimiter,
        chance=found.chance,
        category=found.category,
        by_category=found.by_category,
        items=found.items,
        vouched=True,
    )


def _folder(place: str, name: str) -> Path:
    if not place and not os.environ.get("SCALEJAX_REFERENCE"):
        raise ValueError(
            f"the task files of {name} are not part of scalejax: give a checkout of llm-foundry ({name}:FOLDER), or set "
            "SCALEJAX_REFERENCE to a folder with eval_tasks/"
        )
    folder = (
        Path(place).expanduser() if place else Path(os.environ["SCALEJAX_REFERENCE"], "eval_tasks")
    )
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is no folder; give a checkout of llm-foundry, or a folder of its task files"
        )
    return folder


def _file(folder: Path, task: str, published: Published) -> Path | None:
    """The file of a task in a checkout of llm-foundry or in a flat folder."""
    candidates = [folder / below / published.file for below in LOCAL_DATA]
    candidates += [folder / Path(published.file).name, folder / f"{task}.jsonl"]
    return next((path for path in candidates if path.is_file()), None)


def _local(path: Path, name: str) -> Suite:
    folder, files = (path, sorted(path.glob("*.jsonl"))) if path.is_dir() else (path.parent, [path])
    if not name.partition(":")[2] or not files or not files[0].is_file():
        raise ValueError(
            f"{name!r} names no task file: give local:PATH, a .jsonl file or a folder of them"
        )
    listed = _manifest(folder / "manifest.json")
    lost = [name for name in listed if not (folder / name).is_file()]
    if lost and path.is_dir():
        raise ValueError(
            f"{folder / 'manifest.json'} lists {', '.join(lost)}, not in {folder}: an average over the rest is another one; "
            "get what is missing, or remove its records"
        )
    tasks = tuple(_listed(file, listed.get(file.name)) for file in files)
    if len({task.name for task in tasks}) < len(tasks):
        raise ValueError(f"{folder / 'manifest.json'} gives two tasks one name; rename one")
    return Suite(name=f"local-{path.stem}", tasks=tasks)


def _manifest(path: Path) -> dict[str, dict[str, Any]]:
    """file -> its record; {} without a manifest."""
    if not path.is_file():
        return {}
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return {str(record["file"]): record for record in records}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f'{path} is not a list of records like {{"file": "copa.jsonl", "num_fewshot": 0}}: {error}'
        ) from error


def _listed(file: Path, record: dict[str, Any] | None) -> Task:
    """A file of one's own: asked without examples, unless its manifest says otherwise."""
    if record is None:
        return Task(name=file.stem, path=file)
    kinds = {
        "name": str,
        "num_fewshot": int,
        "continuation_delimiter": str,
        "chance": (int, float),
        "category": str,
    }
    for key, kind in kinds.items():
        if key in record and (not isinstance(record[key], kind) or isinstance(record[key], bool)):
            raise ValueError(
                f"{file.parent / 'manifest.json'}: {key} of {file.name} is {record[key]!r}, of the wrong type"
            )
    name, shots, chance = (
        record.get("name", file.stem),
        record.get("num_fewshot", 0),
        record.get("chance"),
    )
    sound = {
        "name": name == file.stem or re.fullmatch(r"\w[\w.-]*", name),
        "num_fewshot": shots >= 0,
        "chance": chance is None or 0 <= chance < 1,
    }
    if wrong := [key for key, fine in sound.items() if not fine]:
        raise ValueError(
            f"{file.parent / 'manifest.json'}: {wrong[0]} of {file.name} is {record[wrong[0]]!r}; a name is of letters, digits "
            "and _ . -, for it names a file and a column; num_fewshot is 0 or more; chance is an accuracy, from 0 to below 1"
        )
    return Task(
        name=name,
        path=file,
        shots=shots,
        delimiter=record.get("continuation_delimiter", " "),
        chance=chance,
        category=record.get("category", ""),
        vouched=True,
    )
