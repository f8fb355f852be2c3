"""Do cheap runs predict a model that is trained far beyond its compute-optimal tokens?

Gadre et al. 2024 (arXiv 2403.08540) fit a law of the loss in compute and tokens per
parameter. They forecast a 1.4B model on 640 tokens per parameter from five runs that
cost 1/300 of it. A second law, in which the gain from tokens depends on the size,
forecasts the same runs.

Scientific: model size, tokens per parameter, law, corpus.
Nuisance: seed.
Fixed: peak learning rate (transferred by muP), batch size, beta2.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from configs import data, hardware, models, recipes
from scalejax import (
    Analysis,
    Conclusion,
    Data,
    Measure,
    Model,
    Placement,
    Run,
    Study,
    cosine,
    grid,
    laws,
    mup,
    per_param,
    results,
    standard,
)
from scalejax.files import read_json
from scalejax.laws.inference.optimum import student
from scalejax.laws.inference.replicates import design_points, noise_floor
from scalejax.model.flops import flops_6nd
from scalejax.report.ledger_lines import read_ledger

base = Run(
    model=models.ISOFLOP[0],
    data=replace(data.ENGLISH, sequence_length=64),
    parametrization=mup(base_width=32),
    optimizer=recipes.TINY_ADAMW,
    schedule=cosine(warmup=16_384, final=0.01),
    tokens=1e6,
    batch_tokens=512,
    seed=0,
)


def design(
    name: str,
    base: Run,
    *,
    sizes: Sequence[Model],
    ratios: Sequence[float],
    forecast: Sequence[tuple[Model, float]],
    share: float,
    shortest: float = 0,
    seeds: Sequence[int],
    measure: Measure,
    by_size: dict[str, Callable[[Run], object]] | None = None,
    placement: Placement = hardware.ONE,
) -> Study:
    """Every size at every ratio that is cheap enough, and the runs to forecast.

    ratios: tokens per parameter, with the head counted; so is the second number of each
    forecast.  share: the largest compute of a fitted run, as a fraction of that of the
    first forecast.  shortest: the fewest tokens of a fitted run.  by_size: axes of the
    grid that depend on the model.
    """
    ahead = [
        run
        for model, ratio in forecast
        for run in grid(base, model=model, tokens=per_param(ratio), **(by_size or {}))
    ]
    limit = share * flops_6nd(ahead[0].model, ahead[0].tokens)
    runs = [
        run
        for ratio in ratios
        for run in grid(base, model=sizes, seed=seeds, tokens=per_param(ratio), **(by_size or {}))
        if flops_6nd(run.model, run.tokens) <= limit and run.tokens >= shortest
    ]
    return Study(
        name,
        runs,
        forecast=ahead,
        laws=[laws.overtraining(), laws.interaction(E=0.0), laws.downstream()],
        measure=measure,
        placement=placement,
        analysis=conclude,
    )


def conclude(folder: Path) -> Analysis:
    """Score the registered forecasts of the expensive runs."""
    ahead = read_json(folder / "study.json")["forecast"]
    return compare(results(folder), ahead, [dict(line) for line in read_ledger(folder)])


def compare(table: Any, ahead: Sequence[str], ledger: Sequence[dict[str, Any]]) -> Analysis:
    """Conclude from the results, the ids of the runs to forecast, and the ledger.

    Raises ValueError where a run to forecast is missing.
    """
    rows = table.set_index("run")
    fitted = rows[~rows.index.isin(ahead)]
    noise = noise_floor(
        np.log(fitted["loss"].to_numpy()),
        design_points([fitted["params_with_head"].to_numpy(), fitted["tokens"].to_numpy()]),
    )
    conclusions = []
    for line in ledger:
        run = line.get("run", "").rpartition("/")[2]
        if line["kind"] != "forecast" or line["metric"] != "loss" or run not in ahead:
            continue
        if run not in rows.index:
            raise ValueError(f"run {run} is forecast and has not been trained")
        measured = rows.loc[run]
        error = float(np.log(line["value"] / measured["loss"]))
        # The forecast is a number; what is uncertain is what one run measures.
        half = None if noise is None else student(noise.degrees_of_freedom) * noise.std
        ratio = measured["tokens"] / measured["params_with_head"]
        share = fitted["flops_6nd"].max() / measured["flops_6nd"]
        total = fitted["flops_6nd"].sum() / measured["flops_6nd"]
        within = (
            "no interval" if line["low"] is None else f"{line['low']:.4f} to {line['high']:.4f}"
        )
        conclusion = Conclusion(
            claim=f"The {line['law']} law forecasts the loss of width {measured['width']:.0f} at "
            f"{ratio:.0f} tokens per parameter within 1% (relative error)",
            estimate=error,
            low=None if half is None else error - half,
            high=None if half is None else error + half,
            above=-0.01,
            below=0.01,
            note=f"forecast {line['value']:.4f} ({within}), measured {measured['loss']:.4f}; "
            f"fitted runs cost at most {share:.3f} of it each and {total:.2f} together; "
            "interval from the noise between seeds",
        )
        conclusions.append(conclusion)
    return Analysis(conclusions=conclusions)


smoke = design(
    "overtraining-smoke@2",
    base,
    sizes=models.ISOFLOP[:2],
    ratios=[2, 4, 8],
    forecast=[(models.ISOFLOP[1], 20)],
    share=0.4,
    seeds=[0],
    measure=Measure(tokens=16_384, items=64),
)

# Both forecasts cost the same. Runs of fewer than 0.4M tokens are left out: tiny models
# are still on a plateau there, from which no law extrapolates.
mini = design(
    "overtraining@2",
    base,
    sizes=models.ISOFLOP,
    ratios=[5, 10, 20, 40, 80, 160, 320],
    forecast=[(models.ISOFLOP[3], 400), (models.ISOFLOP_NEXT, 20)],
    share=1 / 20,
    shortest=400_000,
    seeds=[0, 1],
    measure=Measure(tokens=65_536, items=256),
)


def fresh(name: str, corpus: Data) -> Study:
    """The over-trained run of another corpus, at half the cost.

    The law was chosen on English. These corpora had no part in that.
    """
    return design(
        name,
        base.replace(data=replace(corpus, sequence_length=64)),
        sizes=models.ISOFLOP,
        ratios=[5, 10, 20, 40, 80, 160, 320],
        forecast=[(models.ISOFLOP[3], 200)],
        share=1 / 20,
        shortest=400_000,
        seeds=[0, 1],
        measure=Measure(tokens=65_536, items=256),
    )


code = fresh("overtraining-code@1", data.CODE)
documentation = fresh("overtraining-documentation@1", data.DOCUMENTATION)

# Batch size in sequences and warmup in steps of each width in the paper.
BATCH = {96: 64, 512: 512, 576: 512, 1_024: 512, 2_048: 256, 4_096: 2_048}
WARMUP = {96: 100, 512: 400, 576: 400, 1_024: 2_000, 2_048: 5_000, 4_096: 5_000}


def batch_of(run: Run) -> int:
    """Tokens per batch."""
    return BATCH[run.model.width] * run.data.sequence_length


def warmup_of(run: Run) -> int:
    """Tokens of warmup, at most a quarter of the run."""
    return int(min(WARMUP[run.model.width] * batch_of(run), run.tokens / 4))


paper = design(
    "overtraining-paper@2",
    base.replace(
        data=replace(data.REDPAJAMA, sequence_length=2_048),
        parametrization=standard(),
        optimizer=recipes.GADRE_ADAMW,
        batch_tokens=64 * 2_048,
        compute_dtype="bfloat16",
    ),
    sizes=models.GADRE[:4],
    ratios=[5, 10, 20, 40, 80, 160, 320, 640],
    forecast=[(models.GADRE[4], 640), (models.GADRE[5], 20)],
    share=1 / 300,
    seeds=[0],
    measure=Measure(tokens=2**22, items=1_024),
    by_size={"batch_tokens": batch_of, "warmup": warmup_of},
    placement=hardware.DEEP,
)

study = mini
