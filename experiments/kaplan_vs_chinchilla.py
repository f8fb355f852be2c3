"""Which choices make the optimal model size seem to grow faster with compute?

Kaplan et al. 2020 found N* ~ C^0.88, Hoffmann et al. 2022 C^0.50. Porian et al. 2024
(arXiv 2406.19146) go from one to the other in steps. Here they are: the FLOPs of the
head are counted; the warmup is shortened to one token per parameter; the decay of the
learning rate is matched to the length of the run; or, in place of the decay, the rate
and the batch are tuned for every size.

Scientific: model size, tokens, warmup, cooldown, the count of parameters and FLOPs.
Nuisance: learning rate and batch size (tuned in the last step), seed.
Fixed: data, tokenizer, parametrization, beta2.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
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
    cooldowns,
    grid,
    laws,
    mup,
    results,
    standard,
)
from scalejax.fitting.charts.chart import Chart, Line, Mark, Points, joined_points, size_colours
from scalejax.fitting.replicates import mean_of
from scalejax.laws.inference import optimum
from scalejax.laws.isoflop import IsoFLOPResult
from scalejax.model.transformer import counts
from scalejax.optim.schedules import constant

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

# The ways to read the same grid, in the order of the paper.
STEPS = ("Kaplan's count", "head counted", "short warmup", "decay matched", "tuned")

# Learning rate and tokens per batch, which the last step tunes.
CELL = ["learning_rate", "batch_tokens"]

# What the paper says of a step: the step before, the step, and the limits of how far
# the exponent falls between them.
CLAIMS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "Counting the head lowers the exponent": (0, 1, {"above": 0.0}),
    "A short warmup lowers the exponent": (1, 2, {"above": 0.0}),
    "Matching the decay hardly moves the exponent": (2, 3, {"above": -0.05, "below": 0.05}),
    "Tuning every size in place of a decay lowers the exponent": (2, 4, {"above": 0.0}),
}


def design(
    name: str,
    base: Run,
    *,
    sizes: Sequence[Model],
    budgets: Sequence[float],
    kaplan_share: float,
    ratios: tuple[float, float],
    long_warmup: int,
    tuned: Callable[[int], Sequence[dict[str, float]]],
    seeds: Sequence[int],
    measure: Measure,
    placement: Placement = hardware.ONE,
) -> Study:
    """Constant-rate trunks of every size, and cooldowns off the one with short warmup.

    The losses of the first two steps are read along the trunks with the long warmup,
    those of the third along the others. The cooldowns of the fourth end at each budget.
    The last step has more trunks with a short warmup, and reads the best one of every
    size at every budget.

    budgets: training FLOPs, ascending.  kaplan_share: the budgets of the first step, as
    a fraction of these, because its count leaves out the FLOPs of the head.  ratios:
    the fewest and the most tokens per parameter at which a budget trains a size; the
    optimum should lie in the middle.  tuned: for the parameters of a size, other
    learning rates and batch sizes to train it with.
    """
    runs = []
    for model in sizes:
        size, kaplan = counts(model).params_with_head, counts(model).params_non_embedding
        at = [flops / (6 * size) for flops in budgets]
        at = [tokens for tokens in at if ratios[0] <= tokens / size <= ratios[1]]
        # By Kaplan's count a budget buys more tokens.
        longest = max(long_warmup, min(kaplan_share * budgets[-1] / (6 * kaplan), ratios[1] * size))
        long = constant(warmup=long_warmup)
        runs += grid(base, model=model, schedule=long, tokens=max(*at, longest), seed=seeds)
        short = {"model": model, "schedule": constant(warmup=size), "tokens": at[-1], "seed": seeds}
        trunks = grid(base, **short)
        runs += trunks + cooldowns(trunks, at=at, fraction=0.2)
        for cell in tuned(size):
            runs += grid(base, **short, **cell)
    return Study(
        name,
        runs,
        measure=measure,
        placement=placement,
        analysis=partial(conclude, budgets=budgets, kaplan_share=kaplan_share, ratios=ratios),
    )


def kinds(table: Any) -> tuple[Any, Any, Any]:
    """Which runs have a short warmup, a cooldown, the base rate and batch."""
    short, cooled = table["warmup"] == table["params_with_head"], table["shape"] == "wsd"
    # Cooldowns are never tuned.
    return short, cooled, (table[CELL] == table.loc[cooled, CELL].iloc[0]).all(axis=1)


def runs_of(table: Any, step: str) -> Any:
    """Return the rows of the runs that a step reads."""
    short, cooled, usual = kinds(table)
    if step == STEPS[4]:
        return table[short & ~cooled]
    return table[usual & (short == (step not in STEPS[:2])) & (cooled == (step == STEPS[3]))]


def losses(table: Any, curves: Any, budgets: np.ndarray, *, step: str) -> Any:
    """Return one row for every run that a step reads and every budget that it has.

    Along a trunk the loss is interpolated in the logarithms of loss and tokens.
    """
    import pandas as pd

    count = "params_non_embedding" if step == STEPS[0] else "params_with_head"
    rows = []
    for run in runs_of(table, step).itertuples():
        curve = curves[(curves["run"] == run.run) & curves["loss"].notna()].sort_values("tokens")
        seen, size = np.asarray(curve["tokens"], float), getattr(run, count)
        for flops in budgets:
            tokens = flops / (6 * size)
            # A cooldown is measured at its end only, which is that of a whole batch.
            first = 0.98 * run.tokens if step == STEPS[3] else seen[0]
            if first <= tokens <= 1.001 * run.tokens:
                loss = np.interp(np.log(tokens), np.log(seen), np.log(curve["loss"]))
                row = (run.seed, size, tokens, flops, np.exp(loss), tokens / run.params_with_head)
                rows.append((*row, run.learning_rate, run.batch_tokens))
    names = ["seed", "params", "tokens", "flops", "loss", "ratio", *CELL]
    return pd.DataFrame(rows, columns=names)


def tune(points: Any) -> Any:
    """Keep the cell of every size and budget with the lowest mean over the seeds."""
    at = ["params", "flops"]
    best = points.groupby([*at, *CELL])["loss"].mean().groupby(at).idxmin()
    return points.set_index([*at, *CELL]).loc[list(best)].reset_index()


def optima(points: Any, step: str) -> list[IsoFLOPResult]:
    """Fit N*(C) to the points of every seed.

    Raises ValueError, with the reasons, for a seed without a power law.
    """
    fits = []
    for seed, group in points.groupby("seed"):
        columns = (group[name] for name in ("params", "tokens", "flops", "loss"))
        fits.append(laws.fit_isoflop(*columns))
        if fits[-1].verdict != "ok":
            raise ValueError(f"{step}, seed {seed}: {'; '.join(fits[-1].reasons)}")
    return fits


def conclude(
    folder: Path, *, budgets: Sequence[float], kaplan_share: float, ratios: tuple[float, float]
) -> Analysis:
    """Compare the exponents of N*(C) at the steps, seed by seed."""
    import pandas as pd

    table, curves = results(folder), pd.read_parquet(folder / "curves.parquet")
    found = compare(
        fit_steps(table, curves, budgets=budgets, kaplan_share=kaplan_share, ratios=ratios)
    )
    return Analysis(
        conclusions=[*found.conclusions, *best_by_size(table)],
        charts=[*found.charts, *cell_charts(table)],
    )


def fit_steps(
    table: Any,
    curves: Any,
    *,
    budgets: Sequence[float],
    kaplan_share: float,
    ratios: tuple[float, float],
) -> dict[str, list[IsoFLOPResult]]:
    """Fit N*(C) at every step, once per seed."""
    fits = {}
    for step in STEPS:
        share = kaplan_share if step == STEPS[0] else 1.0
        points = tune(losses(table, curves, share * np.asarray(budgets), step=step))
        # Equal tokens per parameter in all steps: a parabola is biased off its centre.
        fits[step] = optima(points[points["ratio"].between(*ratios)], step)
    return fits


def compare(fits: Mapping[str, Sequence[IsoFLOPResult]]) -> Analysis:
    """Conclude from the fits of each step, one per seed."""
    exponents = {
        step: np.array([float(fit.law.params_exponent) for fit in of_step])
        for step, of_step in fits.items()
    }
    note = f"mean and Student's interval of {len(exponents[STEPS[0]])} seeds"
    conclusions = []
    for step, values in exponents.items():
        conclusions.append(Conclusion.of(f"Exponent of N*: {step}", mean_of(values), note=note))
    for claim, (before, after, limit) in CLAIMS.items():
        # Both steps of a seed share its data and mostly its runs: seeds are paired.
        falls = mean_of(exponents[STEPS[before]] - exponents[STEPS[after]])
        conclusions.append(Conclusion.of(claim, falls, note=note, **limit))
    flops = fits[STEPS[2]][0].budgets[-1].flops
    long, short = (
        np.array([np.log(float(fit.law.params(flops))) for fit in fits[step]])
        for step in STEPS[1:3]
    )
    claim = (
        "A long warmup makes the optimal size of the largest budget smaller: N* of the short "
        "warmup over that of the long one"
    )
    factor = np.exp(np.array(mean_of(short - long)[:3], float)).tolist()
    conclusions.append(Conclusion.of(claim, factor, above=1.0, note=note))
    return Analysis(conclusions=conclusions, charts=[optima_chart(fits)])


def varied(table: Any, name: str) -> Any:
    """Return the trunks along which the rate, or the batch, of the base run is varied.

    The rate is varied at one batch size. The batch is varied with a rate that follows
    its square root.
    """
    short, cooled, usual = kinds(table)
    rate, batch = table.loc[usual, CELL].iloc[0]
    if name == "learning_rate":
        return table[short & ~cooled & (table["batch_tokens"] == batch)]
    follows = np.isclose(table["learning_rate"], rate * np.sqrt(table["batch_tokens"] / batch))
    return table[short & ~cooled & follows]


def best_by_size(table: Any) -> list[Conclusion]:
    """Measure how the best rate and the best batch move with the size."""
    # Without muP the paper's best rate follows N^(-1/3).
    claims = {
        "learning_rate": ("The best rate falls more slowly under muP than without it", -1 / 3),
        "batch_tokens": ("The best batch grows with the size", 0.0),
    }
    conclusions = []
    for name, (claim, above) in claims.items():
        runs = varied(table, name)
        x, size = (np.log(runs[column].to_numpy(float)) for column in (name, "params_with_head"))
        block = runs["params_with_head"].astype(str) + "/" + runs["seed"].astype(str)
        loss = np.log(runs["loss"].to_numpy(float))
        # A loss that has no minimum between the values has no best one.
        with contextlib.suppress(ValueError):
            moves = optimum.lowest_by(x, size, loss, block.to_numpy())
            claim = f"{claim}: slope of its logarithm in log(N) at the largest budget"
            note = "one parabola, with an offset per size and seed"
            conclusions.append(Conclusion.of(claim, moves, above=above, note=note))
    return conclusions


def cell_charts(table: Any) -> list[Chart]:
    """Draw the loss at the largest budget against the rate and against the batch."""
    labels = {"learning_rate": "learning rate", "batch_tokens": "tokens per batch"}
    charts = []
    for name, label in labels.items():
        runs, marks = varied(table, name), list[Mark]()
        colours = size_colours(sorted(set(runs["width"])))
        for width, of_width in runs.groupby("width"):
            found = of_width.groupby(name)["loss"].agg(["mean", "sem"])
            at, mean, error = found.reset_index().to_numpy(float).T
            marks += joined_points(f"width {width:.0f}", colours[width], at, mean, error)
        chart = Chart(
            name=f"loss-by-{name.replace('_', '-')}",
            title=f"Loss at the largest budget against the {label}",
            caption="Constant rate, short warmup; means and standard errors over seeds. The rate "
            "follows the square root of the batch.",
            x_label=label,
            y_label="loss, nats per token",
            marks=marks,
            log_x=True,
        )
        charts.append(chart)
    return charts


def optima_chart(fits: Mapping[str, Sequence[IsoFLOPResult]]) -> Chart:
    """Draw N*(C) at every step: the optima of all seeds, and the mean power law."""
    marks, colours = [], size_colours(range(len(STEPS)))
    for (step, of_step), colour in zip(fits.items(), colours.values(), strict=True):
        found = [it for fit in of_step for it in fit.budgets if not it.reason]
        flops = np.array(sorted({it.flops for it in found}))
        size = np.exp(np.mean([np.log(fit.law.params(flops)) for fit in of_step], axis=0))
        exponent = np.mean([float(fit.law.params_exponent) for fit in of_step])
        label, line = f"{step}: N* ~ C^{exponent:.2f}", {"x": flops, "y": size}
        at, best = (np.array([getattr(it, name) for it in found]) for name in ("flops", "params"))
        marks.append(Points(label=label, colour=colour, x=at, y=best))
        marks.append(Line(label=label, colour=colour, in_legend=False, **line))
    return Chart(
        name="optimal-sizes",
        title="Optimal size against compute",
        caption="Points are the optimal sizes of one seed at one budget. Each step counts "
        "parameters and FLOPs its own way.",
        x_label="training FLOPs",
        y_label="optimal parameters N*",
        marks=marks,
        log_x=True,
        log_y=True,
    )


# Two sizes do not bracket an optimum: this only shows that everything runs.
smoke = design(
    "kaplan-vs-chinchilla-smoke@2",
    base,
    sizes=models.ISOFLOP[:2],
    budgets=[0.8e10, 1.6e10],
    kaplan_share=0.5,
    ratios=(1, 100),
    long_warmup=60_000,
    tuned=lambda params: [{"learning_rate": 0.016}],
    seeds=[0],
    measure=Measure(every=20_000, tokens=16_384, items=0),
)

# Rates at the batch of the base run, and batches whose rate follows their square root.
CELLS: list[dict[str, float]] = [
    *({"learning_rate": rate} for rate in (0.004, 0.016, 0.032)),
    *(
        {"learning_rate": 0.008 * (batch / 512) ** 0.5, "batch_tokens": batch}
        for batch in (128, 256, 1_024)
    ),
]

mini = design(
    "kaplan-vs-chinchilla@2",
    base,
    sizes=models.ISOFLOP[:5],
    budgets=[0.3e11, 0.6e11, 1.2e11],
    kaplan_share=0.6,
    ratios=(2, 130),
    long_warmup=250_000,
    tuned=lambda params: CELLS,
    seeds=[0, 1, 2],
    measure=Measure(every=40_000, tokens=16_384, items=0),
)


def porian_cell(params: int) -> dict[str, float]:
    """The rate, batch and beta2 of the paper's laws for a size (section 4)."""
    rate, sequences = (
        scale * (params / 108e6) ** power for scale, power in ((0.0047, -1 / 3), (160, 2 / 3))
    )
    # A multiple of 16 sequences can be split over as many devices.
    batch = 16 * max(1, round(sequences / 16))
    return {"learning_rate": rate, "batch_tokens": 2_048 * batch, "beta2": 0.99}


# The sixteen sizes and the twelve budgets of the paper. Its long warmup takes 3,000
# batches of Kaplan et al., 2^19 tokens each.
paper = design(
    "kaplan-vs-chinchilla-paper@2",
    base.replace(
        data=replace(data.REFINEDWEB, sequence_length=2_048),
        parametrization=standard(),
        optimizer=recipes.PORIAN_ADAMW,
        batch_tokens=256 * 2_048,
        compute_dtype="bfloat16",
    ),
    sizes=models.PORIAN,
    budgets=[1.25e16 * 2**k for k in range(12)],
    kaplan_share=1.0,
    ratios=(2, 300),
    long_warmup=3_000 * 2**19,
    tuned=lambda params: [porian_cell(params)],
    seeds=[0],
    measure=Measure(every=50_000_000, tokens=2**22, items=0),
    placement=hardware.DEEP,
)

study = mini
