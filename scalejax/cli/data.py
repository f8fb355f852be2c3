"""`scalejax data`: prepare a corpus, or look for test items in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from scalejax.cli import exit_codes


@dataclass(frozen=True, kw_only=True)
class Data:
    """Prepare a corpus for training, or look for test items in it."""

    # prepare cleans, deduplicates, splits and tokenizes the corpus, writes it as token
    # shards, once, and prints their folder. contamination lists which of --items share
    # 13 consecutive tokens with the training tokens.
    action: Positional[Literal["prepare", "contamination"]]

    # The corpus: english, mini, synthetic:V for a synthetic language of V symbols, or
    # the path of a text file, a .jsonl file (plain, .gz or .zst), a .parquet file, a
    # .bin file of token ids, prepared shards, or a folder of such files.
    source: str = "english"

    # A registered seqio Task or Mixture to use instead of --source, as MODULE:TASK. It
    # keeps its own vocabulary.
    seqio: str | None = None

    # A TensorFlow dataset to use instead of --source, as NAME/CONFIG:VERSION. Example:
    # c4/en:3.1.0.
    tfds: str | None = None

    # byte, bpe:V for V pieces trained on the corpus, own for the tokenizer that the
    # corpus brings, or the path of a SentencePiece model, a tokenizer.json, or a folder
    # with vocab.json and merges.txt. By default own for a corpus that brings one
    # (synthetic, seqio, prepared shards), and bpe:512 otherwise.
    tokenizer: str | None = None

    # Field of a record that holds its text.
    field: str = "text"

    # Field of a record that holds its domain. By default the domain is the first folder
    # below the source.
    domain: str = ""

    # Path of the held-out text: a file or folder as for --source. By default what a
    # folder calls validation is held out, or else 4% of the documents.
    validation: str = ""

    # Leave out records that cannot be used (empty, not JSON, without text) and say how
    # many there were. By default the first one ends the preparation.
    skip_bad: bool = False

    # New folder for the shards, which is then a source itself: Data(source=OUT,
    # tokenizer="own"). By default they go to the user's cache.
    out: Path | None = None

    # For contamination: .jsonl file with one test item per line, its text in --field.
    items: Path | None = None

    def run(self) -> int:
        from scalejax.cli.text.data import contamination_text
        from scalejax.config import Data as DataConfig
        from scalejax.data import preparation
        from scalejax.data.contamination import file_overlap
        from scalejax.data.sources.parse import parse_source

        source = self._source()
        default_tokenizer = "own" if parse_source(source).brings_tokenizer else "bpe:512"
        data = DataConfig(
            source=source,
            tokenizer=self.tokenizer or default_tokenizer,
            field=self.field,
            domain=self.domain,
            validation=self.validation,
            skip_bad=self.skip_bad,
        )
        if self.action == "contamination":
            if self.items is None:
                raise ValueError(
                    "scalejax data contamination needs test items; add --items FILE.jsonl, a "
                    "file with one item per line"
                )
            shards = preparation.prepare(data)
            overlap = file_overlap(shards, self.items, field=self.field)
            print(contamination_text(overlap, shards.manifest["source"]))
            return exit_codes.DONE
        prepared = preparation.export(data, self.out) if self.out else preparation.prepare(data)
        print(prepared.folder)
        return exit_codes.DONE

    def _source(self) -> str:
        """The value of `Data.source` that --source, --seqio or --tfds stands for."""
        if self.seqio and self.tfds:
            raise ValueError(
                f"--seqio {self.seqio} and --tfds {self.tfds} are two sources; give one of them"
            )
        if self.seqio:
            return f"seqio:{self.seqio}"
        return f"tfds:{self.tfds}" if self.tfds else self.source
