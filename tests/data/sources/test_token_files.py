"""Token files are used as they are (mirrors scalejax/data/sources/token_files.py)."""

import dataclasses

import numpy as np
import pytest

from scalejax.config import Data
from scalejax.data.preparation import epochs, export, prepare
from scalejax.data.tokenizers import Bytes


def ids(count: int, vocabulary: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocabulary, count)


def test_a_nanogpt_folder_is_a_source(tmp_path):
    train, held_out = ids(5_000, 50_257), ids(3_000, 50_257, 1)
    train.astype(np.uint16).tofile(tmp_path / "train.bin")
    held_out.astype(np.uint16).tofile(tmp_path / "val.bin")
    data = Data(source=str(tmp_path), tokenizer="ids:50257")
    shards = prepare(data)
    assert np.array_equal(shards.train, train) and np.array_equal(shards.validation, held_out)
    assert isinstance(shards.train, np.memmap) and shards.vocabulary == 50_257
    assert shards.validation_starts.tolist() == [0, 1_024, 2_048]
    assert not shards.validation_bytes.any()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["train.bin", "val.bin"], "something was written"
    assert epochs(data, 1_000) is None
    with pytest.raises(ValueError, match="no tokenizer"):
        shards.tokenizer()
    with pytest.raises(ValueError, match="need no preparation"):
        export(data, tmp_path / "out")


def test_more_than_65_536_ids_take_four_bytes_and_a_single_file_holds_out_its_end(tmp_path):
    tokens = ids(10_000, 100_000)
    tokens.astype(np.uint32).tofile(tmp_path / "x.bin")
    shards = prepare(Data(source=str(tmp_path / "x.bin"), tokenizer="ids:100000"))
    assert np.array_equal(np.concatenate([shards.train, shards.validation]), tokens)
    assert len(shards.validation) == 400


@pytest.mark.parametrize("leading_end", [False, True])
def test_with_a_tokenizer_the_end_token_separates_documents(tmp_path, leading_end):
    texts = ["one text", "and two", "three"]
    documents = [[*Bytes().encode([text])[0], 256] for text in texts]
    held_out = np.concatenate([[256] if leading_end else [], *documents]).astype(np.uint16)
    held_out.tofile(tmp_path / "val.bin")
    held_out[::-1].tofile(tmp_path / "train.bin")
    shards = prepare(Data(source=str(tmp_path), tokenizer="byte"))
    ends = [*shards.validation_starts[1:], len(held_out)]
    spans = zip(shards.validation_starts, ends, strict=True)
    decode = shards.tokenizer().decode
    assert [decode(shards.validation[start:stop].tolist()) for start, stop in spans] == texts


def test_held_out_ids_that_are_a_copy_of_the_others_are_refused(tmp_path):
    for name in ("train.bin", "val.bin", "copy.bin"):
        ids(999, 256).astype(np.uint16).tofile(tmp_path / name)
    folder = Data(source=str(tmp_path), tokenizer="ids:256")
    file = dataclasses.replace(
        folder, source=str(tmp_path / "train.bin"), validation=str(tmp_path / "copy.bin")
    )
    for data in (folder, file):
        with pytest.raises(ValueError, match=r"train.bin and .*\.bin hold the same ids"):
            prepare(data)


def test_the_hash_follows_the_content_and_the_vocabulary(tmp_path):
    path = tmp_path / "x.bin"
    tokens = ids(999, 256).astype(np.uint16)
    tokens.tofile(path)
    hashes = [
        prepare(Data(source=str(path), tokenizer=name)).hash for name in ("byte", "ids:257", "byte")
    ]
    assert hashes[0] == hashes[2] != hashes[1]
    tokens[5] ^= 1
    tokens.tofile(path)
    assert prepare(Data(source=str(path), tokenizer="byte")).hash != hashes[0]


@pytest.mark.parametrize(
    ("vocabulary", "stored", "named"),
    [
        (257, "int32", "int32"),
        (257, "int64", "int64"),
        (257, "uint32", "int32"),
        (100_000, "int64", "int64"),
    ],
)
def test_ids_of_a_wider_dtype_are_refused_and_the_dtype_is_named(
    tmp_path, vocabulary, stored, named
):
    path, tokens = tmp_path / "x.bin", ids(5_000, vocabulary)
    tokens.astype(stored).tofile(path)
    data = Data(source=str(path), tokenizer=f"ids:{vocabulary}")
    with pytest.raises(ValueError, match=rf"x\.bin looks like {named}: .* convert the file"):
        prepare(data)
    # Many zeros are no reason to refuse ids of the right dtype.
    right = np.dtype("uint16" if vocabulary == 257 else "uint32")
    (tokens * (np.arange(5_000) % 3 > 0)).astype(right).tofile(path)
    assert len(prepare(data).train) == 4_800


def test_a_file_with_a_header_is_refused(tmp_path):
    tokens, path = ids(5_000, 257).astype(np.uint16), tmp_path / "x.bin"
    header = np.zeros(256, np.int32)
    header[:3] = 20240520, 1, len(tokens)
    path.write_bytes(header.tobytes() + tokens.tobytes())
    # Every number of the header is a valid id of this vocabulary.
    with pytest.raises(ValueError, match=r"x\.bin begins with the header of an llm\.c token file"):
        prepare(Data(source=str(path), tokenizer="ids:65536"))
    with path.open("wb") as file:
        np.save(file, tokens)
    with pytest.raises(ValueError, match=r"header of a NumPy \.npy file; .* write the ids alone"):
        prepare(Data(source=str(path), tokenizer="ids:65536"))


def test_another_file_can_be_named_as_held_out(tmp_path):
    train, held_out = ids(5_000, 257), ids(300, 257, 1)
    for name, tokens in (("a.bin", train), ("b.bin", held_out)):
        tokens.astype(np.uint16).tofile(tmp_path / name)
    data = Data(source=str(tmp_path / "a.bin"), tokenizer="byte")
    named = dataclasses.replace(data, validation=str(tmp_path / "b.bin"))
    shards = prepare(named)
    assert np.array_equal(shards.train, train) and np.array_equal(shards.validation, held_out)
    assert len(prepare(data).train) == 4_800
    with pytest.raises(ValueError, match=r"must be another \.bin file"):
        prepare(dataclasses.replace(data, validation=data.source))


def test_files_that_are_not_token_files_are_refused_with_file_and_position(tmp_path):
    path = tmp_path / "x.bin"
    tokens = ids(99, 256).astype(np.uint16)
    tokens[17] = 300
    tokens.tofile(path)
    with pytest.raises(
        ValueError, match=r"x\.bin holds id 300 at token 17; its vocabulary ends at 256"
    ):
        prepare(Data(source=str(path), tokenizer="byte"))
    path.write_bytes(bytes(99))
    with pytest.raises(
        ValueError, match=r"x\.bin has 99 bytes, which is not a whole number of uint16 ids"
    ):
        prepare(Data(source=str(path), tokenizer="byte"))
    with pytest.raises(ValueError, match="trained on text"):
        prepare(Data(source=str(path), tokenizer="bpe:512"))
    with pytest.raises(ValueError, match="write `ids:V` with a whole number V of at least 2"):
        prepare(Data(source=str(path), tokenizer="ids:many"))
    path.rename(tmp_path / "train.bin")
    with pytest.raises(ValueError, match=r"holds train\.bin and no val\.bin"):
        prepare(Data(source=str(tmp_path), tokenizer="byte"))
    with pytest.raises(ValueError, match="does not exist"):
        prepare(Data(source=str(path), tokenizer="byte"))
