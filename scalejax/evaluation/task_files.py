"""Task files: one item a line, in the three formats of LLM-foundry, checked before anything is scored."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from scalejax.data.sources.records import json_lines

FORMATS = {
    "multiple_choice": ("query", "choices", "gold"),
    "schema": ("context_options", "continuation", "gold"),
    "language_modeling": ("context", "continuation"),
}
"""Format -> fields of its items; other fields are ignored, `category` excepted."""


class Item(NamedTuple):
    """One question. Either there are several answers to one context, or several contexts for one answer, or one of each."""

    contexts: tuple[str, ...]
    """What comes before the answer: the query, or the options of a schema."""
    answers: tuple[str, ...]
    """What is scored: the choices, or the continuation."""
    gold: int
    """Index of the true one; 0 in language modelling."""
    category: str
    """Part of the task that the item belongs to; mostly empty."""
    place: str
    """Its file and line."""

    @property
    def format(self) -> str:
        """Key of FORMATS."""
        if len(self.answers) > 1:
            return "multiple_choice"
        return "schema" if len(self.contexts) > 1 else "language_modeling"

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(context, answer) of every choice, in order."""
        return [(context, answer) for context in self.contexts for answer in self.answers]

    @property
    def has_duplicates(self) -> bool:
        """Whether two choices are equal."""
        return len(set(self.pairs)) < len(self.pairs)


def read_items(path: Path, *, duplicates: bool = False, categories: bool = False) -> list[Item]:
    """The items of a .jsonl file, all of one format; strings stripped, lists as they are (as LLM-foundry does).

    `duplicates` lets equal choices pass, for published files that have some; `categories` asks for the field `category`. Raises
    ValueError with file and line for an item that cannot be scored: a field that is missing or of another type or empty, a gold
    index out of range, equal choices, another format than the lines before; and for a file without items.
    """
    items: list[Item] = []
    for place, record in json_lines(path):
        item = _item(record, place, categories)
        if items and item.format != items[0].format:
            raise ValueError(
                f"{place}: a {item.format} item in a {items[0].format} file; put the items of one format into a file of their own"
            )
        if item.has_duplicates and not duplicates:
            raise ValueError(
                f"{place}: two choices are equal, so that no score can tell them apart; change or remove one"
            )
        items.append(item)
    if not items:
        raise ValueError(f"{path} holds no items; write one JSON object a line")
    return items


def _item(record: Mapping[str, Any], place: str, categories: bool) -> Item:
    kind = _format(record, place)
    category = _text(record, "category", place) if categories else ""
    if kind == "language_modeling":
        return Item(
            (_text(record, "context", place),),
            (_text(record, "continuation", place),),
            0,
            category,
            place,
        )
    options = _texts(record, FORMATS[kind][1 if kind == "multiple_choice" else 0], place)
    gold = record["gold"]
    if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(options):
        raise ValueError(
            f"{place}: gold is the index of the true choice, 0 to {len(options) - 1}; got {gold!r}"
        )
    if kind == "multiple_choice":
        return Item((_text(record, "query", place),), options, gold, category, place)
    return Item(options, (_text(record, "continuation", place),), gold, category, place)


def _format(record: Mapping[str, Any], place: str) -> str:
    """The format whose fields the record has; of two that it could be meant for, the error names what is missing."""
    for kind, fields in FORMATS.items():
        if all(name in record for name in fields):
            return kind
    meant = max(FORMATS, key=lambda kind: sum(name in record for name in FORMATS[kind]))
    missing = ", ".join(name for name in FORMATS[meant] if name not in record)
    formats = "; ".join(f"{kind}: {', '.join(fields)}" for kind, fields in FORMATS.items())
    raise ValueError(f"{place}: {missing} missing for {meant}; add it (the fields are {formats})")


def _texts(record: Mapping[str, Any], name: str, place: str) -> tuple[str, ...]:
    found = record[name]
    if not isinstance(found, list) or len(found) < 2:
        raise ValueError(f"{place}: {name} is a list of at least 2 texts; got {str(found)[:80]}")
    return tuple(_checked(text, f"{name}[{i}]", place) for i, text in enumerate(found))


def _text(record: Mapping[str, Any], name: str, place: str) -> str:
    if name not in record:
        raise ValueError(f"{place}: {name} missing; add it")
    return _checked(record[name], name, place).strip()


def _checked(text: Any, name: str, place: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{place}: {name} is a text; got {type(text).__name__}")
    if not text.strip():
        raise ValueError(f"{place}: {name} is empty: nothing to score; fill it or remove the item")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{place}: {name} holds half a character, U+{ord(text[error.start]):04X}; repair the text"
        ) from error
    return text
