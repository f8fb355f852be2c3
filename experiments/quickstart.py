"""Can small runs forecast a larger model, before it is trained?

Scientific: model size, tokens.
Nuisance: seed.
Fixed: data, tokenizer, peak learning rate (transferred by muP), batch size, beta2.
"""

from configs import data, models, recipes
from scalejax import Measure, Model, Run, Study, cooldowns, grid, laws, mup
from scalejax.optim.schedules import constant

base = Run(
    model=models.TINY[0],
    data=data.ENGLISH,
    parametrization=mup(base_width=32),
    optimizer=recipes.TINY_ADAMW,
    schedule=constant(warmup=20_000),
    tokens=1.75e6,
    batch_tokens=512,
    seed=0,
)


def design(
    name: str,
    base: Run,
    *,
    sizes: list[Model],
    next_size: Model,
    budgets: list[float],
    seeds: list[int],
    measure: Measure,
) -> Study:
    """Every size trained to every budget, and a forecast for the next size.

    Each size is one constant-rate trunk per seed, from which a cooldown branches off
    for every budget. The two smallest sizes are trained with all seeds, which measures
    the noise, and the others with the first one. The forecast is for the largest
    budget, and with two seeds, because the second core would have nothing else to do.
    """
    small = grid(base, model=sizes[:2], seed=seeds, tokens=budgets[-1])
    large = grid(base, model=sizes[2:], seed=seeds[0], tokens=budgets[-1])
    next_trunks = grid(base, model=next_size, seed=seeds[:2], tokens=budgets[-1])
    return Study(
        name,
        cooldowns(small + large, at=budgets, fraction=0.2, shape="1-sqrt"),
        forecast=cooldowns(next_trunks, at=budgets[-1:], fraction=0.2, shape="1-sqrt"),
        # Runs of minutes end too far above the irreducible loss E to measure it, so
        # one of the two laws does without it.
        laws=[laws.chinchilla(), laws.interaction(E=0.0), laws.downstream()],
        measure=measure,
    )


# Under 90 seconds on two CPU cores. Three sizes on three budgets are too few to fit
# well.
smoke = design(
    "quickstart-smoke@1",
    base,
    sizes=models.TINY[:3],
    next_size=models.TINY[3],
    budgets=[0.1e6, 0.15e6, 0.2e6],
    seeds=[0],
    measure=Measure(every=50_000, tokens=16_384, items=64),
)

# Minutes on two CPU cores.
mini = design(
    "quickstart@2",
    base,
    sizes=models.LADDER,
    next_size=models.LADDER_NEXT,
    budgets=[0.63e6, 0.88e6, 1.24e6, 1.75e6],
    seeds=[0, 1, 2],
    measure=Measure(every=450_000),
)

# The ladder, batch size and warmup of Hägele et al. 2024, on a corpus of your own.
paper = design(
    "quickstart-paper@1",
    base.replace(
        model=models.HAGELE[0],
        data=data.PREPARED,
        parametrization=mup(base_width=384),
        optimizer=recipes.HAGELE_ADAMW,
        schedule=constant(warmup=300 * 102_400),
        tokens=5e9,
        batch_tokens=102_400,
        compute_dtype="bfloat16",
    ),
    sizes=models.HAGELE,
    next_size=models.HAGELE_NEXT,
    budgets=[0.6e9, 1e9, 1.8e9, 3e9, 5e9],
    seeds=[0],
    measure=Measure(every=100_000_000, tokens=2**22, items=1024),
)

study = mini
