"""Does the best learning rate of a small model stay the best for one eight times wider?

The studies `smoke`, `mini` and `paper` compare muP with the standard parametrization.
`muon` trains with Muon, under muP in width and under CompleteP in depth, and
`muon_large_batch` in width with four times the batch.

Scientific: parametrization, width, depth.
Nuisance: learning rate, seed.
Fixed: data, tokenizer, tokens, batch size, beta2, warmup.
"""

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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
    completep,
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


class Claim(NamedTuple):
    """What is claimed of the runs under one parametrization."""

    parametrization: str
    over: str
    """What their sizes differ in: `width` or `depth`."""
    text: str
    limits: dict[str, float]
    """For which slopes it holds: octaves of the best rate per doubling of the size."""


# Less than one step of the grid over sizes that differ by a factor of eight.
STABLE = 1 / 3
# A quarter of an octave over a factor of eight.
VERY_STABLE = 1 / 12

ADAMW = (
    Claim(
        "mup",
        "width",
        "Under muP the best learning rate moves by less than a third of an octave per doubling "
        "of the width",
        {"above": -STABLE, "below": STABLE},
    ),
    Claim(
        "standard",
        "width",
        "Under the standard parametrization it falls by more than that",
        {"below": -STABLE},
    ),
)

MUON = (
    Claim(
        "mup",
        "width",
        "With Muon under muP the best learning rate moves by less than a quarter of an octave "
        "over an eightfold width",
        {"above": -VERY_STABLE, "below": VERY_STABLE},
    ),
    Claim(
        "completep",
        "depth",
        "With Muon under CompleteP it moves by less than that over an eightfold depth",
        {"above": -VERY_STABLE, "below": VERY_STABLE},
    ),
)

TITLES = {"mup": "muP", "standard": "standard parametrization", "completep": "CompleteP"}
NOTE = (
    "one parabola through the rates within a factor of four of the best of each size, with an "
    "offset per size and seed"
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
    return Study(
        name,
        runs,
        measure=measure,
        placement=placement,
        analysis=partial(conclude, claims=ADAMW),
    )


def conclude(folder: Path, *, claims: Sequence[Claim]) -> Analysis:
    """Measure how the best learning rate moves with the size."""
    return compare(results(folder), claims)


def compare(table: Any, claims: Sequence[Claim]) -> Analysis:
    """Conclude from a table of all runs, one row each."""
    conclusions, charts = [], []
    for claim in claims:
        runs = table[table["parametrization"] == claim.parametrization]
        transfer = transfer_check(runs, over=claim.over)
        charts.append(chart(transfer, claim.parametrization))
        # A loss that has no minimum between the rates has no best one.
        with contextlib.suppress(ValueError):
            moves = best_rate_by_size(runs, transfer)
            conclusions.append(
                Conclusion.of(
                    claim.text, moves, **claim.limits, unit="octaves per doubling", note=NOTE
                )
            )
    return Analysis(conclusions=conclusions, charts=charts)


def best_rate_by_size(runs: Any, transfer: TransferCheck) -> optimum.Measured:
    """Return by how many octaves the best rate moves per doubling of the size."""
    over = transfer.over
    best = dict(zip(transfer.sizes, np.asarray(transfer.rates)[transfer.best], strict=True))
    octaves = np.log2(runs["learning_rate"] / runs[over].map(best))
    # A parabola fits the loss only near its minimum.
    near = runs[(octaves.abs() < 2.5) & runs["loss"].notna()]
    x, z = (np.log2(near[column].to_numpy(float)) for column in ("learning_rate", over))
    block = near[over].astype(str) + "/" + near["seed"].astype(str)
    return optimum.lowest_by(x, z, near["loss"].to_numpy(float), block.to_numpy())


def chart(transfer: TransferCheck, parametrization: str) -> Chart:
    """Draw the mean loss over seeds against the learning rate, one line per size."""
    marks: list[Mark] = []
    colours, rates = size_colours(transfer.sizes), np.asarray(transfer.rates)
    for size, losses in zip(transfer.sizes, transfer.losses, strict=True):
        finite, label = np.isfinite(losses), f"{transfer.over} {size}"
        marks += joined_points(label, colours[size], rates[finite], losses[finite])
    return Chart(
        name=f"loss-by-rate-{parametrization}",
        title=f"Loss against the learning rate, {TITLES[parametrization]}",
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

with_muon = base.replace(optimizer=recipes.TINY_MUON)
in_depth = with_muon.replace(parametrization=completep(base_width=32, base_depth=2))
# Six rates in steps of half an octave.
near_best = {"learning_rate": [2.0 ** (k / 2) for k in range(-12, -6)], "seed": [0, 1]}

# Twenty minutes on two CPU cores, beside other work.
muon = Study(
    "mup-muon@1",
    grid(with_muon, model=models.WIDTHS, **near_best)
    + grid(in_depth, model=models.DEPTHS, **near_best),
    measure=mini.measure,
    analysis=partial(conclude, claims=MUON),
)

# The same widths and steps with four times the batch, and rates around its best one;
# 48 minutes.
muon_large_batch = Study(
    "mup-muon-large-batch@1",
    grid(
        with_muon.replace(batch_tokens=2_048, tokens=327_680, schedule=cosine(warmup=40_960)),
        model=models.WIDTHS,
        learning_rate=[2.0 ** (k / 2) for k in range(-11, -5)],
        seed=[0, 1],
    ),
    measure=mini.measure,
    analysis=partial(conclude, claims=MUON[:1]),
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
