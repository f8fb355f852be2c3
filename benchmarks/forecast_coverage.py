"""How often a 95% interval holds what a run beyond a small design measures, and an isoFLOP interval the true optimum, simulated.

    python benchmarks/forecast_coverage.py [--sets 200] [--draws 200]

Designs of 12, 20 and 60 runs, sizes x token budgets on a grid, with Gaussian noise of .5%; the Chinchilla law is fitted by Huber
1e-3 with a pairs bootstrap and forecasts a run of twice, and of ten times, the largest size and tokens. IsoFLOP curves:
four budgets of seven sizes, noise of .002 and .005 nats. Monte Carlo error .015 for 200 sets at .95.
"""

import argparse
from collections import Counter

import numpy as np
import pandas as pd

from scalejax import laws
from scalejax.fitting import fit as fits
from scalejax.laws.forms import Chinchilla

TRUTH = Chinchilla(A=300.0, B=900.0, E=1.75, alpha=0.33, beta=0.34)
NOISE = 0.005
LARGEST = (1e9, 2e10)  # params, tokens


def true_loss(N, D):
    return TRUTH.E + TRUTH.A * N**-TRUTH.alpha + TRUTH.B * D**-TRUTH.beta


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Coverage of forecast and isoFLOP intervals on small designs, simulated."
    )
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--draws", type=int, default=200)
    chosen = parser.parse_args()
    for sizes, budgets in ((4, 3), (5, 4), (10, 6)):
        held, verdicts = forecasts(sizes, budgets, chosen.sets, chosen.draws)
        shares = ", ".join(f"at {times} times {share:.3f}" for times, share in held.items())
        print(
            f"{sizes * budgets} runs: {shares} ({', '.join(f'{n} {word}' for word, n in verdicts.items())})"
        )
    for protocol in ("parabola", "akima"):
        for std in (0.002, 0.005):
            print(
                f"isoflop {protocol}, {std} nats: params_exponent {isoflop(protocol, std, chosen.sets, chosen.draws):.3f}"
            )


def forecasts(sizes: int, budgets: int, sets: int, draws: int) -> tuple[dict[int, float], Counter]:
    """Share of data sets whose interval holds the next measurement, at each multiple of the largest run; and the verdicts."""
    N, D = (
        x.ravel()
        for x in np.meshgrid(
            np.geomspace(1e7, LARGEST[0], sizes), np.geomspace(5e8, LARGEST[1], budgets)
        )
    )
    held, verdicts = {2: 0, 10: 0}, Counter()
    for seed in range(sets):
        rng = np.random.default_rng(seed)
        table = pd.DataFrame(
            {
                "params": N,
                "tokens": D,
                "loss": true_loss(N, D) * np.exp(NOISE * rng.normal(size=N.size)),
            }
        )
        made = fits.fit(table, laws.chinchilla(), bootstrap=draws, seed=seed)
        verdicts[made.verdict] += 1
        for times in held:
            run = [times * x for x in LARGEST]
            estimate = made.predict(params=run[0], tokens=run[1])
            measured = true_loss(*run) * np.exp(NOISE * rng.normal())
            held[times] += estimate.low is not None and estimate.low <= measured <= estimate.high
    return {times: count / sets for times, count in held.items()}, verdicts


def isoflop(protocol: str, std: float, sets: int, draws: int) -> float:
    """Share of data sets whose interval holds the exponent of N*."""
    flops = np.repeat([1e18, 3e18, 1e19, 3e19], 7)
    N = np.asarray(laws.compute_optimal(TRUTH, flops).params) * np.exp(
        np.tile(np.linspace(-1.6, 1.6, 7), 4)
    )
    D, true, held = flops / 6 / N, float(laws.params_exponent(TRUTH)), 0
    for seed in range(sets):
        loss = true_loss(N, D) + std * np.random.default_rng(seed).normal(size=N.size)
        found = laws.fit_isoflop(
            N,
            D,
            flops,
            loss,
            protocol=protocol,
            noise=laws.Noise.parse(str(std)),
            draws=draws,
            seed=seed,
        )
        low, high = np.nanpercentile(found.draws[:, 0], (2.5, 97.5))
        held += low <= true <= high
    return held / sets


if __name__ == "__main__":
    main()
