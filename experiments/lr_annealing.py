"""Does a law fitted to two learning-rate schedules predict the loss curves of others?

Scientific: learning-rate schedule.
Nuisance: seed.
Fixed: model, data, tokens, batch size, peak and final learning rate, beta2, warmup.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from configs import data, hardware, models, recipes
from scalejax import (
    Analysis,
    Conclusion,
    Measure,
    Model,
    Optimizer,
    Run,
    Study,
    cosine,
    fit,
    grid,
    laws,
    mup,
    results,
    standard,
    wsd,
)
from scalejax.fitting.charts.chart import SERIES_COLOURS, Band, Chart, Line, Points
from scalejax.fitting.curves.result import CurveFit
from scalejax.fitting.replicates import mean_of
from scalejax.optim.schedules import constant, cyclic, linear, multistep
from scalejax.study.results import WholeCurves, whole_curves

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

# The laws are fitted to these two schedules and predict all others.
FITTED = ("constant", "cosine")

# Memory of past decreases of the learning rate, in steps, for the profile of lambda.
MEMORIES = (1, 5, 20, 50, 100, 200, 500)


class Choice(NamedTuple):
    """The schedule that a law calls best, and final losses in nats per token."""

    name: str
    forecast: float
    loss: float
    lowest: float
    """The loss of the best unseen schedule, as measured."""
    cosine: float


def design(name: str, base: Run, *, seeds: Sequence[int], measure: Measure) -> Study:
    """Nine schedules of one length, each with every seed.

    What decays ends at a tenth of the peak, as in the paper: a law of the annealing
    area has no lower limit, and a rate of 0 would extrapolate.
    """
    warmup = base.schedule.warmup
    schedules = [
        constant(warmup=warmup),
        cosine(warmup=warmup, final=0.1),
        linear(warmup=warmup, final=0.1),
        wsd(warmup=warmup, cooldown=0.2, shape="1-sqrt", final=0.1),
        *[wsd(warmup=warmup, cooldown=it, shape="linear", final=0.1) for it in (0.1, 0.2, 0.4)],
        multistep(warmup=warmup, milestones=(0.5,), factor=0.3),
        cyclic(warmup=warmup, period=round(base.tokens / 4), final=0.1),
    ]
    runs = grid(base, schedule=schedules, seed=seeds)
    return Study(name, runs, measure=measure, analysis=analysis)


def analysis(folder: Path) -> Analysis:
    """How well laws that are fitted to two curves of a seed predict the others."""
    table, curves = results(folder), whole_curves(folder)
    done = table.loc[table["status"] == "done", :]
    seeds = [named(rows, curves) for _, rows in done.groupby(["params", "seed"])]
    annealing = [fitted(seed, laws.annealing()) for seed in seeds]
    multipower = [fitted(seed, laws.multipower()) for seed in seeds]
    without = [fitted(seed, laws.annealing(C=0.0, **{"lambda": 0.0})) for seed in seeds]
    names = annealing[0].holdout.by_curve
    difference = [error(one) - error(two) for one, two in zip(annealing, multipower, strict=True)]
    on_fitted = [error_of_fitted(seed, one) for seed, one in zip(seeds, annealing, strict=True)]
    choices = [choice(seed, one) for seed, one in zip(seeds, annealing, strict=True)]
    conclusions = [
        conclusion("The annealing law predicts unseen schedules", map(error, annealing), below=0.5),
        conclusion("The multi-power law predicts them", map(error, multipower), below=0.5),
        conclusion("No law without annealing predicts them", map(error, without), above=0.5),
        conclusion("The multi-power law errs less than annealing", difference, above=0.0),
        *chosen_schedule(choices),
        conclusion("Error of annealing on the fitted curves", on_fitted),
        *(
            conclusion(
                f"Error of annealing on {name}",
                [100 * one.holdout.by_curve[name].mean_rel_error for one in annealing],
            )
            for name in names
        ),
    ]
    return Analysis(
        conclusions=conclusions, charts=[curves_chart(seeds[0], annealing[0]), lambda_chart(seeds)]
    )


def conclusion(claim: str, errors: Iterable[float], note: str = "", **limits: float) -> Conclusion:
    """A claim about the mean of one error per seed, in percent."""
    mean = mean_of([*errors])
    return Conclusion.of(
        claim,
        mean,
        unit="%",
        note=f"{note or 'Relative error of the loss'}; {mean.method}.",
        **limits,
    )


def chosen_schedule(choices: Sequence[Choice]) -> list[Conclusion]:
    """How good the schedule is that the law of each seed calls the best unseen one."""
    note = f"The law of each seed chose {', '.join(choice.name for choice in choices)}"
    missed = [100 * abs(choice.forecast / choice.loss - 1) for choice in choices]
    gains = [100 * (1 - choice.loss / choice.cosine) for choice in choices]
    expected = [100 * (1 - choice.forecast / choice.cosine) for choice in choices]
    regrets = [100 * (choice.loss / choice.lowest - 1) for choice in choices]
    return [
        conclusion(
            "The law forecasts the final loss of the schedule it chooses", missed, below=0.5
        ),
        conclusion("The chosen schedule ends below cosine, by", gains, note, above=0.0),
        conclusion("The law expected it to end below cosine by", expected, note),
        conclusion("The best schedule in hindsight ends below the chosen one, by", regrets, note),
    ]


def named(table: "pd.DataFrame", curves: WholeCurves) -> WholeCurves:
    """The curves of one model and seed, called by their schedules.

    Losses are left out before twice the warmup, where no power law holds, and where an
    unseen curve is still the constant rate: there a fit would score itself.
    """
    length = table.loc[table["shape"] == "constant", "tokens"].min()
    names = {row["run"]: schedule_name(row, length) for row in table.to_dict("records")}
    losses, schedules = (
        frame.loc[frame["curve"].isin(names), :].replace({"curve": names}) for frame in curves
    )
    rates = {name: rows["learning_rate"].to_numpy() for name, rows in schedules.groupby("curve")}
    if missing := [name for name in FITTED if name not in rates]:
        raise ValueError(
            f"the laws are fitted to {' and '.join(FITTED)}; not trained yet: {', '.join(missing)}"
        )
    first = 2 * int(table["warmup"].iloc[0] / table["batch_tokens"].iloc[0])
    begin = {name: max(first, parting(rates[name], rates["constant"])) for name in rates}
    begin |= dict.fromkeys(FITTED, first)
    return WholeCurves(losses.loc[losses["step"] >= losses["curve"].map(begin), :], schedules)


def schedule_name(row: Mapping[Hashable, Any], tokens: float) -> str:
    """The schedule of a row of results, such as `20% 1-sqrt`.

    A run longer than `tokens` is called `cosine x3`.
    """
    name = str(row["shape"])
    if name == "wsd":
        name = f"{row['cooldown']:.0%} {row['cooldown_shape']}"
    if name == "multistep":
        name = f"step {row['factor']:g}"
    length = row["tokens"] / tokens
    return f"{name} x{length:.2g}" if length > 1.01 else name


def parting(rates: np.ndarray, trunk: np.ndarray) -> int:
    """The first step at which a schedule leaves another, at most the shorter's end."""
    steps = min(len(rates), len(trunk))
    return int(np.argmax(np.append(rates[:steps] != trunk[:steps], True)))


def fitted(curves: WholeCurves, law: laws.CurveLaw) -> CurveFit:
    """The law fitted to two curves of a seed and scored on the others."""
    unseen = f"curve not in {FITTED}"
    return fit(
        curves.losses, law, loss="lad", schedules=curves.schedules, holdout=unseen, bootstrap=0
    )


def choice(curves: WholeCurves, law: CurveFit) -> Choice:
    """The unseen schedule whose final loss is the lowest by the law of a seed."""
    last = curves.losses.sort_values("step").groupby("curve").last()
    losses = dict(zip(map(str, last.index), last["loss"].to_numpy(float), strict=True))
    unseen = [name for name in losses if name not in FITTED]
    forecasts = {name: laws.predict_curve(law, rates_of(curves, name))[-1] for name in unseen}
    best = min(unseen, key=lambda name: forecasts[name])
    return Choice(
        name=best,
        forecast=float(forecasts[best]),
        loss=float(losses[best]),
        lowest=float(min(losses[name] for name in unseen)),
        cosine=float(losses["cosine"]),
    )


def error(curve_fit: CurveFit) -> float:
    """Mean relative error on the unseen curves, each counting once, in percent."""
    return 100 * curve_fit.holdout.mean_rel_error


def error_of_fitted(curves: WholeCurves, law: CurveFit) -> float:
    """Mean relative error on the two fitted curves, in percent: the noise of a loss."""
    errors = []
    for name in FITTED:
        rows = curves.losses.loc[curves.losses["curve"] == name, :]
        predicted = laws.predict_curve(law, rates_of(curves, name))[rows["step"]]
        errors.append(np.mean(np.abs(predicted / rows["loss"] - 1)))
    return 100 * float(np.mean(errors))


def rates_of(curves: WholeCurves, name: str) -> np.ndarray:
    """The learning rate of every step of a curve."""
    schedules = curves.schedules
    return schedules.loc[schedules["curve"] == name, "learning_rate"].to_numpy()


def curves_chart(curves: WholeCurves, law: CurveFit) -> Chart:
    """Losses of one seed, and the law that was fitted to two of the curves.

    The law of the constant rate is subtracted: losses differ far less between schedules
    than between steps.
    """
    rates, longest = rates_of(curves, "constant"), int(np.max(curves.losses["step"])) + 1
    rates = np.append(rates, np.full(max(0, longest - len(rates)), rates[-1]))
    constant_rate = laws.predict_curve(law, rates)
    marks = []
    groups = curves.losses.groupby("curve")
    for (name, rows), colour in zip(groups, cycle(SERIES_COLOURS), strict=False):
        steps = rows["step"].to_numpy()
        predicted = laws.predict_curve(law, rates_of(curves, str(name)))[steps]
        base, label = constant_rate[steps], f"{name} (fitted)" if name in FITTED else str(name)
        y = rows["loss"].to_numpy() - base
        marks.append(Points(label=label, colour=colour, x=steps, y=y))
        marks.append(Line(label=label, colour=colour, x=steps, y=predicted - base))
    return Chart(
        name="schedules",
        title="Loss curves of nine schedules, and a law fitted to two of them",
        caption="One seed. Points were measured; lines are the annealing law, which was fitted to "
        "the constant rate and the cosine and predicts the others from their learning rates.",
        x_label="step",
        y_label="loss minus the law at constant rate (nats)",
        marks=marks,
    )


def lambda_chart(seeds: Sequence[WholeCurves]) -> Chart:
    """Error on the unseen curves, by the lambda that the annealing law is held to."""
    means = [
        mean_of([error(fitted(seed, laws.annealing(**{"lambda": 1 - 1 / it}))) for seed in seeds])
        for it in MEMORIES
    ]
    memory, value = np.array(MEMORIES, float), np.array([mean.value for mean in means])
    ends = [
        (m.value if m.low is None else m.low, m.value if m.high is None else m.high) for m in means
    ]
    low, high = np.array(ends).T
    label, colour = "mean over seeds", "#1f5fa8"
    return Chart(
        name="lambda",
        title="Error on the unseen curves against the memory of the annealing law",
        caption="Lambda is 1 - 1 / memory. The band is the 95% interval of the mean over seeds.",
        x_label="memory 1 / (1 - lambda) (steps)",
        y_label="mean relative error (%)",
        marks=[
            Band(label=label, colour=colour, x=memory, low=low, high=high),
            Line(label=label, colour=colour, x=memory, y=value),
        ],
        log_x=True,
        reference=(0.5, "0.5%"),
    )


# About half a minute on two CPU cores. 100 steps are too few for the laws.
smoke = design(
    "lr-annealing-smoke@2",
    base.replace(schedule=constant(warmup=2_560), tokens=51_200),
    seeds=[0, 1],
    measure=Measure(every=2_560, tokens=4_096, items=0),
)

# Minutes on two CPU cores.
mini = design(
    "lr-annealing@2", base, seeds=[0, 1, 2], measure=Measure(every=12_288, tokens=8_192, items=0)
)

# The schedules whose curves Luo et al. 2025 released, for models of 25M, 100M and 400M
# parameters. The release does not name batch size and data: these are our choice.
paper_base = base.replace(
    data=replace(data.FINEWEB, sequence_length=4_096),
    parametrization=standard(),
    optimizer=Optimizer(learning_rate=3e-4, beta2=0.95, weight_decay=0.1, clip=1.0),
    schedule=constant(warmup=2_160 * 524_288),
    tokens=24_000 * 524_288,
    batch_tokens=524_288,
    compute_dtype="bfloat16",
)


def paper_runs(model: Model) -> list[Run]:
    """The nine schedules of one model, of 16,000, 24,000 and 72,000 steps."""
    warmup = paper_base.schedule.warmup
    steps = [constant(warmup=warmup), cosine(warmup=warmup, final=0.1)]
    decays = [
        wsd(warmup=warmup, cooldown=1 / 6, shape=it, final=0.1) for it in ("exponential", "linear")
    ]
    drops = [multistep(warmup=warmup, milestones=(0.5,), factor=it) for it in (0.1, 0.3, 0.6)]
    lengths = {16_000: drops, 24_000: steps + decays, 72_000: steps}
    return [
        run
        for length, schedules in lengths.items()
        for run in grid(
            paper_base, model=model, tokens=length * paper_base.batch_tokens, schedule=schedules
        )
    ]


paper = Study(
    "lr-annealing-paper@1",
    [run for model in models.LUO for run in paper_runs(model)],
    measure=Measure(every=128 * 524_288, tokens=2**22, items=0),
    analysis=analysis,
    placement=hardware.DEEP,
)

study = mini
