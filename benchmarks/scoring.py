"""How fast multiple-choice items are scored, compilation included.

    python benchmarks/scoring.py

The quickstart's model of width 64 scores 1,000 items of four choices. Context and
continuation have 20 to 128 tokens together, evenly spread. The baseline, `one at a
time`, pads every choice to the window and calls the same program for one choice per
call; the first 200 choices are timed and scaled up. It must choose the same answers
before a time is printed. Time is the CPU time of this process on all its cores.

Goal: below 15 CPU seconds, half of the 30 s that two cores may take.
"""

import time

import jax
import numpy as np

from scalejax import Data, Model, Optimizer, Placement, Run, mup, wsd
from scalejax.evaluation.scoring import score
from scalejax.model.transformer import initialize
from scalejax.training.evaluate import make_span_scores
from scalejax.training.sharding import make_mesh

ITEMS, CHOICES, WINDOW = 1_000, 4, 128

# Choices that the baseline scores.
BASELINE_CHOICES = 200

RUN = Run(
    model=Model.sized(width=64, depth=2, head_size=16, vocabulary=512, qk_norm=True),
    data=Data(source="english", tokenizer="bpe:512", sequence_length=WINDOW),
    parametrization=mup(base_width=32),
    optimizer=Optimizer(learning_rate=0.008),
    schedule=wsd(warmup=20_000),
    tokens=2.4e6,
    batch_tokens=512,
)


def make_requests() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (context, continuation) of every choice; an item has one context."""
    rng = np.random.default_rng(0)
    requests = []
    for _ in range(ITEMS):
        context = rng.integers(1, 512, rng.integers(10, 97))
        choices = [rng.integers(1, 512, rng.integers(10, 33)) for _ in range(CHOICES)]
        requests += [(context, choice) for choice in choices]
    return requests


def main():
    scores = make_span_scores(RUN, make_mesh(Placement()))
    params = initialize(RUN.model, RUN.parametrization, jax.random.key(0))
    requests, shapes = make_requests(), set()

    def span_scores(rows, starts, counts, width):
        shapes.add((rows.shape, width))
        return scores(params, rows, starts, counts, width)

    start = time.process_time()
    scored = score(span_scores, requests, window=WINDOW)
    ours = time.process_time() - start

    def score_one(context, continuation) -> float:
        row = np.zeros((1, WINDOW + 1), np.int32)
        row[0, : len(context) + len(continuation)] = np.concatenate([context, continuation])
        start = np.array([[len(context)]], np.int32)
        count = np.array([[len(continuation)]], np.int32)
        return float(scores(params, row, start, count, WINDOW)[0][0, 0])

    # The first call compiles and is not timed.
    score_one(*requests[0])
    start = time.process_time()
    one_at_a_time = [score_one(*request) for request in requests[:BASELINE_CHOICES]]
    baseline = (time.process_time() - start) * len(requests) / BASELINE_CHOICES

    answers, expected = (
        np.reshape(log_likelihood, (-1, CHOICES)).argmax(1)
        for log_likelihood in (scored.log_likelihood[:BASELINE_CHOICES], one_at_a_time)
    )
    assert np.array_equal(answers, expected), "the two ways do not choose the same answers"
    print(
        f"{len(requests):,} choices: {ours:.1f} CPU s with {len(shapes)} programs compiled; "
        f"one at a time {baseline:.1f} CPU s"
    )


if __name__ == "__main__":
    main()
