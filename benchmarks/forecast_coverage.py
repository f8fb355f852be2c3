"""How often 95% intervals of forecasts and isoFLOP fits contain the truth.

    python benchmarks/forecast_coverage.py [--sets 200] [--draws 200] [--only trunks]
        [--design bare]

All are simulated on a known Chinchilla law.

Forecasts: designs of 12, 20 and 60 runs, a grid of sizes and token budgets, with
Gaussian noise of .5%. The Chinchilla law is fitted with the Huber loss of width 1e-3
and a pairs bootstrap; it forecasts a run with twice, and with ten times, the largest
size and tokens.

Trunks: three designs whose trunks have a cooldown at each token budget. Two have
four sizes that double and a true Chinchilla law, with one seed each and with three
seeds of the two smallest; the third is the quickstart's, under the interaction law
without an irreducible loss. The noise of .4% has an intra-trunk correlation of 0, .5,
.8 or .95. Intervals are those that a fit gives to a table with the column `trunk`, and
at a correlation of 0 also those of resampled rows; the table says how often they
contain a run of twice the largest size (in the quickstart: 1.5 times) and the true
alpha, their median width, and how often the verdict is ok. All data sets of a design
are solved together, from the fit without noise.

IsoFLOP fits: four budgets of seven sizes, with noise of .002 and .005 nats per token;
the truth is the exponent of N*.

The Monte Carlo error is .015 for 200 data sets at .95.
"""

import argparse
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scalejax import laws
from scalejax.fitting import fit as fits
from scalejax.fitting import resampling
from scalejax.fitting.parametric.evaluate import evaluate
from scalejax.laws.forms import Chinchilla
from scalejax.laws.inference import intervals
from scalejax.laws.inference.verdict import judge
from scalejax.laws.interactions import Interaction
from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.losses import parse_loss
from scalejax.laws.solver.multistart import Optimum, find_optimum, refit
from scalejax.laws.solver.newton import State
from scalejax.laws.solver.problem import parameters_in_table_units

TRUTH = Chinchilla(A=300.0, B=900.0, E=1.75, alpha=0.33, beta=0.34)

# Standard deviation of the noise of log L.
NOISE = 0.005

# A law of small models.
SMALL = Chinchilla(A=20.0, B=60.0, E=1.6, alpha=0.34, beta=0.35)
DOUBLING = 33e3 * 2.0 ** np.arange(4)

# The fit to three seeds of every size and budget of the quickstart, and the parameters
# of its models with the head.
MEASURED = Interaction(A=9.33e5, B=3.895e6, E=0.0, alpha=0.810, beta=0.747, k=0.2101)
QUICKSTART = np.array([14_848.0, 41_472.0, 79_872.0, 133_120.0])
QUICKSTART_NEXT = 195_840.0

BUDGETS = np.array([0.45e6, 0.63e6, 0.88e6, 1.24e6, 1.75e6])
QUICKSTART_BUDGETS = BUDGETS[1:]
TRUNK_NOISE = 0.004

# Intra-trunk correlations of the noise.
CORRELATIONS = (0.0, 0.5, 0.8, 0.95)


class Branches(NamedTuple):
    """A design of cooldowns that branch off trunks, and the law that holds there."""

    name: str
    law: ParametricLaw[Any]
    truth: Chinchilla | Interaction
    sizes: np.ndarray
    """Parameters of the fitted models."""
    seeds: tuple[int, ...]
    """Trunks of each size."""
    budgets: np.ndarray
    """Tokens at which a cooldown of each trunk ends."""
    next_size: float
    """Parameters of the model to forecast, at the largest budget."""


CHINCHILLA = laws.chinchilla()
BRANCHES = (
    Branches("bare", CHINCHILLA, SMALL, DOUBLING, (1, 1, 1, 1), BUDGETS, 2 * DOUBLING[-1]),
    Branches("seeds", CHINCHILLA, SMALL, DOUBLING, (3, 3, 1, 1), BUDGETS, 2 * DOUBLING[-1]),
    Branches(
        name="quickstart",
        law=laws.interaction(E=0.0),
        truth=MEASURED,
        sizes=QUICKSTART,
        seeds=(3, 3, 1, 1),
        budgets=QUICKSTART_BUDGETS,
        next_size=QUICKSTART_NEXT,
    ),
)

PROTOCOLS = ("parabola", "akima")

# Params and tokens of the largest run of every design.
LARGEST = (1e9, 2e10)


def true_loss(N, D):
    """The loss without noise, nats per token."""
    return TRUTH.E + TRUTH.A * N**-TRUTH.alpha + TRUTH.B * D**-TRUTH.beta


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Coverage of forecast and isoFLOP intervals on small designs, simulated."
    )
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--only", choices=("forecasts", "trunks", "isoflop"))
    parser.add_argument("--design", choices=[design.name for design in BRANCHES])
    options = parser.parse_args()
    if options.only in (None, "trunks"):
        for design in BRANCHES:
            if options.design in (None, design.name):
                print_trunks(design, options.sets, options.draws)
    if options.only in (None, "forecasts"):
        print_forecasts(options.sets, options.draws)
    if options.only in (None, "isoflop"):
        print_isoflop(options.sets, options.draws)


def print_forecasts(sets: int, draws: int) -> None:
    for sizes, budgets in ((4, 3), (5, 4), (10, 6)):
        fractions, verdicts = forecast_coverage(sizes, budgets, sets, draws)
        columns = ", ".join(f"at {times} times {x:.3f}" for times, x in fractions.items())
        counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
        print(f"{sizes * budgets} runs: {columns} ({counts})")


def print_isoflop(sets: int, draws: int) -> None:
    for protocol in PROTOCOLS:
        for std in (0.002, 0.005):
            fraction = isoflop_coverage(protocol, std, sets, draws)
            print(f"isoflop {protocol}, {std} nats: params_exponent {fraction:.3f}")


def print_trunks(design: Branches, sets: int, draws: int) -> None:
    for correlation in CORRELATIONS:
        # What branches cost is told by the width without them, at a correlation of 0.
        for resample in (None,) if correlation else (None, "pairs"):
            counts, width = trunk_coverage(design, correlation, resample, sets, draws)
            shares = ", ".join(f"{name} {count / sets:.3f}" for name, count in counts.items())
            print(
                f"{design.name}, correlation {correlation}, {resample or 'trunks'}: "
                f"{shares}, median width {width:.4f}",
                flush=True,
            )


def trunk_coverage(
    design: Branches, correlation: float, resample: str | None, sets: int, draws: int
) -> tuple[dict[str, int], float]:
    """Count the data sets whose intervals hold a forecast and alpha, and verdicts ok.

    resample: as in `scalejax.fit`; None is the default for a table with the column
    `trunk`. Returns the counts, and the median width of the forecast's interval.
    """
    trunks, law = sum(design.seeds), design.law
    N = np.repeat(np.repeat(design.sizes, design.seeds), len(design.budgets))
    D = np.tile(design.budgets, trunks)
    trunk = np.repeat(np.arange(trunks), len(design.budgets))
    rows = pd.DataFrame({"trunk": trunk})
    chosen = resampling.choose(rows, None, resample)
    target = [np.array([design.next_size]), np.array([design.budgets[-1]])]
    exact, ahead = (np.asarray(design.truth.loss(*at)) for at in ((N, D), target))
    errors = np.empty((sets, N.size + 1))
    for seed in range(sets):
        rng = np.random.default_rng(seed)
        effects, noise = rng.normal(size=trunks)[trunk], rng.normal(size=N.size)
        errors[seed, :-1] = np.sqrt(correlation) * effects + np.sqrt(1 - correlation) * noise
        errors[seed, -1] = rng.normal()
    measured = float(ahead[0]) * np.exp(TRUNK_NOISE * errors[:, -1])
    widths, counts = [], {"forecast": 0, "alpha": 0, "ok": 0}
    optima = fits_of_sets(law, [N, D], exact, TRUNK_NOISE * errors[:, :-1])
    for seed, at in enumerate(optima):
        drawn = resampling.bootstrap_draws(
            law, at, rows, resampling=chosen, count=draws, seed=seed, floor=None
        )
        theta = drawn.theta[:, resampling.converged_mask(drawn.theta)]
        residuals = drawn.new_run
        if residuals is None:
            residuals = resampling.scaled_residuals(law, at)
        parameters = parameters_in_table_units(law, at.problem, theta)
        predicted = evaluate(law, parameters._asdict(), target)
        low, high = np.percentile(predicted[:, None] * np.exp(-residuals), (2.5, 97.5))
        widths.append(high - low)
        counts["forecast"] += low <= measured[seed] <= high
        ends = intervals.percentile_intervals(law, at.problem, theta)
        first, last = ends["alpha"]
        # An open end contains everything on its side.
        counts["alpha"] += (first or -np.inf) <= float(design.truth.alpha) <= (last or np.inf)
        ratios = intervals.size_ratios(law, at.problem, theta)
        counts["ok"] += judge(law, at, [N, D], ends, ratios).label == "ok"
    return counts, float(np.median(widths))


def fits_of_sets(
    law: ParametricLaw[Any], inputs: list[np.ndarray], exact: np.ndarray, errors: np.ndarray
) -> list[Optimum]:
    """Return the optimum of every data set.

    exact: losses without noise, (rows,).  errors: of the logarithm, (sets, rows).
    """
    rows = len(exact)
    clean = find_optimum(law, inputs, exact, np.ones(rows), parse_loss("huber:1e-3"))
    state = refit(law, clean, np.ones(errors.shape), exact * np.exp(errors))
    optima = []
    for i, error in enumerate(errors):
        own = State(*(np.asarray(values)[..., i : i + 1] for values in state))
        targets = np.array(clean.problem.targets)
        targets[:rows] = exact * np.exp(error)
        optima.append(
            clean._replace(
                theta=own.theta[:, 0], state=own, problem=clean.problem._replace(targets=targets)
            )
        )
    return optima


def forecast_coverage(
    sizes: int, budgets: int, sets: int, draws: int
) -> tuple[dict[int, float], Counter[str]]:
    """Simulate forecasts beyond one design.

    Returns the fraction of data sets whose interval contains the next measurement, for
    each multiple of the largest run, and the verdicts of the fits.
    """
    grid = np.meshgrid(np.geomspace(1e7, LARGEST[0], sizes), np.geomspace(5e8, LARGEST[1], budgets))
    N, D = (x.ravel() for x in grid)
    contained, verdicts = {2: 0, 10: 0}, Counter[str]()
    for seed in range(sets):
        rng = np.random.default_rng(seed)
        loss = true_loss(N, D) * np.exp(NOISE * rng.normal(size=N.size))
        table = pd.DataFrame({"params": N, "tokens": D, "loss": loss})
        fit = fits.fit(table, laws.chinchilla(), bootstrap=draws, seed=seed)
        verdicts[fit.verdict] += 1
        for times in contained:
            params, tokens = (times * x for x in LARGEST)
            estimate = fit.predict(params=params, tokens=tokens)
            measured = true_loss(params, tokens) * np.exp(NOISE * rng.normal())
            # An interval that is open at its lower end makes no claim.
            if estimate.low is not None:
                contained[times] += estimate.low <= measured <= estimate.high
    return {times: count / sets for times, count in contained.items()}, verdicts


def isoflop_coverage(protocol: str, std: float, sets: int, draws: int) -> float:
    """Return the fraction of data sets whose interval contains the exponent of N*."""
    flops = np.repeat([1e18, 3e18, 1e19, 3e19], 7)
    optimal = np.asarray(laws.compute_optimal(TRUTH, flops).params)
    N = optimal * np.exp(np.tile(np.linspace(-1.6, 1.6, 7), 4))
    D, exponent, contained = flops / 6 / N, float(laws.params_exponent(TRUTH)), 0
    noise = laws.Noise.parse(str(std))
    for seed in range(sets):
        loss = true_loss(N, D) + std * np.random.default_rng(seed).normal(size=N.size)
        fit = laws.fit_isoflop(
            N, D, flops, loss, protocol=protocol, noise=noise, draws=draws, seed=seed
        )
        low, high = np.nanpercentile(fit.draws[:, 0], (2.5, 97.5))
        contained += low <= exponent <= high
    return contained / sets


if __name__ == "__main__":
    main()
