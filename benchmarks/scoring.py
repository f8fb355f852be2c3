"""How fast items are scored: 1,000 of four choices with the quickstart's model of width 64, compilation included.

    python benchmarks/scoring.py

Prompts of a question and its answer, 20 to 128 tokens, evenly spread. `one at a time` pads every choice to the window and calls
the same program for it alone, the first 200 choices timed and multiplied; it must choose the same answers before a time is
printed. Time is the CPU time of this process on all its cores. Good: below 15 s, half of the 30 s that two cores may take.
"""

import time

import jax
import numpy as np

from scalejax import Data, Model, Optimizer, Placement, Run, mup, wsd
from scalejax.evaluation.scoring import score
from scalejax.model.transformer import initialize
from scalejax.training.evaluate import make_span_scores
from scalejax.training.sharding import make_mesh

ITEMS, CHOICES, WINDOW, ALONE = 1_000, 4, 128, 200
RUN = Run(
    model=Model.sized(width=64, depth=2, head_size=16, vocabulary=512, qk_norm=True),
    data=Data(source="english", tokenizer="bpe:512", sequence_length=WINDOW),
    parametrization=mup(base_width=32),
    optimizer=Optimizer(learning_rate=0.008),
    schedule=wsd(warmup=20_000),
    tokens=2.4e6,
    batch_tokens=512,
)


def requests() -> list[tuple[np.ndarray, np.ndarray]]:
    """(context, continuation) of every choice; the choices of an item share their context."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(ITEMS):
        context = rng.integers(1, 512, rng.integers(10, 97))
        found += [(context, rng.integers(1, 512, rng.integers(10, 33))) for _ in range(CHOICES)]
    return found


def main():
    scores = make_span_scores(RUN, make_mesh(Placement()))
    params = initialize(RUN.model, RUN.parametrization, jax.random.key(0))
    shapes = set()

    def span_scores(rows, starts, counts, width):
        shapes.add((rows.shape, width))
        return scores(params, rows, starts, counts, width)

    asked = requests()
    start = time.process_time()
    found = score(span_scores, asked, window=WINDOW)
    ours = time.process_time() - start
    row, alone = np.zeros((1, WINDOW + 1), np.int32), []
    for number, (context, continuation) in enumerate([asked[0], *asked[:ALONE]]):
        if number == 1:  # the first call compiles
            start = time.process_time()
        row[0, : len(context) + len(continuation)] = np.concatenate([context, continuation])
        place = np.array([[len(context)]], np.int32), np.array([[len(continuation)]], np.int32)
        alone.append(float(scores(params, row.copy(), *place, WINDOW)[0][0, 0]))
    theirs = (time.process_time() - start) * len(asked) / ALONE
    chosen, wanted = (
        np.reshape(x, (-1, CHOICES)).argmax(1) for x in (found.log_likelihood[:ALONE], alone[1:])
    )
    assert np.array_equal(chosen, wanted), "the two do not choose the same answers"
    print(
        f"{len(asked):,} choices: {ours:.1f} CPU s with {len(shapes)} programs compiled; one at a time {theirs:.1f} CPU s"
    )


if __name__ == "__main__":
    main()
