"""How task files are read and refused (mirrors scalejax/evaluation/task_files.py)."""

import json

import pytest

from scalejax.evaluation.task_files import read_items

MULTIPLE_CHOICE = {"query": " Which? ", "choices": ["this", "that "], "gold": 1}
SCHEMA = {"context_options": ["He", "She "], "continuation": " came", "gold": 0}
LANGUAGE_MODELING = {"context": "one two", "continuation": "three"}


def line(record: dict, **changes) -> bytes:
    return json.dumps({**record, **changes}).encode() + b"\n"


def line_without(record: dict, name: str) -> bytes:
    return line({key: value for key, value in record.items() if key != name})


# The second line of a file whose first line is good, and what the message says.
MALFORMED = {
    "no gold": (
        line_without(MULTIPLE_CHOICE, "gold"),
        "gold missing for the format multiple_choice; add it",
    ),
    "no continuation": (
        line_without(LANGUAGE_MODELING, "continuation"),
        "continuation missing for the format language_modeling; add it",
    ),
    "gold out of range": (
        line(MULTIPLE_CHOICE, gold=2),
        "gold is 2; expected the index of the correct choice, 0 to 1",
    ),
    "gold is a boolean": (
        line(MULTIPLE_CHOICE, gold=True),
        "gold is True; expected the index of the correct choice, 0 to 1",
    ),
    "equal choices": (line(MULTIPLE_CHOICE, choices=["a", "b", "a"]), "two choices are equal"),
    "one choice": (
        line(MULTIPLE_CHOICE, choices=["a"]),
        "choices is ['a']; expected a list of at least 2 strings",
    ),
    "choice is a number": (
        line(MULTIPLE_CHOICE, choices=["a", 2]),
        "choices[1] is int; expected a string",
    ),
    "blank choice": (line(MULTIPLE_CHOICE, choices=["a", " "]), "choices[1] is empty"),
    "blank query": (
        line(MULTIPLE_CHOICE, query="  \n"),
        "query is empty, so there is nothing to score; fill it or remove the item",
    ),
    "another format": (
        line(LANGUAGE_MODELING),
        "a language_modeling item in a multiple_choice file; all items of a file must have the",
    ),
    "byte-order mark": (
        b"\xef\xbb\xbf" + line(MULTIPLE_CHOICE),
        "begins with a byte-order mark; save the file as UTF-8 without one",
    ),
    "not UTF-8": (
        b'{"query": "\xff"}\n',
        "is not UTF-8 text: byte 11 of the line is 0xff; convert",
    ),
    "not JSON": (b'{"query": "half\n', "is not JSON"),
    "not an object": (b"[1, 2]\n", "is list, not an object"),
    "U+2028 between records": (
        line(MULTIPLE_CHOICE)[:-1] + "\u2028".encode() + line(MULTIPLE_CHOICE),
        "its records are separated by U+2028: separate them by newlines",
    ),
    "half a surrogate pair": (
        line(MULTIPLE_CHOICE, query="\ud83d"),
        "query contains half of a surrogate pair, U+D83D",
    ),
    "blank line": (b"\n" + line(MULTIPLE_CHOICE), "is blank; remove the line"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_item_is_refused_with_file_line_and_remedy(tmp_path, name):
    second_line, message = MALFORMED[name]
    path = tmp_path / "task.jsonl"
    path.write_bytes(line(MULTIPLE_CHOICE) + second_line)
    with pytest.raises(ValueError) as refused:
        read_items(path)
    assert f"{path}, line 2" in str(refused.value)
    assert message in str(refused.value)


def test_a_file_without_items_is_refused(tmp_path):
    (tmp_path / "task.jsonl").write_bytes(b"")
    with pytest.raises(ValueError, match="has no items"):
        read_items(tmp_path / "task.jsonl")


@pytest.mark.parametrize(
    ("record", "format", "choices"),
    [
        (MULTIPLE_CHOICE, "multiple_choice", [("Which?", "this"), ("Which?", "that ")]),
        (SCHEMA, "schema", [("He", "came"), ("She ", "came")]),
        (LANGUAGE_MODELING, "language_modeling", [("one two", "three")]),
    ],
)
def test_strings_are_stripped_and_strings_in_lists_are_not(tmp_path, record, format, choices):
    (tmp_path / "task.jsonl").write_bytes(line(record))
    (item,) = read_items(tmp_path / "task.jsonl")
    assert item.format == format
    assert item.choices == choices
    assert item.gold == record.get("gold", 0)


def test_line_separators_inside_a_string_are_kept(tmp_path):
    text = "a\u2028b\u0085c\u2029d"
    record = json.dumps({**MULTIPLE_CHOICE, "query": text}, ensure_ascii=False)
    (tmp_path / "task.jsonl").write_text(record + "\n", encoding="utf-8")
    (item,) = read_items(tmp_path / "task.jsonl")
    assert item.contexts == (text,)


def test_equal_choices_are_allowed_on_request_and_reported(tmp_path):
    lines = line(MULTIPLE_CHOICE) + line(MULTIPLE_CHOICE, choices=["a", "a"])
    (tmp_path / "task.jsonl").write_bytes(lines)
    items = read_items(tmp_path / "task.jsonl", allow_duplicates=True)
    assert [item.has_duplicates for item in items] == [False, True]


def test_categories_are_read_and_required_only_on_request(tmp_path):
    lines = line(MULTIPLE_CHOICE, category=" law ") + line(MULTIPLE_CHOICE)
    (tmp_path / "task.jsonl").write_bytes(lines)
    assert [item.category for item in read_items(tmp_path / "task.jsonl")] == ["", ""]
    with pytest.raises(ValueError, match="line 2: category missing"):
        read_items(tmp_path / "task.jsonl", with_categories=True)
