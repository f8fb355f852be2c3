"""Does a constant rate with a cooldown end at the loss of a cosine of the same length?

Scientific: schedule, tokens, length and shape of the cooldown.
Nuisance: peak learning rate, seed.
Fixed: model, data, batch size, beta2, warmup, final learning rate (0 where it decays).
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configs import data, hardware, models, recipes
from scalejax import (
    Analysis,
    Conclusion,
    Measure,
    Model,
    Run,
    Study,
    cooldowns,
    cosine,
    grid,
    mup,
    plan,
    results,
    standard,
)
from scalejax.fitting.charts.chart import SERIES_COLOURS, Chart, joined_points
from scalejax.fitting.replicates import mean_of
from scalejax.optim.averaging import window
from scalejax.optim.schedules import constant
from scalejax.study.results import curves

if TYPE_CHECKING:
    import pandas as pd

base = Run(
    model=models.TINY[0],
    data=data.ENGLISH,
    parametrization=mup(base_width=32),
    optimizer=recipes.TINY_ADAMW,
    schedule=constant(warmup=20_480),
    tokens=409_600,
    batch_tokens=512,
)

# Two schedules count as equal when their losses differ by less than this, in nats per
# token. Seeds of one run differ by about as much.
EQUAL = 0.02

# The trunk and the average of its weights over a window, measured at every length.
TRUNK = ("constant", "average")

# An optimizer at a constant rate, whose average of the weights replaces a decay.
FREE = "schedule-free"

FAMILIES = ("cosine", "10% 1-sqrt", "20% 1-sqrt", "40% 1-sqrt", "20% linear", *TRUNK, FREE)


def design(
    name: str,
    base: Run,
    *,
    lengths: Sequence[float],
    rates: Sequence[float],
    seeds: Sequence[int],
    measure: Measure,
) -> Study:
    """Cosine runs of every length, and the cooldowns that branch off a trunk per seed.

    Schedule-free AdamW is trained for every length, too; its runs share their beginning
    like the trunks. The three are also trained at all `rates` for the shortest length.
    """
    trunks = grid(base, tokens=lengths[-1], seed=seeds)
    whole = cosine(warmup=base.schedule.warmup)
    tuning = grid(base, tokens=lengths[0], learning_rate=rates, seed=seeds)
    runs = [
        *grid(base, schedule=whole, tokens=lengths, seed=seeds),
        *trunks,
        *cooldowns(trunks, at=lengths, fraction=0.1, shape="1-sqrt"),
        *cooldowns(trunks, at=lengths, fraction=0.2, shape="1-sqrt"),
        *cooldowns(trunks, at=lengths, fraction=0.4, shape="1-sqrt"),
        *cooldowns(trunks, at=lengths, fraction=0.2, shape="linear"),
        *[run.replace(schedule=whole) for run in tuning],
        *cooldowns(tuning, at=lengths[:1], fraction=0.2, shape="1-sqrt"),
        *[schedule_free(run) for run in [*grid(base, tokens=lengths, seed=seeds), *tuning]],
    ]
    return Study(name, runs, measure=measure, analysis=analysis)


def schedule_free(run: Run) -> Run:
    """The run with schedule-free AdamW and the numbers of its AdamW."""
    return run.replace(optimizer=replace(run.optimizer, name="schedule-free-adamw"))


def analysis(folder: Path) -> Analysis:
    """Differences between schedules at equal tokens and seed, in nats per token."""
    return conclude(tidy(results(folder)), curves(folder))


def conclude(losses: "pd.DataFrame", logged: "pd.DataFrame") -> Analysis:
    """The analysis of finished runs, as `tidy` gives them, and their logged losses."""
    # The trunk has the rate at which every schedule was trained at every length.
    is_trunk = losses["family"] == "constant"
    trunk_rate = float(np.median(losses.loc[is_trunk, "learning_rate"]))
    table = losses.loc[losses["learning_rate"] == trunk_rate, :].pivot_table(
        index=["seed", "tokens"], columns="family", values="loss"
    )
    table[["constant", "average"]] = trunk_losses(losses, logged).reindex(table.index)
    missing = [name for name in FAMILIES if name not in table or table[name].isna().any()]
    if missing:
        raise ValueError(f"not every length and seed has been trained with {', '.join(missing)}")
    wsd, whole, trunk, average, free = (table[it] for it in ("20% 1-sqrt", "cosine", *TRUNK, FREE))
    tuned_wsd, tuned_cosine, tuned_free = (
        tuned(losses, it) for it in ("20% 1-sqrt", "cosine", FREE)
    )
    worth = np.expm1(EQUAL / -np.polyfit(np.log(whole.index.get_level_values(1)), whole, 1)[0])
    conclusions = [
        gap("A 20% 1-sqrt cooldown ends at cosine's loss", wsd - whole, above=-EQUAL, below=EQUAL),
        gap(
            "So it does at the best rate of each",
            tuned_wsd - tuned_cosine,
            above=-EQUAL,
            below=EQUAL,
        ),
        gap("A 1-sqrt cooldown beats a linear one", table["20% linear"] - wsd, above=0.0),
        gap("A cooldown of 20% beats one of 10%", table["10% 1-sqrt"] - wsd, above=0.0),
        gap("A cooldown of 40% beats one of 20%", wsd - table["40% 1-sqrt"], above=0.0),
        gap("Averaging weights lowers the loss of the trunk", trunk - average, above=0.0),
        gap("A cooldown ends below the average of the trunk", average - wsd, above=0.0),
        gap("A cooldown ends below schedule-free AdamW", free - wsd, above=0.0),
        gap("So it does at the best rate of both", tuned_free - tuned_wsd, above=0.0),
        Conclusion(
            claim=f"More tokens that lower the loss by {EQUAL:g} nats",
            estimate=100 * worth,
            unit="%",
            note="From the slope of cosine's loss in log tokens. It says what the bound is worth.",
        ),
    ]
    return Analysis(conclusions=conclusions, charts=[chart(table)])


def tidy(table: "pd.DataFrame") -> "pd.DataFrame":
    """The finished runs, with the name of their schedule in the column `family`."""
    table = table.loc[table["status"] == "done", :]
    cooled = (100 * table["cooldown"]).map("{:.0f}% ".format) + table["cooldown_shape"]
    family = cooled.where(table["shape"] == "wsd", table["shape"])
    return table.assign(family=family.where(table["optimizer"] == "adamw", FREE))


def trunk_losses(losses: "pd.DataFrame", logged: "pd.DataFrame") -> "pd.DataFrame":
    """Losses of the trunk and of its window average, by seed and tokens."""
    trunks = losses.loc[losses["family"] == "constant", ["run", "seed"]]
    rows = logged.dropna(subset=["loss"]).merge(trunks, on="run")
    kind = np.where(rows["weights"] == "raw", *TRUNK)
    table = rows.assign(kind=kind).pivot_table(
        index=["seed", "tokens"], columns="kind", values="loss"
    )
    return table.loc[:, list(TRUNK)]


def tuned(losses: "pd.DataFrame", family: str) -> "pd.Series":
    """Losses of the shortest runs of a family at its best learning rate."""
    shortest = losses.loc[losses["tokens"] == losses["tokens"].min(), :]
    rows = shortest.loc[shortest["family"] == family, :]
    by_rate = rows.pivot_table(index=["seed", "tokens"], columns="learning_rate", values="loss")
    return by_rate[by_rate.mean().idxmin()]


def gap(claim: str, difference: "pd.Series", **limits: float) -> Conclusion:
    """A claim about a difference of losses: a mean over lengths for every seed."""
    mean = mean_of(np.asarray(difference.groupby("seed").mean(), float))
    return Conclusion.of(
        claim,
        mean,
        unit="nats per token",
        note=f"Mean over lengths; {mean.method}.",
        **limits,
    )


def cost_ratio(runs: Sequence[Run]) -> float:
    """FLOPs of 20% 1-sqrt cooldowns off their trunks, over those of separate runs."""
    rate = runs[0].optimizer.learning_rate
    branches = [
        run
        for run in runs
        if (run.schedule.cooldown, run.schedule.cooldown_shape) == (0.2, "1-sqrt")
        and run.optimizer.learning_rate == rate
    ]
    return 1 - plan(Study("branches@1", branches)).saved_fraction


def chart(table: "pd.DataFrame") -> Chart:
    """Loss against tokens for every schedule, relative to cosine."""
    means = table.sub(table["cosine"], axis=0).groupby("tokens")
    tokens = np.unique(np.asarray(table.index.get_level_values("tokens"), float))
    marks = []
    for family, colour in zip(FAMILIES, cycle(SERIES_COLOURS), strict=False):
        y = np.asarray(means[family].mean(), float)
        error = np.nan_to_num(np.asarray(means[family].sem(), float))
        marks += joined_points(family, colour, tokens, y, error)
    return Chart(
        name="schedules",
        title="Final loss of every schedule, relative to a cosine of the same length",
        caption="Means over seeds with their standard error. `constant` is the trunk, `average` "
        "the mean of its weights over a window, `schedule-free` another optimizer.",
        x_label="training tokens",
        y_label="loss minus cosine's (nats per token)",
        marks=marks,
        log_x=True,
    )


# About half a minute on two CPU cores. The runs are too short for the paper's claims.
smoke = design(
    "cosine-vs-wsd-smoke@2",
    base.replace(schedule=constant(warmup=2_560)),
    lengths=[10_240, 20_480, 40_960],
    rates=[0.004, 0.016],
    seeds=[0, 1],
    measure=Measure(every=10_240, tokens=4_096, items=0, averages=(window(tokens=5_120),)),
)

# Minutes on two CPU cores.
mini = design(
    "cosine-vs-wsd@2",
    base,
    lengths=[102_400, 204_800, 409_600],
    rates=[0.004, 0.016],
    seeds=[0, 1, 2],
    measure=Measure(every=102_400, tokens=32_768, items=0, averages=(window(tokens=25_600),)),
)

# The ladder of Hägele et al. 2024: width and depth, and lengths in thousands of steps.
# Their cosine ends at a tenth of its peak. Ours ends at 0 like the cooldowns, because
# schedules compare only at equal final rates.
LADDER = {
    (384, 8): (3, 7, 10),
    (512, 8): (3.75, 7.5, 11.25),
    (512, 10): (7.5, 12.5, 17.5),
    (640, 12): (10, 17.5, 25),
    (768, 12): (15, 25, 35),
    (768, 16): (25, 37.5, 50),
    (896, 12): (25, 37.5, 50),
    (768, 24): (37.5, 50, 62.5),
    (1024, 24): (25, 37.5, 50),
}

paper_base = base.replace(
    data=replace(data.SLIMPAJAMA, sequence_length=512),
    parametrization=standard(),
    optimizer=recipes.HAGELE_ADAMW,
    schedule=constant(warmup=300 * 102_400),
    tokens=10_000 * 102_400,
    batch_tokens=102_400,
    compute_dtype="bfloat16",
)
paper_measure = Measure(
    every=2_500 * 102_400, tokens=2**22, items=0, averages=(window(tokens=500 * 102_400),)
)


def paper_runs(width: int, depth: int) -> Sequence[Run]:
    """The runs of one rung; the largest has twice the batch and twice the tokens."""
    double = 2 if width == 1_024 else 1
    model = Model.sized(width=width, depth=depth, head_size=64, vocabulary=50_304, tied=True)
    rung = paper_base.replace(model=model, batch_tokens=double * 102_400)
    lengths = [1_000 * it * rung.batch_tokens for it in LADDER[width, depth]]
    return design(
        "rung@1", rung, lengths=lengths, rates=[5e-4, 2e-3], seeds=[0], measure=paper_measure
    ).runs


paper = Study(
    "cosine-vs-wsd-paper@2",
    [run for rung in LADDER for run in paper_runs(*rung)],
    measure=paper_measure,
    analysis=analysis,
    placement=hardware.DEEP,
)

study = mini
