"""Does a small batch need a larger beta2?

Porian et al. 2024 (arXiv 2406.19146) found that beta2 matters at small batches, where
0.95 is too low, and that its optimum rises as the batch shrinks.

Scientific: batch size, beta2.
Nuisance: learning rate, seed.
Fixed: model, data, tokenizer, tokens, schedule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from configs import data, models, recipes
from scalejax import Measure, Model, Run, Study, cosine, grid, mup, per_param

base = Run(
    model=models.TINY[0],
    data=replace(data.ENGLISH, sequence_length=64),
    parametrization=mup(base_width=32),
    optimizer=recipes.TINY_ADAMW,
    schedule=cosine(warmup=16_384),
    tokens=0.25e6,
    batch_tokens=1_024,
    seed=0,
)

# From 0.9 to 0.9997: five steps of half a decade in 1 - beta2.
BETA2 = [1 - 10 ** -(k / 2) for k in range(2, 8)]


def design(
    name: str,
    base: Run,
    *,
    rates: Mapping[int, Sequence[float]],
    beta2: Sequence[float],
    seeds: Sequence[int],
    measure: Measure,
) -> Study:
    runs = [
        run
        for batch, of_batch in rates.items()
        for run in grid(base, batch_tokens=batch, learning_rate=of_batch, beta2=beta2, seed=seeds)
    ]
    return Study(name, runs, measure=measure)


smoke = design(
    "beta2-batch-smoke@1",
    base.replace(tokens=65_536),
    rates={128: [0.003], 1_024: [0.008]},
    beta2=BETA2[::2],
    seeds=[0, 1],
    measure=Measure(tokens=16_384, items=0),
)

mini = design(
    "beta2-batch@1",
    base,
    rates={128: [0.002, 0.004], 512: [0.004, 0.008], 2_048: [0.008, 0.016]},
    beta2=BETA2,
    seeds=[0, 1, 2],
    measure=Measure(tokens=65_536, items=0),
)

study = mini
