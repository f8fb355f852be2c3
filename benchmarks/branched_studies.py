"""How often forecasts from real studies with branches hold the measured loss.

    python benchmarks/branched_studies.py [--seeds 20] [--out FOLDER] [--devices 2]

Every seed is a study of its own: models of four sizes, a constant-rate trunk of each,
and a cooldown off every trunk at each of four token budgets. From these 16 runs a law
forecasts a model of the next size at the largest budget, which is trained too. The runs
of all seeds are trained together, by `scalejax run`.

Prints for two laws how many of the 95% intervals hold the loss measured with the same
seed, and their median width: with the column `trunk`, as a fit reads it by default, and
with rows resampled one by one, as if branches were independent. The goal is .90 or more
without repeated trunks, and .93 or more with them. If the true coverage is 95%, at
least 17 of 20 are inside with a probability of .98. Runs of the next size differ by
their seed only, so every interval is also compared with the losses of all of them.

The design with repeated trunks adds the trunks of the next two seeds, for the two
smallest sizes. Studies then share trunks, and are not independent of each other.

Prints also the intra-trunk correlation of every size: the intraclass correlation of the
log loss by a two-way analysis of variance, between trunks and budgets.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import scalejax
from scalejax import laws

COMMAND = [sys.executable, "-m", "scalejax.cli"]

BUDGETS = [0.08e6, 0.11e6, 0.16e6, 0.22e6]

# Trunks of each of the two smallest sizes in the design with repeated trunks.
REPEATS = 3

DRAWS = 400

STUDY = '''"""Do forecasts hold the loss of the next size?"""
from configs import data, recipes
from scalejax import Measure, Model, Run, Study, cooldowns, grid, mup
from scalejax.optim.schedules import constant

sizes = [
    Model.sized(width=width, depth=1, head_size=4, vocabulary=512, qk_norm=True)
    for width in (8, 12, 16, 24, 32)
]
base = Run(
    model=sizes[0],
    data=data.ENGLISH,
    parametrization=mup(base_width=32),
    optimizer=recipes.TINY_ADAMW,
    schedule=constant(warmup=20_000),
    tokens={last},
    batch_tokens=512,
)
trunks = grid(base, model=sizes[:4], seed=range({seeds}))
ahead = grid(base, model=sizes[4], seed=range({seeds}))
study = Study(
    "branched@1",
    cooldowns(trunks, at={budgets}, fraction=0.2, shape="1-sqrt")
    + cooldowns(ahead, at=[{last}], fraction=0.2, shape="1-sqrt"),
    measure=Measure(items=0),
)
'''


class Coverage(NamedTuple):
    """How often the intervals of some studies hold what was measured."""

    forecasts: int
    """Studies whose fit converged."""
    own: int
    """Studies whose interval holds the loss of their own seed."""
    share_of_all: float
    """Share of pairs of an interval and a run of the next size that it holds."""
    width: float
    """Median width of the intervals, nats per token."""
    bias: float
    """Mean of forecast minus measured loss, nats per token."""


def main() -> None:
    """Train the studies and print how their forecasts did."""
    parser = argparse.ArgumentParser(description="Coverage of forecasts from real studies.")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, help="folder that is kept, and continued from")
    parser.add_argument("--devices", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        table = train(folder, options.seeds, options.devices)
    print_correlations(table)
    for law in (laws.chinchilla(), laws.interaction(E=0.0)):
        for repeats in (1, REPEATS):
            for resample in (None, "pairs"):
                found = coverage(table, law, repeats, resample)
                print(
                    f"{law.name}, {repeats} trunks of the small sizes, "
                    f"{resample or 'trunks'}: {found.own} of {found.forecasts} inside, "
                    f"{found.share_of_all:.3f} of all pairs; median width {found.width:.3f}, "
                    f"bias {found.bias:+.3f}",
                    flush=True,
                )


def train(folder: Path, seeds: int, devices: int) -> pd.DataFrame:
    """Train all studies as one, and return the table of its results."""
    folder.mkdir(parents=True, exist_ok=True)
    experiment = folder / "branched.py"
    experiment.write_text(STUDY.format(seeds=seeds, budgets=BUDGETS, last=BUDGETS[-1]))
    command = [*COMMAND, "run", experiment, "--out", folder, "--devices", str(devices)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return scalejax.results(folder / "branched@1")


def coverage(
    table: pd.DataFrame, law: laws.ParametricLaw, repeats: int, resample: str | None
) -> Coverage:
    """Forecast the next size from the runs of each seed, and compare.

    repeats: trunks of each of the two smallest sizes.  resample: as in `scalejax.fit`.
    """
    # A law fitted to a table of results reads the parameters with the head, so the next
    # size must be given in the same count.
    params, seeds = table.params_with_head, np.unique(table.seed)
    sizes = np.unique(params)
    measured = table[params == sizes[-1]].set_index("seed").loss
    with_forecast, ends, values = [], [], []
    for seed in seeds:
        repeated = (seed + np.arange(repeats)) % len(seeds)
        in_study = (params < sizes[-1]) & (
            (table.seed == seed) | (params <= sizes[1]) & table.seed.isin(repeated)
        )
        fit = scalejax.fit(table[in_study], law, bootstrap=DRAWS, resample=resample)
        if fit.verdict == "not-converged":
            continue
        estimate = fit.predict(params=sizes[-1], tokens=table.tokens.max())
        low, high = estimate.low, estimate.high
        # An interval without an end holds everything on that side.
        with_forecast.append(seed)
        ends.append((-np.inf if low is None else low, np.inf if high is None else high))
        values.append(estimate.value)
    low, high = np.transpose(ends)
    losses, own = measured.to_numpy(), measured.loc[with_forecast].to_numpy()
    return Coverage(
        forecasts=len(own),
        own=int(np.sum((low <= own) & (own <= high))),
        share_of_all=float(np.mean((low[:, None] <= losses) & (losses <= high[:, None]))),
        width=float(np.median(high - low)),
        bias=float(np.mean(values - own)),
    )


def print_correlations(table: pd.DataFrame) -> None:
    """Print how strongly the budgets of a trunk agree, and their noise, by size."""
    for params, runs in table.groupby("params"):
        if runs.tokens.nunique() == 1:
            print(f"params {params}: noise {np.log(runs.loss).std():.2%}")
            continue
        log_losses = np.log(runs.pivot(index="seed", columns="tokens", values="loss").to_numpy())
        deviations = log_losses - log_losses.mean(axis=0)
        trunks, budgets = deviations.shape
        of_trunks = deviations.mean(axis=1, keepdims=True)
        between = budgets * np.sum(of_trunks**2) / (trunks - 1)
        within = np.sum((deviations - of_trunks) ** 2) / ((trunks - 1) * (budgets - 1))
        correlation = (between - within) / (between + (budgets - 1) * within)
        print(
            f"params {params}: intra-trunk correlation {correlation:.2f}, "
            f"noise {np.sqrt(np.sum(deviations**2) / ((trunks - 1) * budgets)):.2%}"
        )


if __name__ == "__main__":
    main()
