"""Files that a kill cannot spoil."""

import pytest

from scalejax.files import append_lines, read_json, read_lines, write_json


def test_json_comes_back_with_its_format(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1.5})
    assert read_json(tmp_path / "a.json") == {"format": 1, "x": 1.5}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"], (
        "a temporary file stayed behind"
    )


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"format": 1')
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_a_line_cut_short_is_left_out_and_cut_off_before_the_next(tmp_path):
    path = tmp_path / "a.jsonl"
    append_lines(path, [{"a": 1}])
    with open(path, "a") as handle:
        handle.write('{"b": ')
    assert read_lines(path) == [{"a": 1}]
    append_lines(path, [{"c": "line separator \u2028 inside"}])
    assert read_lines(path) == [{"a": 1}, {"c": "line separator \u2028 inside"}]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\nbroken\n{"b": 2}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_lines(tmp_path / "a.jsonl")
