"""Does a small batch need a larger beta2?

Porian et al. 2024 (arXiv 2406.19146) found that beta2 matters at small batches, where
0.95 is too low, and that its optimum rises as the batch shrinks.

Scientific: batch size, beta2.
Nuisance: learning rate, seed.
Fixed: model, data, tokenizer, tokens, schedule.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from configs import data, hardware, models, recipes
from scalejax import (
    Analysis,
    Conclusion,
    Measure,
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
from scalejax.fitting.replicates import mean_of
from scalejax.laws.inference import optimum
from scalejax.optim.schedules import constant

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
BETA2 = [1 - 10 ** (-k / 2) for k in range(2, 8)]


def design(
    name: str,
    base: Run,
    *,
    rates: Mapping[int, Sequence[float]],
    beta2: Sequence[float],
    seeds: Sequence[int],
    measure: Measure,
    placement: Placement = hardware.ONE,
) -> Study:
    """Every beta2 at every batch size, each at some learning rates around its best.

    rates: learning rates by batch size in tokens.
    """
    runs = [
        run
        for batch, of_batch in rates.items()
        for run in grid(base, batch_tokens=batch, learning_rate=of_batch, beta2=beta2, seed=seeds)
    ]
    return Study(name, runs, measure=measure, placement=placement, analysis=conclude)


def conclude(folder: Path) -> Analysis:
    """Measure how the best rate, beta2 and batch depend on one another."""
    return compare(results(folder))


def compare(table: Any) -> Analysis:
    """Conclude from a table of all runs, one row each.

    Raises ValueError where runs are missing, or where three rates per batch size do not
    show a best one.
    """
    by_batch = table.groupby("batch_tokens")
    cells = by_batch["learning_rate"].nunique() * table["beta2"].nunique()
    if (by_batch.size() < cells * table["seed"].nunique()).any():
        raise ValueError("some runs are missing; `scalejax run` trains them")
    # Runs of one seed that differ only in beta2 are not independent: average over them.
    rates = table.pivot_table("loss", ["batch_tokens", "seed"], "learning_rate")
    tuned = tuned_losses(table)
    return Analysis(
        conclusions=[
            *law("The best learning rate", rates),
            *law("The best 1 - beta2, at tuned rates,", tuned),
            *gains(tuned),
            *best_batch(tuned),
        ],
        charts=[
            chart(tuned, "beta2-by-batch", "beta2, at tuned rates", "1 - beta2"),
            chart(rates, "rate-by-batch", "the rate, averaged over beta2", "learning rate"),
        ],
    )


def tuned_losses(table: Any) -> Any:
    """The loss at the best rate: (batch size, seed) down, and 1 - beta2 across.

    One curvature for all runs of a batch size: of three rates and one seed it may be
    negative by noise.
    """
    import pandas as pd

    tuned = {}
    for batch, runs in table.assign(rest=1 - table["beta2"]).groupby("batch_tokens"):
        blocks = runs.groupby(["seed", "rest"])
        rate, loss = np.log(runs["learning_rate"].to_numpy()), runs["loss"].to_numpy()
        lowest = optimum.lowest_losses(rate, loss, blocks.ngroup().to_numpy())
        tuned[batch] = pd.Series(lowest, blocks.size().index).unstack("rest")
    return pd.concat(tuned, names=["batch_tokens"])


def law(what: str, losses: Any) -> list[Conclusion]:
    """Measure the exponent with which the best value of a hyperparameter moves.

    losses: (batch size, seed) down, and the values of the hyperparameter across.
    """
    long = losses.stack().rename_axis(["batch_tokens", "seed", "value"]).rename("loss")
    long = long.dropna().reset_index()
    block = long["batch_tokens"].astype(str) + "/" + long["seed"].astype(str)
    columns = (np.log(long["value"]), np.log(long["batch_tokens"]), long["loss"], block)
    # An optimum can be followed only if the loss has a minimum among the values.
    with contextlib.suppress(ValueError):
        exponent = optimum.lowest_by(*(column.to_numpy() for column in columns))
        claim = f"{what} rises with the batch: exponent of its power law"
        note = (
            "one curvature for all batch sizes, with an offset per batch size and seed; "
            "Fieller's interval, which is too narrow where curvatures differ"
        )
        return [Conclusion.of(claim, exponent, above=0.0, note=note)]
    return []


def gains(tuned: Any) -> list[Conclusion]:
    """Measure what a larger beta2 is worth, and whether it is more at a small batch.

    tuned: losses at tuned rates; (batch size, seed) down, and 1 - beta2 across.
    """
    decades = np.log10(tuned.columns.to_numpy(float))
    slopes = tuned.apply(lambda row: np.polyfit(decades, row, 1)[0], axis=1).unstack("seed")
    nats = "nats per token and decade of 1 - beta2"
    conclusions = [
        seed_mean(f"Batch of {batch} tokens: a larger beta2 lowers the loss", of_batch, nats)
        for batch, of_batch in slopes.iterrows()
    ]
    small, large = slopes.index.min(), slopes.index.max()
    claim = f"It lowers it by more at {small} than at {large} tokens"
    return [*conclusions, seed_mean(claim, slopes.loc[small] - slopes.loc[large], nats)]


def best_batch(tuned: Any) -> list[Conclusion]:
    """Compare each batch size with the next larger one, averaged over beta2.

    tuned: losses at tuned rates; (batch size, seed) down, and 1 - beta2 across.
    """
    losses = tuned.mean(axis=1).unstack("seed")
    return [
        seed_mean(
            f"At tuned rates a batch of {smaller} tokens beats one of {larger}",
            losses.loc[larger] - losses.loc[smaller],
            "nats per token",
        )
        for smaller, larger in pairwise(losses.index)
    ]


def seed_mean(claim: str, values: Any, unit: str) -> Conclusion:
    """Claim that the mean of a quantity is above 0; values: one per seed."""
    note = f"mean and Student's interval of {len(values)} seeds"
    return Conclusion.of(claim, mean_of(values.to_numpy()), above=0.0, unit=unit, note=note)


def chart(losses: Any, name: str, against: str, x_label: str) -> Chart:
    """Draw the loss above the lowest one of each batch size.

    losses: (batch size, seed) down, and the values along the x axis across.
    """
    marks: list[Mark] = []
    batches = losses.groupby("batch_tokens")
    colours = size_colours(batches.groups)
    for size, of_batch in batches:
        of_batch = of_batch.dropna(axis=1)
        # Seeds differ in their level, which is not what the x axis changes.
        excess = of_batch.sub(of_batch.mean(axis=1), axis=0)
        mean = excess.mean()
        marks += joined_points(
            f"batch of {size:,} tokens",
            colours[size],
            mean.index.to_numpy(float),
            (mean - mean.min()).to_numpy(),
            excess.sem().to_numpy(),
        )
    return Chart(
        name=name,
        title=f"Loss against {against}",
        caption="Means over seeds, above the lowest of the batch size. Bars are standard errors "
        "without what all runs of a seed share.",
        x_label=x_label,
        y_label="loss above the lowest, nats per token",
        marks=marks,
        log_x=True,
    )


smoke = design(
    "beta2-batch-smoke@2",
    base.replace(tokens=32_768),
    rates={128: [0.004, 0.016, 0.064], 256: [0.004, 0.016, 0.064]},
    beta2=BETA2[::2],
    seeds=[0, 1],
    measure=Measure(tokens=16_384, items=0),
)

mini = design(
    "beta2-batch@2",
    base,
    rates={
        128: [0.004, 0.008, 0.016],
        512: [0.008, 0.016, 0.032],
        2_048: [0.008, 0.016, 0.032],
    },
    beta2=BETA2,
    seeds=[0, 1, 2],
    measure=Measure(tokens=65_536, items=0),
)

# Batch sizes in sequences, each with rates around the law that the paper fits to them.
# The size is that of their sweep whose optimum is at about 160 sequences.
paper = design(
    "beta2-batch-paper@2",
    base.replace(
        model=models.PORIAN[9],
        data=replace(data.REFINEDWEB, sequence_length=2_048),
        parametrization=standard(),
        optimizer=recipes.PORIAN_ADAMW,
        schedule=constant(warmup=108_462_080),
        tokens=20 * 108_462_080,
        batch_tokens=160 * 2_048,
        compute_dtype="bfloat16",
    ),
    rates={
        2_048 * batch: [0.0047 * (batch / 160) ** 0.5 * 2.0**k for k in (-1, 0, 1)]
        for batch in (16, 32, 64, 128, 256, 512, 1_024)
    },
    beta2=[0.95, 0.99, 0.999],
    seeds=[0, 1, 2],
    measure=Measure(tokens=2**22, items=0),
    placement=hardware.DEEP,
)

study = mini
