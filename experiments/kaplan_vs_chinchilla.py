"""Which choices make the optimal model size seem to grow faster with compute?

Kaplan et al. 2020 found N* ~ C^0.88, Hoffmann et al. 2022 C^0.50. Porian et al. 2024
(arXiv 2406.19146) go from one to the other in steps. Here are three of them: the FLOPs
of the head are counted; the warmup is shortened to one token per parameter; the decay
of the learning rate is matched to the length of the run.

Scientific: model size, tokens, warmup, cooldown, the count of parameters and FLOPs.
Nuisance: seed.
Fixed: data, tokenizer, peak learning rate (transferred by muP), batch size, beta2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
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
from scalejax.fitting.charts.chart import Chart, Line, Points, size_colours
from scalejax.fitting.replicates import mean_of
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

# The four ways to read the same grid, in the order of the paper.
STEPS = ("Kaplan's count", "head counted", "short warmup", "decay matched")


def design(
    name: str,
    base: Run,
    *,
    sizes: Sequence[Model],
    budgets: Sequence[float],
    kaplan_share: float,
    ratios: tuple[float, float],
    long_warmup: int,
    seeds: Sequence[int],
    measure: Measure,
    placement: Placement = hardware.ONE,
) -> Study:
    """Two constant-rate trunks per size, and cooldowns off the one with short warmup.

    The losses of the first two steps are read along the trunks with the long warmup,
    those of the third along the others. The cooldowns of the fourth end at each budget.

    budgets: training FLOPs, ascending.  kaplan_share: the budgets of the first step, as
    a fraction of these, because its count leaves out the FLOPs of the head.  ratios:
    the fewest and the most tokens per parameter at which a budget trains a size; the
    optimum should lie in the middle.
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
        trunks = grid(base, model=model, schedule=constant(warmup=size), tokens=at[-1], seed=seeds)
        runs += trunks + cooldowns(trunks, at=at, fraction=0.2)
    return Study(
        name,
        runs,
        measure=measure,
        placement=placement,
        analysis=partial(conclude, budgets=budgets, kaplan_share=kaplan_share, ratios=ratios),
    )


def losses(table: Any, curves: Any, budgets: np.ndarray, *, step: str) -> Any:
    """Return (seed, params, tokens, flops, loss) of every size at every budget it has.

    Along a trunk the loss is interpolated in the logarithms of loss and tokens.
    """
    import pandas as pd

    count = "params_non_embedding" if step == STEPS[0] else "params_with_head"
    short, cooled = table["warmup"] == table["params_with_head"], table["shape"] == "wsd"
    rows = []
    for run in table[(short == (step in STEPS[2:])) & (cooled == (step == STEPS[3]))].itertuples():
        curve = curves[(curves["run"] == run.run) & curves["loss"].notna()].sort_values("tokens")
        seen, size = np.asarray(curve["tokens"], float), getattr(run, count)
        for flops in budgets:
            tokens = flops / (6 * size)
            # A cooldown is measured at its end only, which is that of a whole batch.
            first = 0.98 * run.tokens if step == STEPS[3] else seen[0]
            if first <= tokens <= 1.001 * run.tokens:
                loss = np.interp(np.log(tokens), np.log(seen), np.log(curve["loss"]))
                ratio = tokens / run.params_with_head
                rows.append((run.seed, size, tokens, flops, np.exp(loss), ratio))
    return pd.DataFrame(rows, columns=["seed", "params", "tokens", "flops", "loss", "ratio"])


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
    """Compare the exponents of N*(C) at the four steps, seed by seed."""
    import pandas as pd

    table, curves = results(folder), pd.read_parquet(folder / "curves.parquet")
    return compare(
        fit_steps(table, curves, budgets=budgets, kaplan_share=kaplan_share, ratios=ratios)
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
        points = losses(table, curves, share * np.asarray(budgets), step=step)
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
        claim, (value, low, high, *_) = f"Exponent of N*: {step}", mean_of(values)
        conclusions.append(Conclusion(claim=claim, estimate=value, low=low, high=high, note=note))
    limits: dict[str, dict[str, Any]] = {
        "Counting the head lowers the exponent": {"above": 0.0},
        "A short warmup lowers the exponent": {"above": 0.0},
        "Matching the decay to the run hardly moves the exponent": {"above": -0.05, "below": 0.05},
    }
    for (claim, limit), (before, after) in zip(limits.items(), pairwise(STEPS), strict=True):
        # Both steps of a seed share its data and mostly its runs: seeds are paired.
        value, low, high, *_ = mean_of(exponents[before] - exponents[after])
        conclusions.append(
            Conclusion(claim=claim, estimate=value, low=low, high=high, note=note, **limit)
        )
    flops = fits[STEPS[2]][0].budgets[-1].flops
    long, short = (
        np.array([np.log(float(fit.law.params(flops))) for fit in fits[step]])
        for step in STEPS[1:3]
    )
    value, low, high = np.exp(np.array(mean_of(short - long)[:3], float))
    conclusions.append(
        Conclusion(
            claim="A long warmup makes the optimal size of the largest budget smaller: N* of the "
            "short warmup over that of the long one",
            estimate=float(value),
            low=float(low),
            high=float(high),
            above=1.0,
            note=note,
        )
    )
    return Analysis(conclusions=conclusions, charts=[optima_chart(fits)])


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
    "kaplan-vs-chinchilla-smoke@1",
    base,
    sizes=models.ISOFLOP[:2],
    budgets=[0.8e10, 1.6e10],
    kaplan_share=0.5,
    ratios=(1, 100),
    long_warmup=60_000,
    seeds=[0],
    measure=Measure(every=20_000, tokens=16_384, items=0),
)

mini = design(
    "kaplan-vs-chinchilla@1",
    base,
    sizes=models.ISOFLOP[:5],
    budgets=[0.3e11, 0.6e11, 1.2e11],
    kaplan_share=0.6,
    ratios=(2, 130),
    long_warmup=250_000,
    seeds=[0, 1, 2],
    measure=Measure(every=40_000, tokens=16_384, items=0),
)

# The sixteen sizes and the twelve budgets of the paper. Its long warmup takes 3,000
# batches of Kaplan et al., 2^19 tokens each.
paper = design(
    "kaplan-vs-chinchilla-paper@1",
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
    seeds=[0],
    measure=Measure(every=50_000_000, tokens=2**22, items=0),
    placement=hardware.DEEP,
)

study = mini
