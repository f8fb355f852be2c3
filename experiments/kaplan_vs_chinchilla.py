"""Which choices make the optimal model size seem to grow faster with compute?

Kaplan et al. 2020 found N* ~ C^0.88, Hoffmann et al. 2022 C^0.50. Porian et al. 2024
(arXiv 2406.19146) go from one to the other in steps. Here are three of them: the FLOPs
of the head are counted; the warmup is shortened to one token per parameter; the decay
of the learning rate is matched to the length of the run.

Scientific: model size, tokens, warmup, cooldown, the count of parameters and FLOPs.
Nuisance: seed.
Fixed: data, tokenizer, peak learning rate (transferred by muP), batch size, beta2.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configs import data, models, recipes
from scalejax import Measure, Model, Run, Study, cooldowns, grid, laws, mup, results, standard
from scalejax.model.transformer import counts
from scalejax.optim.schedules import constant

if TYPE_CHECKING:
    import pandas as pd

base = Run(
    model=models.ISOFLOP[0],
    data=replace(data.ENGLISH, sequence_length=64),
    parametrization=mup(base_width=32),
    optimizer=recipes.TINY_ADAMW,
    schedule=constant(warmup=0),
    tokens=1e6,
    batch_tokens=512,
    seed=0,
)

# A budget trains the sizes for which it pays this many tokens per parameter. The
# optimum lies near 15, in the middle of the range on a log scale.
RATIOS = (2.0, 100.0)


def affordable(model: Model, flops: float) -> float | None:
    """Return the tokens that a budget pays for, or None outside of RATIOS."""
    size = counts(model).params_with_head
    tokens = flops / (6 * size)
    return tokens if RATIOS[0] <= tokens / size <= RATIOS[1] else None


def design(
    name: str,
    base: Run,
    *,
    sizes: Sequence[Model],
    budgets: Sequence[float],
    long_warmup: int,
    seeds: Sequence[int],
    measure: Measure,
) -> Study:
    """Two constant-rate trunks per size, and cooldowns off the one with short warmup.

    The losses of the first two steps are read along the trunks with the long warmup,
    those of the third along the other trunks. A cooldown ends at every budget.
    budgets: training FLOPs, ascending.  long_warmup: tokens.
    """
    runs = []
    for model in sizes:
        size = counts(model).params_with_head
        longest = min(budgets[-1] / (6 * size), RATIOS[1] * size)
        short, long = constant(warmup=size), constant(warmup=long_warmup)
        at = [tokens for flops in budgets if (tokens := affordable(model, flops))]
        trunks = grid(base, model=model, schedule=short, tokens=longest, seed=seeds)
        runs += grid(
            base, model=model, schedule=long, tokens=max(longest, long_warmup), seed=seeds
        )
        runs += trunks + cooldowns(trunks, at=at, fraction=0.2)
    return Study(name, runs, measure=measure)


smoke = design(
    "kaplan-vs-chinchilla-smoke@1",
    base,
    sizes=models.ISOFLOP[:3],
    budgets=[1e10, 2e10],
    long_warmup=80_000,
    seeds=[0, 1],
    measure=Measure(every=20_000, tokens=16_384, items=0),
)

mini = design(
    "kaplan-vs-chinchilla@1",
    base,
    sizes=models.ISOFLOP,
    budgets=[0.4e11, 0.8e11, 1.6e11, 3.2e11],
    long_warmup=400_000,
    seeds=[0, 1, 2],
    measure=Measure(every=40_000, tokens=16_384, items=0),
)

# The sixteen sizes and the twelve budgets of the paper. Its long warmup takes 3,000
# batches of Kaplan et al., 2^19 tokens each.
paper = design(
    "kaplan-vs-chinchilla-paper@1",
    base.replace(
        data=replace(data.REFINEDWEB, sequence_length=2_048),
        parametrization=standard(),
        optimizer=recipes.PORIAN_ADAMW,
        batch_tokens=256 * 2_048,
        compute_dtype="bfloat16",
    ),
    sizes=models.PORIAN,
    budgets=[1.25e16 * 2**k for k in range(12)],
    long_warmup=3_000 * 2**19,
    seeds=[0],
    measure=Measure(every=50_000_000, tokens=2**22, items=0),
)

study = mini
