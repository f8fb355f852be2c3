"""tokenizer.json gives the same ids (mirrors scalejax/data/tokenizer_json.py)."""

import importlib.util
import io
import json
import random

import pytest
from sentencepiece import SentencePieceTrainer

from scalejax.data.tokenizer_json import tokenizer_files
from scalejax.data.tokenizers import Bytes, HuggingFace, SentencePiece, train_bpe

ODD_TEXTS = [
    "plain",
    "  two blanks  ",
    "a\n\nb\n",
    "tab\tand\xa0space",
    "naïve café",
    "日本語 🙂",
    "</s> <unk> <0x41>",
    "aaaaaaa",
    "\u2581",
]
WORDS = "the scaling law model token loss width depth batch rate trunk branch aa aaa"

MISSING = importlib.util.find_spec("transformers") is None
needs_transformers = [
    pytest.mark.hf,
    pytest.mark.skipif(MISSING, reason="transformers not installed: pip install 'scalejax[hf]'"),
    pytest.mark.filterwarnings("default"),
]


def documents():
    rng = random.Random(0)
    words = WORDS.split()
    return [" ".join(rng.choices(words, k=80)) + ".\nA second line é." for _ in range(60)]


def noise(count=300):
    rng = random.Random(1)
    return ["".join(rng.choices("abehlorstw  \n.é", k=rng.randint(1, 60))) for _ in range(count)]


@pytest.fixture(scope="module")
def bpe():
    return train_bpe(documents(), pieces=340)


def test_merges_are_in_the_order_of_their_scores(bpe):
    model = json.loads(tokenizer_files(bpe)["tokenizer.json"])["model"]
    joined = ["".join(pair) for pair in model["merges"]]
    assert len(set(joined)) > 20 and all(piece in model["vocab"] for piece in joined)
    ids = [model["vocab"][piece] for piece in joined]
    assert ids == sorted(ids), (
        "SentencePiece numbers BPE pieces in the order in which it learned them"
    )


def test_a_unigram_model_or_one_that_changes_text_is_refused():
    for changes in (
        {"model_type": "unigram"},
        {"add_dummy_prefix": True},
        {"normalization_rule_name": "nmt_nfkc"},
    ):
        settings = dict(
            model_type="bpe",
            byte_fallback=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            vocab_size=300,
        )
        model = io.BytesIO()
        SentencePieceTrainer.train(
            sentence_iterator=iter(documents()),
            model_writer=model,
            minloglevel=2,
            **{**settings, "normalization_rule_name": "identity", **changes},
        )
        with pytest.raises(ValueError, match=r"no equal tokenizer\.json"):
            tokenizer_files(SentencePiece(model.getvalue()))


class TestTransformers:
    pytestmark = needs_transformers

    @pytest.mark.parametrize("kind", ["bpe", "bytes", "tokenizer.json"])
    def test_transformers_gives_the_same_ids_and_the_text_back(self, kind, bpe, tmp_path):
        from transformers import AutoTokenizer  # pyright: ignore[reportMissingImports]

        own = {
            "bpe": bpe,
            "bytes": Bytes(),
            "tokenizer.json": HuggingFace(tokenizer_files(bpe)["tokenizer.json"]),
        }[kind]
        for name, content in tokenizer_files(own).items():
            (tmp_path / name).write_bytes(content)
        loaded = AutoTokenizer.from_pretrained(tmp_path)
        texts = [*ODD_TEXTS, *documents(), *noise()]
        for text, ids in zip(texts, own.encode(texts), strict=True):
            assert loaded(text)["input_ids"] == ids.tolist(), repr(text)
            assert loaded.decode(ids.tolist()) == own.decode(ids), repr(text)
        assert loaded.eos_token_id == own.end and len(loaded) == own.vocabulary
