"""Task files: one item per line in one of LLM-foundry's three formats.

Every item is checked when it is read, before anything is scored.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from scalejax.data.sources.records import json_lines

# Required fields of the items of each format. Other fields are ignored, except
# `category`.
FORMATS = {
    "multiple_choice": ("query", "choices", "gold"),
    "schema": ("context_options", "continuation", "gold"),
    "language_modeling": ("context", "continuation"),
}


class Item(NamedTuple):
    """One item of a task.

    A multiple-choice item has one context and several continuations, a schema item has
    several contexts and one continuation, and a language-modeling item has one of each.
    """

    contexts: tuple[str, ...]
    """Text before the continuation: the query, or the context options of a schema."""
    continuations: tuple[str, ...]
    """Text that is scored: the choices, or the continuation."""
    gold: int
    """Index of the correct choice; 0 in language modeling."""
    category: str
    """Part of the task that the item belongs to; usually empty."""
    location: str
    """File and line of the item, for error messages."""

    @property
    def format(self) -> str:
        """The item's format, a key of FORMATS."""
        if len(self.continuations) > 1:
            return "multiple_choice"
        return "schema" if len(self.contexts) > 1 else "language_modeling"

    @property
    def choices(self) -> list[tuple[str, str]]:
        """(context, continuation) of every choice, in order."""
        return [
            (context, continuation)
            for context in self.contexts
            for continuation in self.continuations
        ]

    @property
    def has_duplicates(self) -> bool:
        """Whether two choices are equal."""
        return len(set(self.choices)) < len(self.choices)


def read_items(
    path: Path, *, allow_duplicates: bool = False, with_categories: bool = False
) -> list[Item]:
    """Read the items of a .jsonl file. All items of a file have the same format.

    As in LLM-foundry, string fields are stripped of surrounding whitespace and the
    strings in lists are not.

    Args:
        path: the task file.
        allow_duplicates: accept items with equal choices. Some published files have
            them.
        with_categories: require the field `category` and read it.

    Raises:
        ValueError: if the file has no items, or if an item cannot be scored: a field is
            missing, empty or of the wrong type, the gold index is out of range, two
            choices are equal, or the format differs from that of the lines before. The
            message names the file and the line.
    """
    items: list[Item] = []
    for location, record in json_lines(path):
        item = _parse_item(record, location, with_categories)
        if items and item.format != items[0].format:
            raise ValueError(
                f"{location}: a {item.format} item in a {items[0].format} file; all items of "
                "a file must have the same format. Move this item to another file"
            )
        if item.has_duplicates and not allow_duplicates:
            raise ValueError(
                f"{location}: two choices are equal, so no score can tell them apart; "
                "change or remove one of them"
            )
        items.append(item)
    if not items:
        raise ValueError(f"{path} has no items; write one JSON object per line")
    return items


def _parse_item(record: Mapping[str, Any], location: str, with_category: bool) -> Item:
    kind = _format_of(record, location)
    category = _string(record, "category", location) if with_category else ""
    if kind == "language_modeling":
        context = _string(record, "context", location)
        continuation = _string(record, "continuation", location)
        return Item((context,), (continuation,), 0, category, location)
    options_field = "choices" if kind == "multiple_choice" else "context_options"
    options = _string_list(record, options_field, location)
    gold = _gold_index(record, len(options), location)
    if kind == "multiple_choice":
        query = _string(record, "query", location)
        return Item((query,), options, gold, category, location)
    continuation = _string(record, "continuation", location)
    return Item(options, (continuation,), gold, category, location)


def _format_of(record: Mapping[str, Any], location: str) -> str:
    """The format whose fields the record has.

    When no format fits, the error names the fields that the closest format lacks.
    """
    for kind, fields in FORMATS.items():
        if all(name in record for name in fields):
            return kind
    closest = max(FORMATS, key=lambda kind: sum(name in record for name in FORMATS[kind]))
    missing = ", ".join(name for name in FORMATS[closest] if name not in record)
    formats = "; ".join(f"{kind}: {', '.join(fields)}" for kind, fields in FORMATS.items())
    raise ValueError(
        f"{location}: {missing} missing for the format {closest}; add it (fields of each "
        f"format: {formats})"
    )


def _gold_index(record: Mapping[str, Any], choices: int, location: str) -> int:
    gold = record["gold"]
    # bool is a subclass of int, and `true` is not an index.
    is_index = isinstance(gold, int) and not isinstance(gold, bool)
    if not is_index or not 0 <= gold < choices:
        raise ValueError(
            f"{location}: gold is {gold!r}; expected the index of the correct choice, "
            f"0 to {choices - 1}"
        )
    return gold


def _string_list(record: Mapping[str, Any], name: str, location: str) -> tuple[str, ...]:
    value = record[name]
    if not isinstance(value, list) or len(value) < 2:
        raise ValueError(
            f"{location}: {name} is {str(value)[:80]}; expected a list of at least 2 strings"
        )
    return tuple(_check_string(text, f"{name}[{i}]", location) for i, text in enumerate(value))


def _string(record: Mapping[str, Any], name: str, location: str) -> str:
    if name not in record:
        raise ValueError(f"{location}: {name} missing; add it")
    return _check_string(record[name], name, location).strip()


def _check_string(text: object, name: str, location: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{location}: {name} is {type(text).__name__}; expected a string")
    if not text.strip():
        raise ValueError(
            f"{location}: {name} is empty, so there is nothing to score; fill it or remove the item"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        surrogate = f"U+{ord(text[error.start]):04X}"
        raise ValueError(
            f"{location}: {name} contains half of a surrogate pair, {surrogate}; repair the text"
        ) from error
    return text
