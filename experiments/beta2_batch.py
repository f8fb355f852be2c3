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
from scalejax.fitting.charts.chart import Chart, Line, Mark, Points, size_colours
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
    """Measure what beta2 is worth at each batch size, and where its optimum lies."""
    return compare(results(folder))


def compare(table: Any) -> Analysis:
    """Conclude from a table of all runs, one row each.

    Raises ValueError where runs are missing.
    """
    cell = ["batch_tokens", "learning_rate", "beta2", "seed"]
    losses = table.set_index(cell)["loss"].unstack("seed")
    runs = losses.groupby("batch_tokens").size().to_numpy()
    if losses.isna().any(axis=None) or runs.min() < runs.max():
        raise ValueError("some runs are missing; `scalejax run` trains them")
    # One rate for all beta2 of a batch size: the lower one, and the one with the lower
    # mean loss. A rate below its best can make a larger beta2 look better.
    rates = losses.mean(axis=1).groupby(["batch_tokens", "learning_rate"]).mean()
    best = rates.groupby("batch_tokens").idxmin().map(lambda pair: pair[1])
    lowest = table.groupby("batch_tokens")["learning_rate"].min()
    low, better = (
        table[table["learning_rate"] == table["batch_tokens"].map(rate)] for rate in (lowest, best)
    )
    means = losses.mean(axis=1).groupby(["batch_tokens", "beta2"])
    tuned = losses.loc[means.idxmin()].droplevel("learning_rate")
    at_low = low.set_index(["batch_tokens", "beta2", "seed"])["loss"].unstack("seed")
    return Analysis(
        conclusions=[
            *at_fixed_rate(better, "Better rate"),
            *at_fixed_rate(low, "Lower rate"),
            *at_tuned_rate(tuned),
        ],
        charts=[
            chart(at_low, "beta2-by-batch", "at the lower learning rate of each batch size"),
            chart(tuned, "beta2-by-batch-tuned", "at the best learning rate of each point"),
        ],
    )


def at_fixed_rate(table: Any, which: str) -> list[Conclusion]:
    """Conclude from the runs at one learning rate per batch size; `which` names it."""
    x, loss = np.log10(1 - np.asarray(table["beta2"], float)), np.asarray(table["loss"], float)
    batch, seed = np.asarray(table["batch_tokens"], float), np.asarray(table["seed"])
    block = np.unique(np.stack([batch, seed]), axis=1, return_inverse=True)[1].ravel()
    small, large = batch.min(), batch.max()
    ends = (batch == small) | (batch == large)
    fit = {"note": "one learning rate per batch size; least squares with an offset per seed"}
    nats = {"unit": "nats per token and decade of 1 - beta2", **fit}
    conclusions = [
        Conclusion.of(
            f"{which}, batch of {size:.0f} tokens: a larger beta2 lowers the loss",
            optimum.slope(x[batch == size], loss[batch == size], block[batch == size]),
            above=0.0,
            **nats,
        )
        for size in np.unique(batch)
    ]
    gain = optimum.slope_change(
        x[ends], (batch[ends] == small).astype(float), loss[ends], block[ends]
    )
    conclusions.append(
        Conclusion.of(
            f"{which}: it lowers it by more at {small:.0f} than at {large:.0f} tokens",
            gain,
            above=0.0,
            **nats,
        )
    )
    for smaller, larger in pairwise(np.unique(batch)):
        pair = (batch == smaller) | (batch == larger)
        claim = (
            f"{which}: the best beta2 is larger at {smaller:.0f} than at {larger:.0f} tokens: "
            "slope of log(1 - beta2) in log(batch)"
        )
        # Without a minimum in the range there is no optimum to follow.
        with contextlib.suppress(ValueError):
            moves = optimum.lowest_by(x[pair], np.log10(batch[pair]), loss[pair], block[pair])
            conclusions.append(Conclusion.of(claim, moves, above=0.0, **fit))
    return conclusions


def at_tuned_rate(losses: Any) -> list[Conclusion]:
    """Conclude from each (batch, beta2) at its best learning rate.

    losses: nats per token, with (batch, beta2) down and seeds across.
    """
    conclusions = []
    for size, of_batch in losses.groupby("batch_tokens"):
        values = of_batch.droplevel("batch_tokens")
        usual, more = (min(values.index, key=lambda it: abs(it - to)) for to in (0.95, 0.999))
        claim = f"At a batch of {size} tokens and tuned rates, beta2 {more:.3g} beats {usual:.3g}"
        gain = mean_of((values.loc[usual] - values.loc[more]).to_numpy())
        note = f"mean and Student's interval of {values.shape[1]} seeds"
        conclusions.append(Conclusion.of(claim, gain, above=0.0, unit="nats per token", note=note))
    return conclusions


def chart(losses: Any, name: str, title: str) -> Chart:
    """Draw the loss above that of the best beta2, one line per batch size.

    losses: nats per token, with (batch, beta2) down and seeds across.
    """
    marks: list[Mark] = []
    batches = losses.groupby("batch_tokens")
    colours = size_colours(batches.groups)
    for size, of_batch in batches:
        values = of_batch.droplevel("batch_tokens").sort_index()
        # Seeds differ in their level, which is not what beta2 changes.
        excess = values - values.mean(axis=0)
        x, y = 1 - np.asarray(values.index, float), excess.mean(axis=1).to_numpy()
        error = excess.std(axis=1).to_numpy() / np.sqrt(values.shape[1])
        label, colour = f"batch of {size} tokens", colours[size]
        y = y - y.min()
        marks.append(Points(label=label, colour=colour, x=x, y=y, y_error=error))
        marks.append(Line(label=label, colour=colour, x=x, y=y, in_legend=False))
    return Chart(
        name=name,
        title=f"Loss against beta2, {title}",
        caption="Means over seeds, above the best beta2 of the batch size. Bars are standard "
        "errors without what all runs of a seed share.",
        x_label="1 - beta2",
        y_label="loss above the best, nats per token",
        marks=marks,
        log_x=True,
    )


smoke = design(
    "beta2-batch-smoke@1",
    base.replace(tokens=32_768),
    rates={128: [0.003], 1_024: [0.008]},
    beta2=BETA2[::2],
    seeds=[0, 1],
    measure=Measure(tokens=16_384, items=0),
)

mini = design(
    "beta2-batch@1",
    base,
    rates={128: [0.004, 0.008], 512: [0.008, 0.016], 2_048: [0.016, 0.032]},
    beta2=BETA2,
    seeds=[0, 1, 2],
    measure=Measure(tokens=65_536, items=0),
)

# Batch sizes in sequences, each with rates around the law that the paper fits to them.
# The size is that of their sweep whose optimum is at about 160 sequences.
paper = design(
    "beta2-batch-paper@1",
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
