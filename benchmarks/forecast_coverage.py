"""How often 95% intervals of forecasts and isoFLOP fits contain the truth.

    python benchmarks/forecast_coverage.py [--sets 200] [--draws 200]

Both are simulated on a known Chinchilla law.

Forecasts: designs of 12, 20 and 60 runs, a grid of sizes and token budgets, with
Gaussian noise of .5%. The Chinchilla law is fitted with the Huber loss of width 1e-3
and a pairs bootstrap; it forecasts a run with twice, and with ten times, the largest
size and tokens.

IsoFLOP fits: four budgets of seven sizes, with noise of .002 and .005 nats per token;
the truth is the exponent of N*.

The Monte Carlo error is .015 for 200 data sets at .95.
"""

import argparse
from collections import Counter

import numpy as np
import pandas as pd

from scalejax import laws
from scalejax.fitting import fit as fits
from scalejax.laws.forms import Chinchilla

TRUTH = Chinchilla(A=300.0, B=900.0, E=1.75, alpha=0.33, beta=0.34)

# Standard deviation of the noise of log L.
NOISE = 0.005

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
    options = parser.parse_args()
    for sizes, budgets in ((4, 3), (5, 4), (10, 6)):
        fractions, verdicts = forecast_coverage(sizes, budgets, options.sets, options.draws)
        columns = ", ".join(f"at {times} times {x:.3f}" for times, x in fractions.items())
        counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
        print(f"{sizes * budgets} runs: {columns} ({counts})")
    for protocol in PROTOCOLS:
        for std in (0.002, 0.005):
            fraction = isoflop_coverage(protocol, std, options.sets, options.draws)
            print(f"isoflop {protocol}, {std} nats: params_exponent {fraction:.3f}")


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
