"""Which files of a folder are read (mirrors scalejax/data/sources/corpus_files.py)."""

from pathlib import Path

import pytest

from scalejax.data.sources.corpus_files import list_corpus


def files(folder: Path, *names: str) -> dict[str, tuple[str, bool]]:
    """{path: (domain, whether it is held out)} of the files that are read."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("text")
    return {
        file.path.relative_to(folder).as_posix(): (file.domain, file.held_out)
        for file in list_corpus(folder).files
    }


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train.jsonl", "validation.jsonl", "test.jsonl"),
        ("train.txt", "val.txt", "test.txt"),
        ("other.jsonl", "dev.jsonl", "test.jsonl"),
        ("c4-train.00000-of-00008.json.gz", "c4-validation.00000-of-00008.json.gz", "x_test.jsonl"),
        ("train-00000-of-00002.parquet", "validation-00000-of-00001.parquet", "test-0.parquet"),
        ("Train/a.txt", "Valid/a.txt", "Test/a.txt"),
    ],
)
def test_names_of_splits_are_respected(tmp_path, train, validation, test):
    assert files(tmp_path, train, validation, test) == {
        train: ("text", False),
        validation: ("text", True),
    }


def test_folders_of_splits_are_no_domains(tmp_path):
    assert files(tmp_path, "train/wiki/a.txt", "train/b.txt", "validation/wiki/a.txt") == {
        "train/wiki/a.txt": ("wiki", False),
        "train/b.txt": ("text", False),
        "validation/wiki/a.txt": ("wiki", True),
    }


def test_a_test_beside_training_files_is_not_read(tmp_path):
    assert list(files(tmp_path, "train/a.txt", "test/b.txt")) == ["train/a.txt"]
    assert list_corpus(tmp_path).tests == [tmp_path / "test/b.txt"], "said when it is prepared"
    (tmp_path / "train/a.txt").unlink()
    assert list(files(tmp_path)) == ["test/b.txt"] and not list_corpus(tmp_path).tests


def test_a_part_of_a_folder_that_would_be_left_out_silently_is_refused(tmp_path, monkeypatch):
    files(tmp_path, "corpus/a.txt", "elsewhere/b.txt")
    link = tmp_path / "corpus" / "wiki"
    for target, is_folder in ((tmp_path / "elsewhere", True), (tmp_path / "nothing", False)):
        link.symlink_to(target, target_is_directory=is_folder)
        with pytest.raises(ValueError, match=rf"{link} is a link to {target}, which is no file"):
            list_corpus(tmp_path / "corpus")
        link.unlink()
    link.mkdir()
    monkeypatch.setattr("os.access", lambda path, _: path != link)
    with pytest.raises(ValueError, match=rf"the folder {link} cannot be read"):
        list_corpus(tmp_path / "corpus")


@pytest.mark.parametrize("names", [["test.txt"], ["validation/a.txt"], ["test/a.txt", "web/b.txt"]])
def test_names_say_nothing_without_the_splits_that_they_are_opposed_to(tmp_path, names):
    assert not any(held_out for _, held_out in files(tmp_path, *names).values())
    assert len(files(tmp_path)) == len(names)


def test_a_text_about_a_test_is_text(tmp_path):
    assert len(files(tmp_path, "train.txt", "the test of time.txt", "val_gardena.txt")) == 3


def test_what_describes_a_folder_of_records_is_no_text(tmp_path):
    hidden = (".ipynb_checkpoints/a-checkpoint.txt", ".git/notes.md")
    assert list(files(tmp_path, "README.md", "LICENSE.txt", "a.jsonl", *hidden)) == ["a.jsonl"]
    (tmp_path / "a.jsonl").unlink()
    assert list(files(tmp_path)) == ["LICENSE.txt", "README.md"], "prose alone is the text"
