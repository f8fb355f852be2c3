"""Shards are written once, whole, and checked ever after (mirrors scalejax/data/shards.py)."""

import json
import multiprocessing
import random
import shutil

import numpy as np
import pytest

from scalejax.config import Data
from scalejax.data import preparation, writer
from scalejax.data.preparation import export, prepare, write
from scalejax.data.shards import content_hash, open_shards
from scalejax.data.sources import synthetic
from scalejax.data.sources.text_files import clean


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """200 short documents of random words; every tenth is there twice."""
    rng, place = random.Random(1), tmp_path_factory.mktemp("text")
    words = ["café", "law", "of", "the", "tokens", "naïve", "loss", "\n"]
    for i in range(200):
        text = " ".join(rng.choices(words, k=rng.randint(5, 60)))
        (place / f"{i:03d}.txt").write_text(f"{i} {text}")
        if i % 10 == 0:
            (place / f"{i:03d} again.txt").write_text(f"{i} {text}".upper())
    return place


@pytest.fixture(scope="module")
def data(folder) -> Data:
    return Data(source=str(folder), tokenizer="bpe:320")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def shards(data, cache):
    return prepare(data, cache)


def texts(tokens: np.ndarray, shards) -> list[str]:
    end = shards.manifest["tokenizer"]["end"]
    assert tokens[0] == tokens[-1] == end
    return [
        shards.tokenizer().decode(ids[1:])
        for ids in np.split(tokens, np.flatnonzero(tokens == end))[1:-1]
    ]


def test_the_documents_come_back_out_of_the_shards(shards, folder):
    train, held_out = texts(shards.train, shards), texts(shards.validation, shards)
    assert {d.casefold() for d in train + held_out} == {
        clean(p.read_text()).casefold() for p in folder.glob("???.txt")
    }
    assert shards.manifest["documents"] == {"train": len(train), "validation": len(held_out)}
    assert shards.manifest["duplicates_dropped"] == 20
    assert not set(train) & set(held_out)


def test_held_out_documents_are_indexed_by_token_and_sized_in_bytes(shards):
    ends = [*shards.validation_starts[1:], len(shards.validation)]
    found = [
        shards.tokenizer().decode(shards.validation[a:b])
        for a, b in zip(shards.validation_starts, ends, strict=True)
    ]
    assert found == texts(shards.validation, shards)
    assert [len(text.encode()) for text in found] == shards.validation_bytes.tolist()
    assert shards.manifest["bytes"]["validation"] == shards.validation_bytes.sum()


def test_the_manifest_counts_what_the_files_hold(shards):
    assert shards.manifest["tokens"] == {
        "train": len(shards.train),
        "validation": len(shards.validation),
    }
    assert shards.vocabulary == 320 and shards.train.max() < 320 and shards.train.dtype == np.uint16
    assert shards.entropy_rate is None
    assert {"source", "licence", "attribution", "hash", "files"} <= shards.manifest.keys()


def test_equal_text_gives_equal_shards_wherever_it_lies(data, shards, folder, tmp_path):
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    again = prepare(Data(source=str(copy), tokenizer="bpe:320"), tmp_path / "cache")
    assert again.hash == shards.hash
    (copy / "new.txt").write_text("One more document.")
    assert (
        prepare(Data(source=str(copy), tokenizer="bpe:320"), tmp_path / "cache").hash != shards.hash
    )
    assert (
        prepare(Data(source=data.source, tokenizer="byte"), tmp_path / "cache").hash != shards.hash
    )


def test_shards_that_exist_are_opened_and_not_written_again(data, cache, shards, monkeypatch):
    monkeypatch.setattr(preparation, "_write", None)
    assert prepare(data, cache).hash == shards.hash


def test_a_prepared_folder_is_a_source_of_its_own(shards):
    assert prepare(Data(source=str(shards.folder), tokenizer="own")).hash == shards.hash
    with pytest.raises(ValueError, match="tokenizer='own'"):
        prepare(Data(source=str(shards.folder), tokenizer="byte"))


def test_an_exported_folder_is_a_source(data, shards, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("SCALEJAX_CACHE", str(cache))
    folder = tmp_path / "corpora" / "own"
    for _ in range(2):
        assert export(data, folder).folder == folder
    assert prepare(Data(source=str(folder), tokenizer="own")).hash == shards.hash
    assert [path.name for path in folder.parent.iterdir()] == ["own"]
    with pytest.raises(ValueError, match="something else"):
        export(data, tmp_path)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SCALEJAX_CACHE", raising=False)
    assert preparation.default_cache() == tmp_path / "scalejax" / "data"
    monkeypatch.setenv("SCALEJAX_CACHE", str(tmp_path / "own"))
    assert preparation.default_cache() == tmp_path / "own"


@pytest.mark.parametrize(
    "name", ["train.bin", "validation.bin", "validation_documents.bin", "tokenizer.model"]
)
@pytest.mark.parametrize("damage", ["changed", "truncated", "gone"])
def test_a_damaged_file_is_refused_by_name(data, tmp_path, name, damage):
    path = prepare(data, tmp_path).folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage != "gone":
        path.write_bytes(content if damage == "changed" else content[:-2])
    with pytest.raises(ValueError, match=f"{name} is missing, changed or truncated"):
        prepare(data, tmp_path)


def test_an_id_outside_the_vocabulary_is_refused_with_its_place(data, tmp_path):
    folder = prepare(data, tmp_path).folder
    tokens = np.fromfile(folder / "train.bin", np.uint16)
    tokens[17] = 320
    tokens.tofile(folder / "train.bin")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["train.bin"] = preparation.sha256(folder / "train.bin")
    manifest["hash"] = content_hash(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        ValueError, match=r"train\.bin holds id 320 at token 17; its vocabulary ends at 319"
    ):
        open_shards(folder)


def test_a_manifest_whose_vocabulary_was_changed_is_refused(data, tmp_path):
    path = prepare(data, tmp_path).folder / "manifest.json"
    path.write_text(path.read_text().replace('"vocabulary": 320', '"vocabulary": 321'))
    with pytest.raises(ValueError, match=r"manifest\.json was changed"):
        prepare(data, tmp_path)


def test_a_failure_on_the_way_leaves_nothing_behind(data, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(writer.SplitFile, "add", full)
    with pytest.raises(OSError, match="no space"):
        prepare(data, tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    monkeypatch.undo()
    assert len(prepare(data, tmp_path).train) > 1_000


def test_what_a_killed_process_left_is_cleared_away(data, tmp_path):
    finished = prepare(data, tmp_path).folder
    half = finished.rename(tmp_path / f"{finished.name}.tmp-killed")
    (half / "manifest.json").unlink()
    assert prepare(data, tmp_path).folder == finished
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [finished]


def test_two_writers_of_one_folder_leave_each_other_alone_and_the_first_to_finish_has_it(tmp_path):
    texts = [f"document number {i} of some" for i in range(40)]

    def records():
        yield from ({"text": text} for text in texts)
        write(
            ({"text": text.upper()} for text in texts), tmp_path / "out", tokenizer="byte"
        )  # while the first is at work
        yield from ({"text": f"{text} more"} for text in texts)

    with pytest.raises(ValueError, match="another process wrote it"):
        write(records(), tmp_path / "out", tokenizer="byte")
    assert (
        open_shards(tmp_path / "out")
        .tokenizer()
        .decode(open_shards(tmp_path / "out").train[:60])
        .isupper()
    )
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def _prepared(data: Data, cache, queue) -> None:
    queue.put(prepare(data, cache).folder.stat().st_ino)


def test_processes_that_race_write_one_folder(data, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    racers = [spawn.Process(target=_prepared, args=(data, tmp_path, queue)) for _ in range(4)]
    for racer in racers:
        racer.start()
    inodes = {queue.get(timeout=60) for _ in racers}
    for racer in racers:
        racer.join()
    assert len(inodes) == 1 and [racer.exitcode for racer in racers] == [0] * 4
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1


@pytest.fixture
def short_language(monkeypatch):
    monkeypatch.setattr(synthetic, "STREAM_TOKENS", 512)


def test_synthetic_shards_hold_the_language_and_its_entropy_rate(tmp_path, short_language):
    shards = prepare(Data(source="synthetic:8", tokenizer="own"), tmp_path)
    assert shards.entropy_rate == synthetic.Language(8).entropy_rate()
    assert shards.vocabulary == 8 and shards.train.max() == 7
    assert (len(shards.train), len(shards.validation)) == (512 * 512, 16 * 512)
    assert np.array_equal(np.diff(shards.validation_starts), [1_024] * 7)
    assert not shards.validation_bytes.any()


def test_a_synthetic_source_has_no_tokenizer(tmp_path, short_language):
    with pytest.raises(ValueError, match="tokenizer='own'"):
        prepare(Data(source="synthetic:8", tokenizer="byte"), tmp_path)
    with pytest.raises(ValueError, match="no tokenizer"):
        prepare(Data(source="synthetic:8", tokenizer="own"), tmp_path).tokenizer()


def test_preparation_tells_the_licence(data, tmp_path, capsys):
    prepare(data, tmp_path)
    told = capsys.readouterr()
    assert told.out == "" and "as of the files given" in told.err and "200 documents" in told.err


@pytest.fixture(scope="module")
def domains(tmp_path_factory, cache):
    """Two domains of 30 documents in 2 files; `b` is longer."""
    place = tmp_path_factory.mktemp("domains")
    for name, words in (("a", 5), ("b", 25)):
        (place / name).mkdir()
        lines = (json.dumps({"text": f"{name} {i} " + f"{name * 3} " * words}) for i in range(30))
        (place / name / "part.jsonl").write_text("\n".join(lines) + "\n")
    return prepare(Data(source=str(place), tokenizer="byte"), cache)


def test_domains_lie_one_after_another_in_train_and_mixed_in_validation(domains):
    assert domains.domains == ["a", "b"]
    parts = {
        name: texts(domains.tokens("train", "concatenate", domain=name).ids, domains)
        for name in "ab"
    }
    for name, other in (("a", "b"), ("b", "a")):
        found = parts[name]
        assert len(found) > 20 and all(name * 3 in text and other * 3 not in text for text in found)
    assert parts["a"] + parts["b"] == texts(domains.train, domains)
    tags = domains.validation_domains
    assert [domains.domains[tag] for tag in tags] == [
        text[0] for text in texts(domains.validation, domains)
    ]
    assert set(tags.tolist()) == {0, 1}


def test_a_corpus_of_one_domain_needs_no_file_for_it(shards):
    assert shards.domains == ["text"] and not shards.validation_domains.any()
    assert np.array_equal(shards.tokens("train", "concatenate", domain="text").ids, shards.train)
    assert not (shards.folder / "validation_domains.bin").exists()


def test_a_manifest_whose_domains_were_changed_is_refused(domains, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(domains.folder, folder)
    assert open_shards(folder).hash == domains.hash
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["domains"]["a"]["train"] += 1
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"manifest\.json was changed"):
        open_shards(folder)


def test_anything_that_gives_dicts_becomes_a_source(tmp_path):
    records = [
        {"content": f"text {i} " * 9, "meta": {"set": "odd" if i % 2 else "even"}}
        for i in range(40)
    ]
    shards = write(
        iter(records), tmp_path / "out", tokenizer="byte", field="content", domain="meta.set"
    )
    assert shards.domains == ["even", "odd"]
    assert sorted(texts(shards.train, shards) + texts(shards.validation, shards)) == sorted(
        r["content"].strip() for r in records
    )
    assert prepare(Data(source=str(tmp_path / "out"), tokenizer="own")).hash == shards.hash
    with pytest.raises(ValueError, match="exists: name a new folder"):
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
    whole = datasets.Dataset.from_list(
        [{"content": f"record {i} says {i * i}", "meta": {"set": "ab"[i % 2]}} for i in range(90)]
    )
    shuffled = whole.to_iterable_dataset().shuffle(seed=1, buffer_size=20)
    kinds = {"whole": whole, "stream": whole.to_iterable_dataset(), "shuffled": shuffled}
    found = {
        name: write(kind, tmp_path / name, tokenizer="byte", field="content", domain="meta.set")
        for name, kind in kinds.items()
    }
    assert len({shards.hash for shards in found.values()}) == 1 and found["whole"].domains == [
        "a",
        "b",
    ]
    with pytest.raises(
        ValueError,
        match="record 0 is str, not a dict of fields; of a dataset in splits, give one split",
    ):
        write(datasets.DatasetDict({"train": whole}), tmp_path / "splits", tokenizer="byte")


def test_another_field_is_other_data(tmp_path):
    path = tmp_path / "two.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"one {i}", "note": f"two {i}"}) + "\n" for i in range(9))
    )
    first, second = (
        prepare(Data(source=str(path), tokenizer="byte", field=field), tmp_path)
        for field in ("text", "note")
    )
    assert (
        all(text.startswith("two") for text in texts(second.train, second))
        and first.hash != second.hash
    )
