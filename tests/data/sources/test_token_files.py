"""Token files are used as they are (mirrors scalejax/data/sources/token_files.py)."""

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
    held_out.tofile(tmp_path / "train.bin")
    shards = prepare(Data(source=str(tmp_path), tokenizer="byte"))
    ends = [*shards.validation_starts[1:], len(held_out)]
    spans = zip(shards.validation_starts, ends, strict=True)
    decode = shards.tokenizer().decode
    assert [decode(shards.validation[start:stop].tolist()) for start, stop in spans] == texts


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
