"""How often a 95% interval holds the truth, simulated: pairs bootstraps at the design of the Chinchilla points.

    python benchmarks/coverage.py [--table TABLE.csv] [--where EXPR] [--sets 1000] [--draws 1000]

Losses are drawn around a known law with noise of the logarithm of sd .005: Gaussian, and Student's t of 3 degrees of freedom.
Every data set is fitted by Huber 1e-3 and bootstrapped; printed is the share of sets whose percentile interval holds the truth,
for each parameter and for the compute-optimal size N* at 5.88e23 FLOPs (Monte Carlo error .007 for 1,000 sets at .95).
Without --table the design is synthetic, as in fit_speed.py.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from fit_speed import synthetic

TRUTH = {"A": 477.826, "B": 2143.417, "E": 1.817218, "alpha": 0.347310, "beta": 0.367172}
SD = 0.005
FLOPS = 5.88e23  # Chinchilla's budget, at which N* is judged
NOISES = {
    "Gaussian": lambda rng, rows: rng.normal(0, SD, rows),
    "t, 3 degrees": lambda rng, rows: (
        SD / np.sqrt(3) * rng.standard_t(3, rows)
    ),  # variance of t3 is 3
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table")
    parser.add_argument("--where")
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    chosen = parser.parse_args()

    from scalejax.fitting import tables

    path = Path(chosen.table) if chosen.table else Path(tempfile.mkdtemp()) / "points.csv"
    if not chosen.table:
        synthetic(path)
    frame = tables.read(path)
    read = tables.read_columns(
        frame.loc[tables.row_mask(frame, chosen.where)], ("params", "tokens"), "loss"
    )
    print(f"{len(read.target)} rows, {chosen.sets} data sets x {chosen.draws} bootstraps")
    for name, noise in NOISES.items():
        begin = time.process_time()
        held = coverage(read.inputs, noise, chosen.sets, chosen.draws)
        seconds = time.process_time() - begin
        print(
            f"{name:14s}"
            + "  ".join(f"{key} {share:.3f}" for key, share in held.items())
            + f"   ({seconds:.0f} CPU s)"
        )


def coverage(inputs, noise, sets: int, draws: int) -> dict[str, float]:
    """Share of data sets whose interval, as `scalejax.fit` makes it, holds the truth."""
    from scalejax import laws
    from scalejax.fitting.parametric.evaluate import evaluate
    from scalejax.laws.inference import bootstrap, intervals
    from scalejax.laws.solver.losses import parse_loss
    from scalejax.laws.solver.multistart import find_optimum, refit
    from scalejax.laws.solver.problem import parameters_in_table_units

    law, rows, rng = laws.chinchilla(), len(inputs[0]), np.random.default_rng(0)
    clean = evaluate(law, TRUTH, inputs)
    at = find_optimum(law, inputs, clean, np.ones(rows), parse_loss("huber:1e-3"))
    targets = clean * np.exp([noise(rng, rows) for _ in range(sets)])
    points = np.asarray(refit(law, at, np.ones((sets, rows)), targets).theta)
    best = laws.compute_optimal(law.form(**TRUTH), FLOPS)
    inside = {name: 0 for name in (*TRUTH, "N*")}
    for target, theta in zip(targets, points.T, strict=True):
        weights = bootstrap.resample_counts(rng, rows, draws)
        again = np.asarray(
            refit(
                law, at._replace(theta=theta), weights, np.broadcast_to(target, weights.shape)
            ).theta
        )
        for name, (low, high) in intervals.percentile_intervals(law, at.problem, again).items():
            inside[name] += (low or -np.inf) <= TRUTH[name] <= (high or np.inf)
        low, high = laws.compute_optimal_bands(
            parameters_in_table_units(law, at.problem, again), FLOPS
        )
        inside["N*"] += bool(low.params <= best.params <= high.params)
    return {name: count / sets for name, count in inside.items()}


if __name__ == "__main__":
    main()
