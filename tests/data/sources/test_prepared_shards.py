"""Folders of shards are sources (mirrors scalejax/data/sources/prepared_shards.py)."""

import pytest

from scalejax.config import Data
from scalejax.data.preparation import prepare


def test_a_folder_of_shards_is_a_source_with_its_own_tokenizer(data, cache):
    shards = prepare(data, cache)
    source = str(shards.folder)
    assert prepare(Data(source=source, tokenizer="own")).hash == shards.hash
    with pytest.raises(ValueError, match="set tokenizer='own'"):
        prepare(Data(source=source, tokenizer="byte"))
