"""Does the best learning rate of a small model stay the best for one eight times wider?

Scientific: parametrization, width.
Nuisance: learning rate.
Fixed: data, tokenizer, depth, tokens, batch size, beta2, warmup.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs import data, hardware, models, recipes
from scalejax import (
    Analysis,
    Conclusion,
    Measure,
    Model,
    Placement,
    Run,
    Study,
    cosine,
    grid,
    mup,
    results,
    standard,
)
from scalejax.fitting.charts.chart import Chart, Mark, joined_points, size_colours
from scalejax.laws.inference import optimum
from scalejax.training.checks.transfer import TransferCheck, transfer_check

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

# Less than one step of the grid over widths that differ by a factor of eight.
STABLE = 1 / 3

# By parametrization: its title, a claim about the slope of log(best rate) in
# log(width), and the values for which the claim holds.
CLAIMS = {
    "mup": (
        "muP",
        "Under muP the best learning rate moves by less than a third of an octave per doubling "
        "of the width",
        {"above": -STABLE, "below": STABLE},
    ),
    "standard": (
        "standard parametrization",
        "Under the standard parametrization it falls by more than that",
        {"below": -STABLE},
    ),
}
NOTE = (
    "one parabola through the rates within a factor of four of the best of each width, with an "
    "offset per width and seed"
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
    return Study(name, runs, measure=measure, placement=placement, analysis=conclude)


def conclude(folder: Path) -> Analysis:
    """Measure how the best learning rate moves with the width."""
    return compare(results(folder))


def compare(table: Any) -> Analysis:
    """Conclude from a table of all runs, one row each."""
    conclusions, charts = [], []
    for name, (title, claim, limits) in CLAIMS.items():
        runs = table[table["parametrization"] == name]
        transfer = transfer_check(runs)
        charts.append(chart(transfer, name, title))
        # A loss that has no minimum between the rates has no best one.
        with contextlib.suppress(ValueError):
            moves = best_rate_by_width(runs, transfer)
            conclusions.append(
                Conclusion.of(claim, moves, **limits, unit="octaves per doubling", note=NOTE)
            )
    return Analysis(conclusions=conclusions, charts=charts)


def best_rate_by_width(runs: Any, transfer: TransferCheck) -> optimum.Measured:
    """Return by how many octaves the best rate moves per doubling of the width."""
    best = dict(zip(transfer.sizes, np.asarray(transfer.rates)[transfer.best], strict=True))
    octaves = np.log2(runs["learning_rate"] / runs["width"].map(best))
    # A parabola fits the loss only near its minimum.
    near = runs[(octaves.abs() < 2.5) & runs["loss"].notna()]
    x, z = (np.log2(near[column].to_numpy(float)) for column in ("learning_rate", "width"))
    block = near["width"].astype(str) + "/" + near["seed"].astype(str)
    return optimum.lowest_by(x, z, near["loss"].to_numpy(float), block.to_numpy())


def chart(transfer: TransferCheck, name: str, title: str) -> Chart:
    """Draw the mean loss over seeds against the learning rate, one line per width."""
    marks: list[Mark] = []
    colours, rates = size_colours(transfer.sizes), np.asarray(transfer.rates)
    for width, losses in zip(transfer.sizes, transfer.losses, strict=True):
        finite = np.isfinite(losses)
        marks += joined_points(f"width {width}", colours[width], rates[finite], losses[finite])
    return Chart(
        name=f"loss-by-rate-{name}",
        title=f"Loss against the learning rate, {title}",
        caption="Means over seeds. Runs that diverged are left out.",
        x_label="peak learning rate",
        y_label="loss, nats per token",
        marks=marks,
        log_x=True,
    )


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
