"""How often 95% intervals of the Chinchilla law contain the truth, by simulation.

    python benchmarks/coverage.py [--table TABLE.csv] [--where EXPR] [--sets 1000]
        [--draws 1000]

Losses are drawn around a known law at the params and tokens of the table, with noise of
the logarithm of standard deviation .005: Gaussian, and Student's t with 3 degrees of
freedom. Every data set is fitted with the Huber loss of width 1e-3 and bootstrapped by
pairs. The output is the fraction of data sets whose percentile interval contains the
truth, for every parameter and for the compute-optimal size N* at 5.88e23 FLOPs. The
Monte Carlo error is .007 for 1,000 data sets at .95. Without --table the design is
synthetic, as in fit_speed.py.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fit_speed import write_synthetic_points

TRUTH = {"A": 477.826, "B": 2143.417, "E": 1.817218, "alpha": 0.347310, "beta": 0.367172}

# Standard deviation of the noise of log L.
NOISE_STD = 0.005

# Chinchilla's budget, at which N* is judged.
FLOPS = 5.88e23


def gaussian(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.normal(0, NOISE_STD, rows)


def student_t(rng: np.random.Generator, rows: int) -> np.ndarray:
    # The variance of Student's t with 3 degrees of freedom is 3.
    return NOISE_STD / np.sqrt(3) * rng.standard_t(3, rows)


NOISES = {"Gaussian": gaussian, "t, 3 degrees": student_t}


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage of the intervals of a law.")
    parser.add_argument("--table")
    parser.add_argument("--where")
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()

    from scalejax.fitting import expressions, tables

    path = Path(options.table) if options.table else Path(tempfile.mkdtemp()) / "points.csv"
    if not options.table:
        write_synthetic_points(path)
    frame = tables.read(path)
    read = tables.read_columns(
        frame.loc[expressions.row_mask(frame, options.where)], ("params", "tokens"), "loss"
    )
    print(f"{len(read.target)} rows, {options.sets} data sets x {options.draws} bootstraps")
    for name, noise in NOISES.items():
        begin = time.process_time()
        fractions = coverage(read.inputs, noise, options.sets, options.draws)
        seconds = time.process_time() - begin
        columns = "  ".join(f"{key} {fraction:.3f}" for key, fraction in fractions.items())
        print(f"{name:14s}{columns}   ({seconds:.0f} CPU s)")


def coverage(
    inputs: list[np.ndarray],
    noise: Callable[[np.random.Generator, int], np.ndarray],
    sets: int,
    draws: int,
) -> dict[str, float]:
    """Return the fraction of data sets whose interval contains the truth.

    The fits and intervals are those of `scalejax.fit`, all data sets solved together.
    """
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
    fits = np.asarray(refit(law, at, np.ones((sets, rows)), targets).theta)
    best = laws.compute_optimal(law.form(**TRUTH), FLOPS)
    contained = {name: 0 for name in (*TRUTH, "N*")}
    for target, theta in zip(targets, fits.T, strict=True):
        weights = bootstrap.resample_counts(rng, rows, draws)
        target_of_draws = np.broadcast_to(target, weights.shape)
        state = refit(law, at._replace(theta=theta), weights, target_of_draws)
        bootstraps = np.asarray(state.theta)
        ends = intervals.percentile_intervals(law, at.problem, bootstraps)
        for name, (low, high) in ends.items():
            # An open end contains everything on its side.
            contained[name] += (low or -np.inf) <= TRUTH[name] <= (high or np.inf)
        parameters = parameters_in_table_units(law, at.problem, bootstraps)
        low, high = laws.compute_optimal_bands(parameters, FLOPS)
        contained["N*"] += bool(low.params <= best.params <= high.params)
    return {name: count / sets for name, count in contained.items()}


if __name__ == "__main__":
    main()
