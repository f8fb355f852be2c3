"""How fast a law is fitted, against scipy: the point fit, and 4,000 bootstraps.

    python benchmarks/fit_speed.py [--table TABLE.csv] [--where EXPR] [--draws 4000]

There are two baselines, both implemented below.

- Common practice is what public notebooks do: the Huber loss on the log-sum-exp form in
  raw coordinates, numerical derivatives, 4,500 starts of L-BFGS-B for the point fit and
  one BFGS for each bootstrap. It is timed on a sample and scaled up.
- Best scipy is the best that can be written with scipy: centred inputs, an analytic
  gradient, tight tolerances, 64 starts from variable projection, and bootstraps that
  start at the optimum.

Both sides run in one process on one core, because the CPU seconds of several threads
include the time that they wait. Only the `scalejax fit` commands at the end use all
cores. Without --table the points are synthetic: 240 rows on Chinchilla's law with 0.7%
noise.
"""

# ruff: noqa: E402  numpy and jax are imported after the process is pinned to one core.

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

CORES = os.sched_getaffinity(0)
if __name__ == "__main__":
    # Before numpy and jax start their threads: those of BLAS spin while they wait,
    # which triples the CPU seconds of one thread.
    os.sched_setaffinity(0, {min(CORES)})

import numpy as np
import scipy.optimize
from scipy.optimize import OptimizeResult

# Width of the Huber loss.
DELTA = 1e-3

# The fits of common practice that are timed, of all its starts and of all bootstraps.
SAMPLED_STARTS, SAMPLED_BOOTSTRAPS = 60, 40

# The bootstraps of best scipy that are timed.
SAMPLED_BEST_BOOTSTRAPS = 400

Result = TypeVar("Result")


class Points(NamedTuple):
    """The logarithms that a fit reads, each of shape [rows]."""

    log_params: np.ndarray
    log_tokens: np.ndarray
    log_loss: np.ndarray

    def centred(self) -> "Points":
        return Points(
            self.log_params - self.log_params.mean(),
            self.log_tokens - self.log_tokens.mean(),
            self.log_loss,
        )


def write_synthetic_points(path: Path) -> None:
    """Write 240 runs around the design of Chinchilla's."""
    rng = np.random.default_rng(0)
    N = np.exp(rng.uniform(np.log(4e7), np.log(1.6e10), 240))
    D = np.clip(20 * N * np.exp(rng.normal(0, 1.5, 240)), 2e8, 1e12)
    loss = (1.82 + 478 * N**-0.347 + 2143 * D**-0.367) * np.exp(0.007 * rng.standard_t(4, 240))
    columns = np.stack([N, D, loss], 1)
    np.savetxt(path, columns, delimiter=",", header="params,tokens,loss", comments="")


def huber(r: np.ndarray) -> np.ndarray:
    size = np.abs(r)
    return np.where(size <= DELTA, r * r / 2, DELTA * (size - DELTA / 2))


def objective(theta, points: Points, weights) -> float:
    """Sum of Huber losses of log L = logsumexp(a - alpha n, b - beta d, e).

    theta: (a, b, e, alpha, beta).
    """
    a, b, e, alpha, beta = theta
    n, d, log_loss = points
    terms = np.stack([a - alpha * n, b - beta * d, np.full_like(n, e)])
    top = terms.max(0)
    predicted = top + np.log(np.sum(np.exp(terms - top), 0))
    return float(np.sum(weights * huber(predicted - log_loss)))


def objective_and_gradient(theta, points: Points, weights) -> tuple[float, np.ndarray]:
    """The same objective and its gradient, scaled to order one for L-BFGS."""
    a, b, e, alpha, beta = theta
    n, d, log_loss = points
    first, second = np.exp(a - alpha * n), np.exp(b - beta * d)
    total = first + second + np.exp(e)
    r = np.log(total) - log_loss
    slope = weights * np.clip(r, -DELTA, DELTA) / total
    gradient = np.array(
        [
            slope @ first,
            slope @ second,
            slope.sum() * np.exp(e),
            -slope @ (first * n),
            -slope @ (second * d),
        ]
    )
    return 1e3 * float(np.sum(weights * huber(r))), 1e3 * gradient


def solve_tightly(start, points: Points, weights) -> OptimizeResult:
    """One fit of best scipy."""
    options = {"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 20}
    return scipy.optimize.minimize(
        objective_and_gradient,
        start,
        (points, weights),
        jac=True,
        method="L-BFGS-B",
        options=options,
    )


def projected_starts(points: Points) -> Iterator[np.ndarray]:
    """The 64 starts of best scipy: a grid of exponents, A, B and E solved linearly."""
    n, d, log_loss = points
    loss = np.exp(log_loss)
    for alpha, beta in itertools.product(np.geomspace(0.05, 1.6, 8), repeat=2):
        columns = np.stack([np.exp(-alpha * n), np.exp(-beta * d), np.ones_like(n)], 1)
        coefficients, _ = scipy.optimize.nnls(columns / loss[:, None], np.ones_like(n))
        A, B, E = np.maximum(coefficients, 1e-3)
        yield np.array([np.log(A), np.log(B), np.log(E), alpha, beta])


def timed(job: Callable[[], Result]) -> tuple[float, Result]:
    """Run a job and return its CPU seconds and its result."""
    begin = time.process_time()
    result = job()
    return time.process_time() - begin, result


class Seconds(NamedTuple):
    """CPU seconds of the point fit and of all bootstraps."""

    point: float
    bootstraps: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds of fits, against scipy.")
    parser.add_argument("--table")
    parser.add_argument("--where")
    parser.add_argument("--draws", type=int, default=4000)
    options = parser.parse_args()

    from scalejax.fitting import expressions, tables
    from scalejax.laws.inference.bootstrap import resample_counts

    folder = Path(tempfile.mkdtemp())
    path = Path(options.table) if options.table else folder / "points.csv"
    if not options.table:
        write_synthetic_points(path)
    frame = tables.read(path)
    read = tables.read_columns(
        frame.loc[expressions.row_mask(frame, options.where)], ("params", "tokens"), "loss"
    )
    N, D = read.inputs
    points = Points(np.log(N), np.log(D), np.log(read.target))
    draws = resample_counts(np.random.default_rng(0), len(read.target), options.draws)

    best, optimum, best_bootstraps = time_best_scipy(points, draws)
    # In raw coordinates the same optimum has other coefficients.
    shift = [optimum.x[3] * points.log_params.mean(), optimum.x[4] * points.log_tokens.mean()]
    common = time_common_practice(points, optimum.x + np.array([*shift, 0, 0, 0]), draws)
    ours, cost, costs = time_scalejax(read.inputs, read.target, draws)

    print(f"objective: scipy {optimum.fun / 1e3:.13g}, scalejax {cost:.13g}")
    best_costs = np.array([fit.fun / 1e3 for fit in best_bootstraps])
    worse = costs[: len(best_costs)] > best_costs * (1 + 1e-6)
    share = np.mean(worse)
    print(f"bootstraps in which scalejax is more than 1e-6 above best scipy: {share:.1%}")
    print_seconds(common, best, ours, len(draws))
    os.sched_setaffinity(0, CORES)
    for name in ("first run, compiles", "second run, programs cached"):
        wall = seconds_of_command(path, options, folder)
        ratio = common.bootstraps / wall
        print(f"`scalejax fit`, {name}: {wall:.2f} s wall, {ratio:.0f}x common practice")


def time_best_scipy(
    points: Points, draws: np.ndarray
) -> tuple[Seconds, OptimizeResult, list[OptimizeResult]]:
    """Return seconds, the optimum (centred), and the sampled bootstraps."""
    centred, ones = points.centred(), np.ones(len(points.log_loss))
    seconds_of_point, optimum = timed(
        lambda: min(
            (solve_tightly(start, centred, ones) for start in projected_starts(centred)),
            key=lambda fit: fit.fun,
        )
    )
    seconds, bootstraps = timed(
        lambda: [solve_tightly(optimum.x, centred, w) for w in draws[:SAMPLED_BEST_BOOTSTRAPS]]
    )
    scaled = seconds * len(draws) / SAMPLED_BEST_BOOTSTRAPS
    return Seconds(seconds_of_point, scaled), optimum, bootstraps


def time_common_practice(points: Points, optimum: np.ndarray, draws: np.ndarray) -> Seconds:
    """Return seconds, scaled up from samples; the bootstraps start at the optimum."""
    ones = np.ones(len(points.log_loss))
    coefficients, exponents = range(0, 30, 5), np.arange(0, 2.5, 0.5)
    offsets = np.arange(-1, 1.5, 0.5)
    grid = list(itertools.product(coefficients, coefficients, offsets, exponents, exponents))
    sample = np.random.default_rng(0).choice(len(grid), SAMPLED_STARTS, replace=False)

    def fit_point():
        for i in sample:
            scipy.optimize.minimize(objective, grid[i], (points, ones), method="L-BFGS-B")

    def fit_bootstraps():
        for weights in draws[:SAMPLED_BOOTSTRAPS]:
            scipy.optimize.minimize(objective, optimum, (points, weights), method="BFGS")

    seconds_of_point, _ = timed(fit_point)
    seconds_of_bootstraps, _ = timed(fit_bootstraps)
    return Seconds(
        seconds_of_point * len(grid) / SAMPLED_STARTS,
        seconds_of_bootstraps * len(draws) / SAMPLED_BOOTSTRAPS,
    )


def time_scalejax(
    inputs: list[np.ndarray], loss: np.ndarray, draws: np.ndarray
) -> tuple[Seconds, float, np.ndarray]:
    """Return seconds, the objective of the point fit, and those of all bootstraps."""
    from scalejax import laws
    from scalejax.laws.solver.losses import parse_loss
    from scalejax.laws.solver.multistart import find_optimum, refit

    law, huber_loss, ones = laws.chinchilla(), parse_loss("huber:1e-3"), np.ones(len(loss))
    # The first fit compiles.
    find_optimum(law, inputs, loss, ones, huber_loss)
    point, at = timed(lambda: find_optimum(law, inputs, loss, ones, huber_loss))
    bootstraps, state = timed(lambda: refit(law, at, draws))
    return Seconds(point, bootstraps), float(at.state.cost[0]), np.asarray(state.cost)


def print_seconds(common: Seconds, best: Seconds, ours: Seconds, draws: int) -> None:
    names = f"{'common':>9s} {'best scipy':>10s} {'scalejax':>9s}   v. common  v. best"
    print(f"{'CPU seconds':28s} {names}")
    for job, a, b, c in zip(
        ("point fit, multi-start", f"{draws} bootstraps, warm"), common, best, ours, strict=True
    ):
        print(f"{job:28s} {a:9.2f} {b:10.3f} {c:9.3f}   {a / c:8.0f}x {b / c:7.1f}x")


def seconds_of_command(path: Path, options: argparse.Namespace, folder: Path) -> float:
    """Wall seconds of `scalejax fit` in a fresh process, with its own compile cache."""
    command = [sys.executable, "-m", "scalejax.cli", "fit", str(path), "--law", "chinchilla"]
    command += ["--bootstrap", str(options.draws), "--json"]
    command += ["--where", options.where] if options.where else []
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "programs")}
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
