"""Corpora: two that download themselves, and how to read published ones from disk.

A published corpus is read from a folder of your own, such as `data/c4`, which holds the
files as they are downloaded. Its shards are written when a run first needs them.
"""

from scalejax import Data

# Wikipedia lead sections and Shakespeare, 5.3 M tokens. The vocabulary is small on
# purpose: with 2,048 pieces, tiny models spend all their capacity on word frequencies
# and no law fits.
ENGLISH = Data(source="english", tokenizer="bpe:512", sequence_length=128)

# Four domains, 28.7 M tokens: documentation (47%), code (39%), wiki and shakespeare
# (14% together). A mixture such as "wiki=1,shakespeare=1,code=2" repeats the prose; the
# `epochs` of a result say how often.
MINI = Data(source="mini", tokenizer="bpe:2048", sequence_length=256)

# Two of its domains, each a corpus of its own, with pieces as small as those of
# ENGLISH.
CODE = Data(source="mini:code", tokenizer="bpe:512", sequence_length=128)
DOCUMENTATION = Data(source="mini:documentation", tokenizer="bpe:512", sequence_length=128)

# Your own corpus, written by
# `scalejax data prepare --source TEXT --tokenizer FILE --out data/prepared`.
PREPARED = Data(source="data/prepared", tokenizer="own", sequence_length=512)

# The folder of GPT-2's vocab.json and merges.txt, which tokenize the corpora below.
GPT2 = "data/gpt2"

# OpenWebText2 (EleutherAI): 17.1 M documents, 69 GB of text, .jsonl.zst with the fields
# `text` and `meta`. Its host the-eye.eu took it down and the Hugging Face card is
# defunct, so you need a copy of your own. Terms: those of the web pages; the card says
# MIT.
OPENWEBTEXT2 = Data(source="data/openwebtext2", tokenizer=GPT2, sequence_length=1_024)

# RefinedWeb, `tiiuae/falcon-refinedweb` on Hugging Face: 968 M documents, 2.8 TB of
# text, in 5,534 Parquet files (467 GB), with the text in `content`. Licence: ODC-By
# 1.0, and Common Crawl's terms of use.
REFINEDWEB = Data(source="data/refinedweb", tokenizer=GPT2, sequence_length=1_024, field="content")

# C4, `allenai/c4` on Hugging Face, configuration `en`: 305 GB of .json.gz (JSON lines),
# with the text in `text`. `tfds:c4/en:3.1.0` reads the same from tfds. Licence: ODC-By
# 1.0, and Common Crawl's terms of use.
C4 = Data(source="data/c4", tokenizer=GPT2, sequence_length=1_024)

# RedPajama-1T, `togethercomputer/RedPajama-Data-1T`: 1.2 T tokens when it was
# published, 26 B fewer since its books were taken down. The URLs of its .jsonl(.zst)
# files are listed at data.together.xyz/redpajama-data-1T/v1.0.0/urls.txt; the loader
# script on Hugging Face does not run under `datasets` 4. Keep one folder per subset
# (`arxiv/`, `c4/`, ...), because the folder is the domain. Licences are those of the
# subsets.
REDPAJAMA = Data(source="data/redpajama", tokenizer=GPT2, sequence_length=1_024)

# SlimPajama (Cerebras), deduplicated RedPajama: 627 B tokens, 59,166 files .jsonl.zst
# (895 GB), with the domain in `meta`. It was `cerebras/SlimPajama-627B` on Hugging Face
# and has not been found there since February 2026, so you need a copy of your own.
# Licences are those of the subsets.
SLIMPAJAMA = Data(
    source="data/slimpajama",
    tokenizer=GPT2,
    sequence_length=1_024,
    domain="meta.redpajama_set_name",
)

# FineWeb, `HuggingFaceFW/fineweb` on Hugging Face: 15 T tokens of web text in Parquet
# files, with the text in `text`. Its samples of 10 B, 100 B and 350 B tokens are enough
# for a study. Licence: ODC-By 1.0, and Common Crawl's terms of use.
FINEWEB = Data(source="data/fineweb", tokenizer=GPT2, sequence_length=1_024)
