"""Does a law fitted to two learning-rate schedules predict the loss curves of others?

Scientific: learning-rate schedule.
Nuisance: seed.
Fixed: model, data, tokens, batch size, peak and final learning rate, beta2, warmup.
"""

from collections.abc import Sequence
from pathlib import Path

from configs import data, models, recipes
from scalejax import Measure, Model, Run, Study, cooldowns, cosine, grid, mup
from scalejax.optim.schedules import constant, cyclic, linear, multistep

base = Run(
    model=models.TINY[1],
    data=data.ENGLISH,
    parametrization=mup(base_width=32),
    optimizer=recipes.TINY_ADAMW,
    schedule=constant(warmup=51_200),
    tokens=2_048_000,
    batch_tokens=1_024,
)

# Every schedule that decays ends at this fraction of its peak, as in the paper. A law of
# the annealing area has no lower limit, so lower rates would extrapolate.
FINAL = 0.1


def design(name: str, base: Run, *, seeds: Sequence[int], measure: Measure) -> Study:
    """Seven schedules of one length, each with every seed.

    Constant rate and its branches share their trunk.
    """
    warmup = base.schedule.warmup
    trunks = grid(base, seed=seeds)
    others = [
        cosine(warmup=warmup, final=FINAL),
        linear(warmup=warmup, final=FINAL),
        multistep(warmup=warmup, milestones=(0.5,), factor=0.3),
        cyclic(warmup=warmup, period=round(base.tokens / 4), final=FINAL),
    ]
    runs = [
        *trunks,
        *cooldowns(trunks, at=[base.tokens], fraction=0.2, shape="1-sqrt", final=FINAL),
        *cooldowns(trunks, at=[base.tokens], fraction=0.4, shape="linear", final=FINAL),
        *grid(base, schedule=others, seed=seeds),
    ]
    return Study(name, runs, measure=measure)


# Under 90 seconds on two CPU cores. 200 steps are too few for the laws.
smoke = design(
    "lr-annealing-smoke@1",
    base.replace(model=models.TINY[0], schedule=constant(warmup=10_240), tokens=204_800),
    seeds=[0, 1],
    measure=Measure(every=10_240, tokens=8_192, items=0),
)

# Minutes on two CPU cores.
mini = design(
    "lr-annealing@1", base, seeds=[0, 1, 2], measure=Measure(every=40_960, tokens=16_384, items=0)
)

study = mini
