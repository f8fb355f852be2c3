"""Does the best learning rate of a small model stay the best for one eight times wider?

Scientific: parametrization, width.
Nuisance: learning rate.
Fixed: data, tokenizer, depth, tokens, batch size, beta2, warmup.
"""

from collections.abc import Sequence
from pathlib import Path

from configs import data, hardware, models, recipes
from scalejax import Measure, Model, Placement, Run, Study, cosine, grid, mup, results, standard

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


def design(
    name: str,
    base: Run,
    *,
    sizes: Sequence[Model],
    rates: Sequence[float],
    seeds: Sequence[int],
    measure: Measure,
    placement: Placement = hardware.ONE,
) -> Study:
    """The same grid of width, learning rate and seed under muP and under standard.

    The smallest width is the base of muP.
    """
    runs = grid(
        base,
        parametrization=[mup(base_width=sizes[0].width), standard()],
        model=sizes,
        learning_rate=rates,
        seed=seeds,
    )
    return Study(name, runs, measure=measure, placement=placement)


def figure(folder: str | Path, path: str | Path) -> None:
    """Draw loss against learning rate from the results in `folder`, one line per width.

    One panel shows muP, the other the standard parametrization. `path` is the image
    file.
    """
    # Imported here because planning and training do not need matplotlib.
    from matplotlib.figure import Figure

    from scalejax.training.checks.transfer import transfer_check

    table = results(folder)
    drawing = Figure(figsize=(10.5, 4.2), layout="constrained")
    panels = drawing.subplots(1, 2, sharey=True)
    titles = {"mup": "muP", "standard": "standard parametrization"}
    for panel, (name, title) in zip(panels, titles.items(), strict=True):
        transfer = transfer_check(table.loc[table["parametrization"] == name, :])
        transfer.draw(panel)
        steps = f"{transfer.drift} grid step{'s' * (transfer.drift != 1)}"
        panel.set_title(f"{title}: the best rate moves by {steps}", fontsize=10)
    drawing.savefig(path, dpi=150)


# Under 90 seconds on two CPU cores.
smoke = design(
    "mup-smoke@1",
    base.replace(tokens=20_480),
    sizes=models.WIDTHS[:2],
    rates=[2.0**-k for k in (9, 7, 5)],
    seeds=[0],
    measure=Measure(tokens=16_384, items=0),
)

# A quarter of an hour on two CPU cores.
mini = design(
    "mup@1",
    base,
    sizes=models.WIDTHS,
    rates=[2.0**-k for k in range(11, 3, -1)],
    seeds=[0, 1],
    measure=Measure(tokens=32_768, items=0),
)

# On a corpus of your own.
paper = design(
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
    sizes=models.WIDE,
    rates=[2.0**-k for k in range(14, 5, -1)],
    seeds=[0, 1],
    measure=Measure(tokens=2**22, items=0),
    placement=hardware.DEEP,
)

study = mini
