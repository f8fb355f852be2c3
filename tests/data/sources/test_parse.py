"""One function reads `Data.source` (mirrors scalejax/data/sources/parse.py)."""

import numpy as np
import pytest

from scalejax.data.preparation import write
from scalejax.data.sources.corpora import PackagedCorpus
from scalejax.data.sources.parse import parse_source
from scalejax.data.sources.prepared_shards import PreparedShards
from scalejax.data.sources.seqio_tasks import SeqioTask
from scalejax.data.sources.synthetic import Language, SyntheticSource
from scalejax.data.sources.text_files import TextFiles
from scalejax.data.sources.tfds_builders import TfdsBuilder
from scalejax.data.sources.token_files import TokenFiles


def test_names_are_parsed_without_looking_for_what_they_name():
    for name in ("english", "mini", "mini:code", "mini:documentation"):
        assert parse_source(name) == PackagedCorpus(name)
    assert parse_source("synthetic:64") == SyntheticSource("synthetic:64", Language(64))
    assert parse_source("seqio:my.tasks:squares:1") == SeqioTask(
        "seqio:my.tasks:squares:1", "my.tasks", "squares:1"
    )
    assert parse_source("tfds:c4/en:3.1.0") == TfdsBuilder("tfds:c4/en:3.1.0", "c4/en:3.1.0")


def test_the_files_at_a_path_decide_its_kind(tmp_path):
    text, ids, shards = tmp_path / "text", tmp_path / "ids", tmp_path / "shards"
    text.mkdir()
    ids.mkdir()
    np.arange(9, dtype=np.uint16).tofile(ids / "train.bin")
    # Prepared shards have a train.bin, too.
    write(({"text": f"document {i}"} for i in range(9)), shards, tokenizer="byte")
    assert parse_source(str(text)) == TextFiles(str(text), text)
    assert parse_source(str(ids)) == TokenFiles(str(ids), ids)
    assert parse_source(str(ids / "train.bin")) == TokenFiles(
        str(ids / "train.bin"), ids / "train.bin"
    )
    assert parse_source(str(shards)) == PreparedShards(str(shards), shards)


def test_a_folder_of_shards_comes_before_a_corpus_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(({"text": f"document {i}"} for i in range(9)), tmp_path / "english", tokenizer="byte")
    assert isinstance(parse_source("english"), PreparedShards)


def test_a_name_that_is_nothing_is_refused_with_the_kinds_of_source():
    with pytest.raises(
        ValueError,
        match=r"'englsh' is not a known source, .* use `english`, `mini`, .*synthetic:V.* path",
    ):
        parse_source("englsh")


@pytest.mark.parametrize("symbols", ["", "many", "3", "1000", "-8"])
def test_a_synthetic_language_needs_a_number_of_symbols_in_its_range(symbols):
    with pytest.raises(ValueError, match=r"`synthetic:|between 4 and 128"):
        parse_source(f"synthetic:{symbols}")


@pytest.mark.parametrize("name", ["seqio:", "seqio:module", "seqio::task", "seqio:module:"])
def test_a_seqio_source_needs_a_module_and_a_task(name):
    with pytest.raises(ValueError, match="`seqio:MODULE:TASK`"):
        parse_source(name)
