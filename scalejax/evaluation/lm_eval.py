"""A model here as a model of lm-eval (EleutherAI's lm-evaluation-harness), scored by scoring.py."""

from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # pyright: ignore[reportMissingImports]

from scalejax.data.tokenizers import Tokenizer
from scalejax.evaluation.scoring import Likelihoods, SpanScores, packs, score


class LanguageModel(TemplateLM):
    """`lm_eval.simple_evaluate(model=LanguageModel(..), ..)`: tasks by log-likelihood; pass `bootstrap_iters=0`.

    Context and continuation are encoded together, as lm-eval does; an empty context is the end-of-document token, which precedes
    every document in training. A context too long for the window loses its beginning. Only one process may ask.
    """

    def __init__(
        self, span_scores: SpanScores, tokenizer: Tokenizer, *, window: int, multiple: int = 1
    ):
        super().__init__()
        self.tokenizer = None  # of transformers: there is none, and no chat template
        self._span_scores, self._tokenizer, self._window, self._multiple = (
            span_scores,
            tokenizer,
            window,
            multiple,
        )

    @property
    def eot_token_id(self) -> int:
        """The end-of-document token."""
        return self._tokenizer.end

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval keeps cached prompts apart by."""
        return self._tokenizer.hash

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Ids of a text; there are no special tokens to add."""
        return self._tokenizer.encode([string])[0].tolist()

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts in nats, in windows that predict every token once with as much context as there is."""
        windows = []
        for text in (request.args[0] for request in requests):
            rolling = get_rolling_token_windows(
                self.tok_encode(text),
                prefix_token=self.eot_token_id,
                max_seq_len=self._window - 1,
                context_len=1,
            )
            windows.append([make_disjoint_window(pair) for pair in rolling])
        found = iter(
            self._score([pair for pairs in windows for pair in pairs]).log_likelihood.tolist()
        )
        return [sum(next(found) for _ in pairs) for pairs in windows]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Raises ValueError: models here score, they do not generate."""
        raise ValueError(
            "a scalejax model scores continuations and generates none: leave generate_until tasks out, or export the run "
            "(scalejax export RUN --out DIR) and use lm-eval's own `hf` model"
        )

    def _loglikelihood_tokens(self, requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        found = self._score([(context, continuation) for _, context, continuation in requests])
        return list(zip(found.log_likelihood.tolist(), found.greedy.tolist(), strict=True))

    def _score(self, pairs: list[tuple[list[int], list[int]]]) -> Likelihoods:
        arrays = (
            (np.asarray(context, np.int32), np.asarray(continuation, np.int32))
            for context, continuation in pairs
        )
        return score(
            self._span_scores, arrays, window=self._window, multiple=self._multiple, packed=packs()
        )
