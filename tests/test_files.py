"""Files survive a killed process (mirrors scalejax/files.py)."""

import errno

import pytest

from scalejax.files import (
    append_lines,
    check_can_be_folder,
    fenced,
    read_json,
    read_lines,
    replacing,
    write_json,
    write_text,
)


def test_json_is_read_as_it_was_written_with_its_format(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1.5})
    assert read_json(tmp_path / "a.json") == {"format": 1, "x": 1.5}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"], (
        "a temporary file was left behind"
    )


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})


def test_a_damaged_file_is_refused_by_name(tmp_path):
    (tmp_path / "a.json").write_text('{"format": 1')
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_an_incomplete_last_line_is_ignored_and_removed_before_the_next_append(tmp_path):
    path = tmp_path / "a.jsonl"
    append_lines(path, [{"a": 1}])
    with open(path, "a") as handle:
        handle.write('{"b": ')
    assert read_lines(path) == [{"a": 1}]
    append_lines(path, [{"c": "line separator \u2028 inside"}])
    assert read_lines(path) == [{"a": 1}, {"c": "line separator \u2028 inside"}]


def test_a_damaged_line_in_the_middle_is_refused_by_its_number(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\nbroken\n{"b": 2}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_lines(tmp_path / "a.jsonl")


def test_an_error_while_a_file_is_written_leaves_the_old_one_and_nothing_else(tmp_path):
    """On a full disk, what is left behind would keep it full."""
    path = tmp_path / "results.parquet"
    write_text(path, "first")
    with pytest.raises(OSError, match="no space"), replacing(path) as temporary:
        temporary.write_text("half of the sec")
        raise OSError(errno.ENOSPC, "no space")
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_behind_a_fence_that_is_down_a_file_keeps_its_content(tmp_path):
    path, down = tmp_path / "status.json", False

    def check():
        if down:
            raise PermissionError("taken over")

    with fenced(check):
        write_text(path, "first")
        # The fence falls while the second content is written.
        with pytest.raises(PermissionError), replacing(path) as temporary:
            temporary.write_text("second")
            down = True
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]
    write_text(path, "third")
    assert path.read_text() == "third"


def test_what_is_in_the_way_of_a_folder_is_named_before_anything_is_made(tmp_path):
    (tmp_path / "file").touch()
    check_can_be_folder(tmp_path / "a" / "b")
    for folder in (tmp_path / "file", tmp_path / "file" / "b"):
        with pytest.raises(ValueError, match="file is not a folder; give another folder"):
            check_can_be_folder(folder)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
