"""A scalejax model as a model of lm-eval (EleutherAI's lm-evaluation-harness)."""

from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
from lm_eval.utils import (  # pyright: ignore[reportMissingImports]
    get_rolling_token_windows,
    make_disjoint_window,
)

from scalejax.data.tokenizers import Tokenizer
from scalejax.evaluation.scoring import Likelihoods, SpanScorer, prefers_packing, score


class LanguageModel(TemplateLM):
    """A model that `lm_eval.simple_evaluate` can score.

    Pass `bootstrap_iters=0` there. The model supports tasks that are scored by
    log-likelihood, and scores them with scoring.py. Context and continuation are
    encoded together, as lm-eval does. An empty context becomes the end-of-document
    token, which precedes every document in training. A context too long for the window
    loses its beginning. Use it from a single process.
    """

    def __init__(
        self,
        span_scorer: SpanScorer,
        tokenizer: Tokenizer,
        *,
        window: int,
        batch_multiple: int = 1,
    ):
        super().__init__()
        # lm-eval expects a transformers tokenizer here and uses it for chat templates.
        self.tokenizer = None
        self._span_scorer = span_scorer
        self._tokenizer = tokenizer
        self._window = window
        self._batch_multiple = batch_multiple

    @property
    def eot_token_id(self) -> int:
        """Id of the end-of-document token."""
        return self._tokenizer.end

    @property
    def tokenizer_name(self) -> str:
        """Name under which lm-eval caches prompts."""
        return self._tokenizer.hash

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Token ids of a text. There are no special tokens to add."""
        return self._tokenizer.encode([string])[0].tolist()

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihoods of whole texts in nats.

        Windows predict every token once, with as much context as the window leaves.
        """
        windows = []
        for request in requests:
            rolling = get_rolling_token_windows(
                self.tok_encode(request.args[0]),
                prefix_token=self.eot_token_id,
                max_seq_len=self._window - 1,
                context_len=1,
            )
            windows.append([make_disjoint_window(pair) for pair in rolling])
        likelihoods = self._score([pair for pairs in windows for pair in pairs])
        values = iter(likelihoods.log_likelihood.tolist())
        return [sum(next(values) for _ in pairs) for pairs in windows]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Raise ValueError, because this model does not generate."""
        raise ValueError(
            "a scalejax model scores continuations and does not generate them; leave out "
            "generate_until tasks, or export the run (scalejax export RUN --out DIR) and use "
            "lm-eval's own `hf` model"
        )

    def _loglikelihood_tokens(self, requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        """lm-eval's hook: the (log-likelihood, greedy) of every request.

        requests: triples (texts, context, continuation); the latter two are token ids.
        """
        pairs = [(context, continuation) for _, context, continuation in requests]
        likelihoods = self._score(pairs)
        values = (likelihoods.log_likelihood.tolist(), likelihoods.greedy.tolist())
        return list(zip(*values, strict=True))

    def _score(self, pairs: list[tuple[list[int], list[int]]]) -> Likelihoods:
        arrays = (
            (np.asarray(context, np.int32), np.asarray(continuation, np.int32))
            for context, continuation in pairs
        )
        return score(
            self._span_scorer,
            arrays,
            window=self._window,
            batch_multiple=self._batch_multiple,
            packed=prefers_packing(),
        )
