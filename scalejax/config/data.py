"""The tokens that a run reads."""

import math
from dataclasses import dataclass
from dataclasses import field as dataclass_field

from scalejax.config.checks import check_choice, check_text, require, set_flag, set_integer
from scalejax.config.model import ADDED_LATER

PACKINGS = ("concatenate", "documents")


@dataclass(frozen=True, kw_only=True)
class Data:
    """The corpus, its tokenizer, and how sequences are cut from it.

    The content hash of the prepared shards is recorded with every result.
    """

    source: str = "english"
    """What is read:

    - `english`, the default corpus;
    - `mini`, a larger corpus with code and documentation, which `mini:code` and
      `mini:documentation` read by themselves;
    - `synthetic:V`, random text over V symbols with a known entropy rate;
    - `seqio:MODULE:TASK` or `tfds:NAME/CONFIG:VERSION`;
    - the path of a file or folder of .txt, .md, .jsonl (plain, .gz or .zst), .parquet
      or .array_record;
    - the path of a .bin file of token ids, or a folder with train.bin and val.bin;
    - the path of a folder of prepared shards.
    """
    tokenizer: str = "bpe:512"
    """How text becomes token ids:

    - `byte`;
    - `bpe:V`, a SentencePiece BPE model of V pieces, trained on the train split;
    - the path of a SentencePiece model, of a Hugging Face tokenizer.json, or of a
      folder with GPT-2's vocab.json and merges.txt;
    - `ids:V` for .bin files with V different ids and no tokenizer;
    - `own` for sources that bring their own: `synthetic`, `seqio`, prepared shards.
    """
    sequence_length: int = 128
    """Tokens per training sequence."""
    field: str = "text"
    """Name of the field that holds the text of a record."""
    domain: str = ""
    """Name of the field that holds the domain of a record; `meta.set` names a nested
    field. Empty: the domain of a file is the first folder below `source` on its path;
    in `mini` it is the package that the file comes from."""
    mixture: str = ""
    """Fractions of the training sequences that come from each domain, such as
    `wiki=2,code=1`; they are normalized. Empty: every window of the corpus is read
    equally often."""
    packing: str = "concatenate"
    """`concatenate`: attention crosses document boundaries. `documents`: it does not,
    and the `inputs` of seqio tasks are masked from the loss."""
    validation: str = dataclass_field(default="", metadata=ADDED_LATER)
    """Path of the held-out text: a file or folder as for `source`, or a .bin file for a
    source of .bin files. Empty: what a folder calls `validation` is held out, or else
    4% of the documents."""
    skip_bad: bool = dataclass_field(default=False, metadata=ADDED_LATER)
    """Leave out records that cannot be used (empty, not JSON, without text) and count
    them. By default the first one ends the preparation."""

    def __post_init__(self):
        for name in ("source", "tokenizer", "field", "domain", "mixture", "validation"):
            check_text(self, name)
        require(
            bool(self.source),
            "Data.source must not be empty; give `english`, `synthetic:V` or a path",
        )
        require(
            bool(self.tokenizer),
            "Data.tokenizer must not be empty; give `byte`, `bpe:V`, `own` or the path of a "
            "tokenizer",
        )
        require(
            bool(self.field),
            "Data.field must not be empty; give the name of the field that holds the text of "
            "a record, usually `text`",
        )
        set_integer(self, "sequence_length", 2)
        check_choice(self, "packing", PACKINGS)
        set_flag(self, "skip_bad")
        # Blanks around a name mean nothing, so they must not make another run.
        items = [item.rpartition("=") for item in self.mixture.split(",")]
        mixture = ",".join(name.strip() + equals + weight.strip() for name, equals, weight in items)
        object.__setattr__(self, "mixture", mixture)
        # Parsing the mixture raises an error if it is malformed.
        _ = self.weights

    @property
    def weights(self) -> dict[str, float]:
        """The mixture as fractions that sum to 1; empty if there is no mixture.

        >>> Data(mixture="wiki=3,code=1").weights
        {'wiki': 0.75, 'code': 0.25}
        """
        weights: dict[str, float] = {}
        for item in filter(None, self.mixture.split(",")):
            # A domain may contain "=": the last one separates it from its weight.
            name, _, number = item.rpartition("=")
            try:
                weight = float(number)
            except ValueError:
                weight = math.nan
            require(
                bool(name) and name not in weights and 0 < weight < math.inf,
                "Data.mixture must be DOMAIN=WEIGHT,... with weights above 0 and each domain "
                f"once; got {self.mixture!r}",
            )
            weights[name] = weight
        return {name: weight / sum(weights.values()) for name, weight in weights.items()}
