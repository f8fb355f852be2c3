"""Does the best learning rate of a small model stay the best for one eight times wider?

Scientific: parametrization, width.  Nuisance: learning rate.  Fixed: data, tokenizer, depth, tokens, batch, beta2, warm-up.
"""

from collections.abc import Sequence
from pathlib import Path

from configs import data, models, recipes
from scalejax import Measure, Run, Study, cosine, grid, mup, results, standard

base = Run(
    model=models.WIDTHS[0],
    data=data.ENGLISH,
    parametrization=mup(base_width=32),
    optimizer=recipes.TINY_ADAMW,
    schedule=cosine(warmup=10_240),
    tokens=81_920,
    batch_tokens=512,
    seed=0,
)


def ask(
    name: str,
    base: Run,
    sizes: Sequence,
    rates: Sequence[float],
    seeds: Sequence[int],
    measure: Measure,
) -> Study:
    """The same grid of width x learning rate x seed under muP, whose base is the smallest width, and under standard."""
    parametrizations = [mup(base_width=sizes[0].width), standard()]
    runs = grid(
        base, parametrization=parametrizations, model=sizes, learning_rate=rates, seed=seeds
    )
    return Study(name, runs, measure=measure)


def figure(folder: str | Path, path: str | Path) -> None:
    """Writes loss against learning rate, one line per width, under muP and under standard, from the study's folder."""
    from matplotlib.figure import Figure

    from scalejax.training.transfer import transfer_check

    table, drawing = results(folder), Figure(figsize=(10.5, 4.2), layout="constrained")
    panels = drawing.subplots(1, 2, sharey=True)
    for panel, (name, title) in zip(
        panels, {"mup": "muP", "standard": "standard parametrization"}.items(), strict=True
    ):
        found = transfer_check(table.loc[table["parametrization"] == name, :])
        found.draw(panel)
        panel.set_title(
            f"{title}: the best rate moves by {found.drift} grid step{'s' * (found.drift != 1)}",
            fontsize=10,
        )
    drawing.savefig(path, dpi=150)


smoke = ask(
    "mup-smoke@1",
    base.replace(tokens=20_480),
    models.WIDTHS[:2],
    rates=[2.0**-k for k in (9, 7, 5)],
    seeds=[0],
    measure=Measure(tokens=16_384, items=0),
)
mini = ask(
    "mup@1",
    base,
    models.WIDTHS,
    rates=[2.0**-k for k in range(11, 3, -1)],
    seeds=[0, 1],
    measure=Measure(tokens=32_768, items=0),
)
paper = ask(  # on a corpus of your own
    "mup-paper@1",
    base.replace(
        model=models.WIDE[0],
        data=data.PREPARED,
        optimizer=recipes.HAGELE_ADAMW,
        schedule=cosine(warmup=300 * 102_400),
        tokens=1e9,
        batch_tokens=102_400,
        compute_dtype="bfloat16",
    ),
    models.WIDE,
    rates=[2.0**-k for k in range(14, 5, -1)],
    seeds=[0, 1],
    measure=Measure(tokens=2**22, items=0),
)
study = mini
