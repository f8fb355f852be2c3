"""Sources are written once (mirrors scalejax/data/preparation.py)."""

import dataclasses
import json
import multiprocessing

import pytest

from scalejax.config import Data
from scalejax.data import preparation, writer
from scalejax.data.preparation import epochs, export, prepare, write
from scalejax.data.shards import open_shards
from tests.data.decoding import texts


def test_equal_text_gives_equal_shards_in_any_folder(data, cache, folder, tmp_path):
    shards = prepare(data, cache)
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    copied = Data(source=str(copy), tokenizer="bpe:320")
    assert prepare(copied, tmp_path / "cache").hash == shards.hash
    (copy / "new.txt").write_text("One more document.")
    assert prepare(copied, tmp_path / "cache").hash != shards.hash
    other_tokenizer = Data(source=data.source, tokenizer="byte")
    assert prepare(other_tokenizer, tmp_path / "cache").hash != shards.hash


def test_shards_that_exist_are_opened_and_not_written_again(data, cache, monkeypatch):
    shards = prepare(data, cache)
    monkeypatch.setattr(preparation, "_write_folder", None)
    assert prepare(data, cache).hash == shards.hash


def test_a_damaged_folder_in_the_cache_is_refused(data, tmp_path):
    path = prepare(data, tmp_path).folder / "train.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"train\.bin is missing, changed or truncated"):
        prepare(data, tmp_path)


def test_an_exported_folder_is_a_source(data, cache, tmp_path, monkeypatch):
    shards = prepare(data, cache)
    monkeypatch.setenv("SCALEJAX_CACHE", str(cache))
    folder = tmp_path / "corpora" / "own"
    for _ in range(2):
        assert export(data, folder).folder == folder
    assert prepare(Data(source=str(folder), tokenizer="own")).hash == shards.hash
    assert [path.name for path in folder.parent.iterdir()] == ["own"]
    with pytest.raises(ValueError, match="something else"):
        export(data, tmp_path)


def test_the_environment_chooses_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SCALEJAX_CACHE", raising=False)
    assert preparation.default_cache() == tmp_path / "scalejax" / "data"
    monkeypatch.setenv("SCALEJAX_CACHE", str(tmp_path / "own"))
    assert preparation.default_cache() == tmp_path / "own"


def test_epochs_count_passes_over_the_domain_that_is_repeated_most(tmp_path):
    records = [
        {"text": f"document {i} " + name * length, "set": name}
        for name, length in (("a", 1), ("b", 80))
        for i in range(60)
    ]
    shards = write(records, tmp_path / "out", tokenizer="byte", domain="set")
    sizes = {name: counts["train"] for name, counts in shards.manifest["domains"].items()}
    data = Data(source=str(tmp_path / "out"), tokenizer="own")
    assert epochs(data, 3.0 * sum(sizes.values())) == pytest.approx(3.0)
    mixture = Data(source=str(tmp_path / "out"), tokenizer="own", mixture="a=3,b=1")
    assert epochs(mixture, 1_000) == 750 / sizes["a"]


def test_epochs_of_a_source_that_is_not_prepared_are_unknown(data, tmp_path):
    assert epochs(data, 1_000, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_nothing_behind(data, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(writer.SplitFile, "add", full)
    with pytest.raises(OSError, match="no space"):
        prepare(data, tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    monkeypatch.undo()
    assert len(prepare(data, tmp_path).train) > 1_000


def test_the_scratch_folder_of_a_killed_process_is_deleted(data, tmp_path):
    folder = prepare(data, tmp_path).folder
    incomplete = folder.rename(tmp_path / f"{folder.name}.tmp-killed")
    (incomplete / "manifest.json").unlink()
    assert prepare(data, tmp_path).folder == folder
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]


def test_of_two_writers_of_one_folder_the_first_to_finish_wins(tmp_path):
    sentences = [f"document number {i} of some" for i in range(40)]

    def records():
        yield from ({"text": text} for text in sentences)
        # A second writer starts and finishes while the first is at work.
        capitals = ({"text": text.upper()} for text in sentences)
        write(capitals, tmp_path / "out", tokenizer="byte")
        yield from ({"text": f"{text} more"} for text in sentences)

    with pytest.raises(ValueError, match="another process wrote it"):
        write(records(), tmp_path / "out", tokenizer="byte")
    shards = open_shards(tmp_path / "out")
    assert shards.tokenizer().decode(shards.train[:60].tolist()).isupper()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def _prepare(data: Data, cache, queue) -> None:
    queue.put(prepare(data, cache).folder.stat().st_ino)


def test_processes_that_race_write_one_folder(data, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    racers = [spawn.Process(target=_prepare, args=(data, tmp_path, queue)) for _ in range(4)]
    for racer in racers:
        racer.start()
    inodes = {queue.get(timeout=60) for _ in racers}
    for racer in racers:
        racer.join()
    assert len(inodes) == 1 and [racer.exitcode for racer in racers] == [0] * 4
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1


def test_preparation_prints_the_licence_on_standard_error(data, tmp_path, capsys):
    prepare(data, tmp_path)
    captured = capsys.readouterr()
    assert captured.out == "" and "as of the files given" in captured.err
    assert "200 documents" in captured.err and "warning" not in captured.err


def test_what_is_left_out_of_a_corpus_is_printed(tmp_path, capsys):
    folder = tmp_path / "corpus"
    (folder / ".git").mkdir(parents=True)
    (folder / "a.jsonl").write_text("\n".join(lines(60, "A") + lines(7, "A")) + "\n")
    for name in ("README.md", "LICENSE", ".git/config", "b.json", "c.jsonl.xz"):
        (folder / name).write_text("{}")
    prepare(Data(source=str(folder), tokenizer="byte"), tmp_path / "cache")
    err = capsys.readouterr().err
    assert "60 documents (7 duplicates left out);" in err
    assert "2 file(s) not read" in err and f": {folder}/b.json, {folder}/c.jsonl.xz\n" in err


def test_much_text_that_is_held_out_is_warned_about(tmp_path, capsys):
    """Of two documents one is held out, however long it is."""
    path = tmp_path / "two.jsonl"
    path.write_text('{"text": "%s"}\n{"text": "short"}\n' % ("long " * 100))
    shards = prepare(Data(source=str(path), tokenizer="byte"), tmp_path / "cache")
    assert len(shards.train) < 10 < len(shards.validation)
    assert "warning: 99% of the text of" in capsys.readouterr().err


def test_any_iterable_of_dicts_becomes_a_source(tmp_path):
    records = [
        {"content": f"text {i} " * 9, "meta": {"set": "odd" if i % 2 else "even"}}
        for i in range(40)
    ]
    shards = write(
        iter(records), tmp_path / "out", tokenizer="byte", field="content", domain="meta.set"
    )
    assert shards.domains == ["even", "odd"]
    written = texts(shards.train, shards) + texts(shards.validation, shards)
    assert sorted(written) == sorted(f"text {i} " * 8 + f"text {i}" for i in range(40))
    assert prepare(Data(source=str(tmp_path / "out"), tokenizer="own")).hash == shards.hash
    with pytest.raises(ValueError, match="exists already; name a new folder"):
        write(records, tmp_path / "out", tokenizer="byte")
    with pytest.raises(ValueError, match=r"record 3: no field 'content'; the fields are text"):
        write([*records[:3], {"text": "x"}], tmp_path / "other", tokenizer="byte", field="content")
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "a failure left something behind"


@pytest.mark.hf
@pytest.mark.filterwarnings("default")
def test_a_hugging_face_dataset_is_a_source_streaming_or_not(tmp_path):
    datasets = pytest.importorskip(
        "datasets", reason="Hugging Face datasets are not installed: pip install datasets"
    )
    dataset = datasets.Dataset.from_list(
        [{"content": f"record {i} says {i * i}", "meta": {"set": "ab"[i % 2]}} for i in range(90)]
    )
    stream = dataset.to_iterable_dataset()
    shuffled = dataset.to_iterable_dataset().shuffle(seed=1, buffer_size=20)
    shards = [
        write(kind, tmp_path / name, tokenizer="byte", field="content", domain="meta.set")
        for name, kind in (("dataset", dataset), ("stream", stream), ("shuffled", shuffled))
    ]
    assert len({each.hash for each in shards}) == 1 and shards[0].domains == ["a", "b"]
    with pytest.raises(
        ValueError,
        match="record 0 is str, not a dict of fields; for a dataset with splits, pass one split",
    ):
        write(datasets.DatasetDict({"train": dataset}), tmp_path / "splits", tokenizer="byte")


def test_another_field_gives_other_shards(tmp_path):
    path = tmp_path / "two.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"one {i}", "note": f"two {i}"}) + "\n" for i in range(9))
    )
    first, second = (
        prepare(Data(source=str(path), tokenizer="byte", field=field), tmp_path)
        for field in ("text", "note")
    )
    assert all(text.startswith("two") for text in texts(second.train, second))
    assert first.hash != second.hash


def lines(count: int, prefix: str) -> list[str]:
    return [json.dumps({"text": f"{prefix} document {i} says {i * i}"}) for i in range(count)]


def test_validation_files_are_held_out_and_never_trained_on(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    train, held_out = lines(60, "TRAIN"), lines(20, "HELD")
    # Held-out documents that occur among the others must not be trained on.
    (folder / "train.jsonl").write_text("\n".join(train + held_out[:5]) + "\n")
    (folder / "validation.jsonl").write_text("\n".join(held_out) + "\n")
    shards = prepare(Data(source=str(folder), tokenizer="byte"), tmp_path / "cache")
    assert len(texts(shards.train, shards)) == 60 and len(shards.validation_starts) == 20
    assert not any("HELD" in text for text in texts(shards.train, shards))
    assert all("HELD" in text for text in texts(shards.validation, shards))


def test_named_held_out_text_takes_the_place_of_the_share(tmp_path):
    for name, prefix in (("a", "TRAIN"), ("b", "HELD")):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines(30, prefix)) + "\n")
    data = Data(source=str(tmp_path / "a.jsonl"), tokenizer="byte")
    named = dataclasses.replace(data, validation=str(tmp_path / "b.jsonl"))
    shards, usual = prepare(named, tmp_path / "cache"), prepare(data, tmp_path / "cache")
    assert len(texts(shards.train, shards)) == 30 and len(shards.validation_starts) == 30
    assert all("HELD" in text for text in texts(shards.validation, shards))
    assert len(texts(usual.train, usual)) < 30
    (tmp_path / "b.jsonl").write_text("\n".join(lines(31, "HELD")) + "\n")
    assert prepare(named, tmp_path / "cache").hash != shards.hash
    with pytest.raises(ValueError, match=r"Data\.validation 'nowhere' is no file or folder in"):
        prepare(dataclasses.replace(data, validation="nowhere"))
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    for skip_bad in (False, True):
        nothing = dataclasses.replace(data, validation=str(empty), skip_bad=skip_bad)
        with pytest.raises(ValueError, match=r"empty\.jsonl'? holds no text"):
            prepare(nothing)
    same = dataclasses.replace(data, validation=data.source)
    with pytest.raises(ValueError, match="nothing is left to train on"):
        prepare(same, tmp_path / "cache")
    with pytest.raises(ValueError, match=r"synthetic:32.*remove Data\.validation"):
        prepare(dataclasses.replace(named, source="synthetic:32", tokenizer="own"), tmp_path)


def test_records_that_cannot_be_used_are_skipped_and_counted_on_request(tmp_path, capsys):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join([*lines(20, "A"), '{"text": null}', '{"text": ""}', "{"]) + "\n")
    data = Data(source=str(path), tokenizer="byte")
    with pytest.raises(ValueError, match=r"line 21: .* Data\.skip_bad=True \(--skip-bad\)"):
        prepare(data, tmp_path / "cache")
    shards = prepare(dataclasses.replace(data, skip_bad=True), tmp_path / "cache")
    assert shards.manifest.get("records_skipped") == 3
    assert sum(shards.manifest["documents"].values()) == 20
    err = capsys.readouterr().err
    assert "line 21: the field 'text' holds NoneType" in err and "skipped 3 record(s)" in err
    written = write(
        [{"text": "one"}, {"text": ""}, {"text": "two"}],
        tmp_path / "out",
        tokenizer="byte",
        skip_bad=True,
    )
    assert written.manifest.get("records_skipped") == 1


def test_a_folder_with_the_name_of_a_tokenizer_is_not_that_tokenizer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "byte").mkdir()
    (tmp_path / "a.jsonl").write_text("\n".join(lines(30, "A")) + "\n")
    assert prepare(Data(source="a.jsonl", tokenizer="byte"), tmp_path / "cache").vocabulary == 257
