"""Corpora: two that prepare themselves, and how the published ones are read once they are on a disk.

Each published corpus is named with a folder of your own (`data/c4`); its shards are written once, when a run first asks for them.
"""

from scalejax import Data

ENGLISH = Data(source="english", tokenizer="bpe:512", sequence_length=128)
"""Wikipedia lead sections and Shakespeare, 5.3 M tokens. With 2,048 pieces, tiny models spend all they have on word
frequencies and no law fits; with 512 it does."""

MINI = Data(source="mini", tokenizer="bpe:2048", sequence_length=256)
"""Four domains, 28.7 M tokens: documentation (47%), code (39%), wiki and shakespeare (14% together), so that
`mixture="wiki=1,shakespeare=1,code=2"` repeats prose; `epochs` of a result tells how often."""

PREPARED = Data(source="data/prepared", tokenizer="own", sequence_length=512)
"""Your own corpus: `scalejax data prepare --source TEXT --tokenizer FILE --out data/prepared`."""

# Published corpora: files as they are downloaded, below the folder that `source` names; GPT-2's vocab.json and merges.txt beside.
GPT2 = "data/gpt2"

OPENWEBTEXT2 = Data(source="data/openwebtext2", tokenizer=GPT2, sequence_length=1_024)
"""OpenWebText2 (EleutherAI): 17.1 M documents, 69 GB of text, .jsonl.zst with `text` and `meta`. Its host the-eye.eu took it
down and the Hugging Face card is defunct: this reads a copy of your own. Terms: those of the web pages; the card says MIT."""

REFINEDWEB = Data(source="data/refinedweb", tokenizer=GPT2, sequence_length=1_024, field="content")
"""RefinedWeb, `tiiuae/falcon-refinedweb` on Hugging Face: 968 M documents, 2.8 TB of text, in 5,534 Parquet files (467 GB), text
in `content`. Licence: ODC-By 1.0, and Common Crawl's terms of use."""

C4 = Data(source="data/c4", tokenizer=GPT2, sequence_length=1_024)
"""C4, `allenai/c4` on Hugging Face, configuration `en`: 305 GB of .json.gz (JSON lines), text in `text`. `tfds:c4/en:3.1.0` reads
the same from tfds. Licence: ODC-By 1.0, and Common Crawl's terms of use."""

REDPAJAMA = Data(source="data/redpajama", tokenizer=GPT2, sequence_length=1_024)
"""RedPajama-1T, `togethercomputer/RedPajama-Data-1T`: 1.2 T tokens when published, 26 B fewer since its books were taken down; a
list of urls of its .jsonl(.zst) files is at data.together.xyz/redpajama-data-1T/v1.0.0/urls.txt (the loader script on Hugging
Face does not run under `datasets` 4). Keep a folder for each subset (`arxiv/`, `c4/`, ..): it is the domain. Licences are those
of the subsets."""

SLIMPAJAMA = Data(
    source="data/slimpajama",
    tokenizer=GPT2,
    sequence_length=1_024,
    domain="meta.redpajama_set_name",
)
"""SlimPajama (Cerebras), deduplicated RedPajama: 627 B tokens, 59,166 files .jsonl.zst (895 GB), the domain in `meta`. Was
`cerebras/SlimPajama-627B` on Hugging Face; not found there since February 2026, so this reads a copy of your own. Licences are
those of the subsets."""
