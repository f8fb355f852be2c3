"""Corpora."""

from scalejax import Data

ENGLISH = Data(source="english", tokenizer="bpe:512", sequence_length=128)
"""Wikipedia lead sections and Shakespeare, 5.3 M tokens. With 2,048 pieces, tiny models spend all they have on word
frequencies and no law fits; with 512 it does."""

PREPARED = Data(source="data/prepared", tokenizer="own", sequence_length=512)
"""Your own corpus: `scalejax data prepare --source TEXT --tokenizer FILE --out data/prepared`."""
