"""Task files: what is read, and what is refused with file, line and remedy (mirrors scalejax/evaluation/items.py)."""

import json

import pytest

from scalejax.evaluation.task_files import read_items

CHOICE = {"query": " Which? ", "choices": ["this", "that "], "gold": 1}
SCHEMA = {"context_options": ["He", "She "], "continuation": " came", "gold": 0}
CONTINUE = {"context": "one two", "continuation": "three"}


def line(record: dict, **changes) -> bytes:
    return json.dumps({**record, **changes}).encode() + b"\n"


def without(record: dict, name: str) -> bytes:
    return line({key: value for key, value in record.items() if key != name})


MALFORMED = {  # name -> (the second line, what the message says)
    "gold": (without(CHOICE, "gold"), "gold missing for multiple_choice; add it"),
    "continuation": (
        without(CONTINUE, "continuation"),
        "continuation missing for language_modeling; add it",
    ),
    "range": (line(CHOICE, gold=2), "gold is the index of the true choice, 0 to 1; got 2"),
    "true": (line(CHOICE, gold=True), "gold is the index of the true choice, 0 to 1; got True"),
    "equal": (line(CHOICE, choices=["a", "b", "a"]), "two choices are equal"),
    "single": (line(CHOICE, choices=["a"]), "choices is a list of at least 2 texts"),
    "number": (line(CHOICE, choices=["a", 2]), "choices[1] is a text; got int"),
    "blank": (line(CHOICE, choices=["a", " "]), "choices[1] is empty"),
    "empty": (
        line(CHOICE, query="  \n"),
        "query is empty: nothing to score; fill it or remove the item",
    ),
    "mixed": (line(CONTINUE), "a language_modeling item in a multiple_choice file; put"),
    "bom": (
        b"\xef\xbb\xbf" + line(CHOICE),
        "begins with a byte-order mark; save the file as UTF-8 without one",
    ),
    "utf8": (b'{"query": "\xff"}\n', "is not UTF-8 text: byte 11 of the line is 0xff; convert"),
    "json": (b'{"query": "half\n', "is not JSON"),
    "list": (b"[1, 2]\n", "is list, not an object"),
    "parted": (
        line(CHOICE)[:-1] + "\u2028".encode() + line(CHOICE),
        "records are parted by U+2028: part them by newlines",
    ),
    "half": (line(CHOICE, query="\ud83d"), "query holds half a character, U+D83D"),
    "nothing": (b"\n", "is blank; remove it"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_item_is_refused_with_file_line_and_remedy(tmp_path, name):
    second, said = MALFORMED[name]
    path = tmp_path / "task.jsonl"
    path.write_bytes(line(CHOICE) + second)
    with pytest.raises(ValueError) as refused:
        read_items(path)
    assert f"{path}, line 2" in str(refused.value) and said in str(refused.value)


def test_a_file_without_items_is_refused(tmp_path):
    (tmp_path / "task.jsonl").write_bytes(b"")
    with pytest.raises(ValueError, match="holds no items"):
        read_items(tmp_path / "task.jsonl")


@pytest.mark.parametrize(
    ("record", "format", "pairs"),
    [
        (CHOICE, "multiple_choice", [("Which?", "this"), ("Which?", "that ")]),
        (SCHEMA, "schema", [("He", "came"), ("She ", "came")]),
        (CONTINUE, "language_modeling", [("one two", "three")]),
    ],
)
def test_strings_are_stripped_and_lists_are_not(tmp_path, record, format, pairs):
    (tmp_path / "task.jsonl").write_bytes(line(record))
    (item,) = read_items(tmp_path / "task.jsonl")
    assert (item.format, item.pairs, item.gold) == (format, pairs, record.get("gold", 0))


def test_line_separators_inside_a_text_are_text(tmp_path):
    text = "a\u2028b\u0085c\u2029d"
    (tmp_path / "task.jsonl").write_text(
        json.dumps({**CHOICE, "query": text}, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (item,) = read_items(tmp_path / "task.jsonl")
    assert item.contexts == (text,)


def test_equal_choices_pass_in_a_published_file_and_are_known(tmp_path):
    (tmp_path / "task.jsonl").write_bytes(line(CHOICE) + line(CHOICE, choices=["a", "a"]))
    items = read_items(tmp_path / "task.jsonl", duplicates=True)
    assert [item.has_duplicates for item in items] == [False, True]


def test_categories_are_asked_for_where_they_count(tmp_path):
    (tmp_path / "task.jsonl").write_bytes(line(CHOICE, category=" law ") + line(CHOICE))
    assert [item.category for item in read_items(tmp_path / "task.jsonl")] == ["", ""]
    with pytest.raises(ValueError, match="line 2: category missing"):
        read_items(tmp_path / "task.jsonl", categories=True)
