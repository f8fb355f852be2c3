"""Can a law fitted to twenty small runs forecast a model of twice the size, before it is trained?

Scientific: model size, tokens.  Fixed: data, tokenizer, peak learning rate (transferred by muP), batch, beta2.
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


def ask(
    name: str,
    base: Run,
    sizes: list[Model],
    next_size: Model,
    budgets: list[float],
    measure: Measure,
) -> Study:
    """One trunk per size and a cooldown for every budget; the next size is forecast at the largest budget."""
    trunks = grid(base, model=sizes, tokens=budgets[-1])
    ahead = grid(base, model=next_size, tokens=budgets[-1])
    return Study(
        name,
        cooldowns(trunks, at=budgets, fraction=0.2, shape="1-sqrt"),
        forecast=cooldowns(ahead, at=budgets[-1:], fraction=0.2, shape="1-sqrt"),
        laws=[laws.chinchilla(), laws.downstream()],
        measure=measure,
    )


smoke = ask(
    "quickstart-smoke@1",
    base,
    models.TINY[:3],
    models.TINY[3],
    budgets=[0.1e6, 0.15e6, 0.2e6],
    measure=Measure(every=50_000, tokens=16_384, items=64),
)
mini = ask(
    "quickstart@1",
    base,
    models.TINY,
    models.TINY_NEXT,
    budgets=[0.45e6, 0.63e6, 0.88e6, 1.24e6, 1.75e6],
    measure=Measure(every=450_000),
)
paper = ask(  # the ladder, batch and warm-up of Hägele et al. 2024, on a corpus of your own
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
    models.HAGELE,
    models.HAGELE_NEXT,
    budgets=[0.6e9, 1e9, 1.8e9, 3e9, 5e9],
    measure=Measure(every=100_000_000, tokens=2**22, items=1024),
)
study = mini
