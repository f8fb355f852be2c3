"""The language `synthetic:V`: a Markov chain whose entropy rate is known exactly."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from scalejax.config import Data
from scalejax.data.progress import say
from scalejax.data.shards import VALIDATION_DOCUMENTS, Contents
from scalejax.data.sources.source import CachedSource

SEED = 2022

# Exponent of the order-0 frequencies. Most symbols, and so most contexts, are rare.
ZIPF = 1.0

# Strength, in nats, with which the symbol one back and the symbol two back change the
# odds of the next symbol. With these, the loss falls by half from order 0 to order 2.
STRENGTHS = (1.5, 1.0)

# Exponent of the strengths of the directions. What a narrow model leaves out then falls
# as a power law of its width.
SPECTRUM = 0.75

# Streams are drawn side by side, which vectorizes the loop over time. Each is so long
# that the seams between streams cost a model nothing that can be measured.
STREAMS = 512
STREAM_TOKENS = 16_384
HELD_OUT_STREAMS = 16
TRAIN_TOKENS = STREAMS * STREAM_TOKENS

# The language has no documents. Standard errors of the held-out loss treat blocks of
# this many tokens as documents.
DOCUMENT_TOKENS = 1_024


@dataclass(frozen=True)
class Language:
    """A Markov chain of order 2 over V symbols.

    The symbol x follows the pair (a, b) with

        log p(x | a, b) = -z log x + c1 t1(b, x) + c2 t2(a, x) + constant.

    Order 0 is Zipf's law: contexts have power-law frequencies, and the loss falls
    smoothly as a model sees more of them. Orders 1 and 2 are tables

        t(b, x) = sum_k k^-s u_k(b) v_k(x), with standard normal u and v.

    These are V directions of power-law strength, of which a narrow model learns the
    first few, so the loss falls smoothly with model size too. Small transformers come
    within 0.03 nats of the entropy rate after 2.4 M tokens of `synthetic:64`, so runs
    of minutes determine its irreducible loss well.
    """

    symbols: int
    """Number of symbols, V."""

    def __post_init__(self):
        if not 4 <= self.symbols <= 128:
            raise ValueError(
                f"`synthetic:{self.symbols}` has {self.symbols} symbols; use between 4 and 128"
            )

    def transitions(self) -> np.ndarray:
        """float64 [V, V, V]: the probability of x after the pair (a, b)."""
        V = self.symbols
        rng = np.random.default_rng([SEED, V])
        directions = np.arange(1.0, V + 1) ** -SPECTRUM
        one_back, two_back = (
            rng.standard_normal((V, V)) * directions @ rng.standard_normal((V, V))
            for _ in STRENGTHS
        )
        zipf = -ZIPF * np.log(np.arange(1, V + 1))
        p = np.exp(zipf + STRENGTHS[0] * one_back[None] + STRENGTHS[1] * two_back[:, None])
        return p / p.sum(axis=2, keepdims=True)

    def stationary(self, tolerance: float = 1e-14) -> np.ndarray:
        """float64 [V, V]: the long-run frequency of the pair (a, b).

        Power iteration until the L1 change is at most `tolerance`.
        """
        p = self.transitions()
        pairs = np.full((self.symbols, self.symbols), self.symbols**-2.0)
        change = 1.0
        while change > tolerance:
            following = np.einsum("ab,abx->bx", pairs, p)
            following /= following.sum()
            change = np.abs(following - pairs).sum()
            pairs = following
        return pairs

    def entropy_rate(self) -> float:
        """Exact entropy rate, nats per token.

        No model can have a lower expected loss. With stationary frequencies pi, it is

            -sum over (a, b, x) of pi(a, b) p(x | a, b) log p(x | a, b).

        The first target of a window is predicted from one symbol instead of two. Over
        windows of length n, the lowest possible loss is therefore higher by
        (order-1 entropy - entropy rate) / n: 0.004 for `synthetic:64` at n = 128.

        >>> round(Language(8).entropy_rate(), 3)
        0.804
        """
        p = self.transitions()
        return float(-(self.stationary()[:, :, None] * p * np.log(p)).sum())

    def draw(self, streams: int, tokens: int, seed: int) -> np.ndarray:
        """uint16 [streams, tokens]: independent stationary streams."""
        V = self.symbols
        rng = np.random.default_rng([SEED, V, seed])
        # Inverse-CDF sampling with one sorted table for all pairs: the cumulative
        # probabilities of pair r lie between r and r + 1, so one searchsorted of
        # `pair + uniform` finds the next symbol of every stream.
        cumulative = np.cumsum(self.transitions().reshape(V * V, V), axis=1)
        cumulative[:, -1] = 1.0
        table = (cumulative + np.arange(V * V)[:, None]).ravel()
        first = rng.choice(V * V, size=streams, p=self.stationary().ravel())
        out = np.empty((tokens, streams), np.uint16)
        out[0], out[1] = first // V, first % V
        pair = first
        for t in range(2, tokens):
            symbol = np.searchsorted(table, pair + rng.random(streams), side="right") - pair * V
            out[t] = symbol
            pair = pair % V * V + symbol
        return out.T

    def splits(self) -> dict[str, np.ndarray]:
        """The tokens of `train` and `validation`: different streams of one draw."""
        streams = self.draw(STREAMS + HELD_OUT_STREAMS, STREAM_TOKENS, seed=0)
        return {"train": streams[:STREAMS].ravel(), "validation": streams[STREAMS:].ravel()}


@dataclass(frozen=True)
class SyntheticSource(CachedSource):
    """`synthetic:V`: tokens drawn from a `Language` of V symbols."""

    language: Language

    brings_tokenizer: ClassVar[bool] = True

    def fingerprint(self) -> str:
        """Hash of everything that decides the tokens."""
        sizes = (STREAMS, HELD_OUT_STREAMS, STREAM_TOKENS, DOCUMENT_TOKENS)
        decisive = (self.language.symbols, SEED, ZIPF, STRENGTHS, SPECTRUM, sizes)
        return hashlib.sha256(repr(decisive).encode()).hexdigest()

    def write(self, data: Data, folder: Path, cache: Path) -> Contents:
        """Draw and write the tokens. There is no text, so document sizes are 0."""
        say(f"preparing {self.name}: drawing {TRAIN_TOKENS:,} tokens")
        splits = self.language.splits()
        for split, tokens in splits.items():
            tokens.astype(np.uint16).tofile(folder / f"{split}.bin")
        starts = np.arange(0, len(splits["validation"]), DOCUMENT_TOKENS)
        index = np.stack([starts, np.zeros_like(starts)], axis=1)
        index.astype(np.int64).tofile(folder / VALIDATION_DOCUMENTS)
        counts = {split: len(tokens) for split, tokens in splits.items()}
        return {
            "licence": "CC0-1.0",
            "attribution": "drawn by scalejax",
            "tokenizer": {"name": "own", "hash": None, "end": None},
            "vocabulary": self.language.symbols,
            "dtype": "uint16",
            "duplicates_dropped": 0,
            "documents": {split: -(-count // DOCUMENT_TOKENS) for split, count in counts.items()},
            "bytes": dict.fromkeys(splits, 0),
            "tokens": counts,
            "domains": {"synthetic": counts},
            "shares": {},
            "entropy_rate": self.language.entropy_rate(),
        }
