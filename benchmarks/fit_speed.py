"""How fast a law is fitted, against scipy, in one process: seconds and ratios for the point fit and for 4,000 bootstraps.

    python benchmarks/fit_speed.py [--table TABLE.csv] [--where EXPR] [--draws 4000]

Two baselines, both here. Common practice is what the public notebooks do: Huber on the log-sum-exp form in raw coordinates,
numerical derivatives, 4,500 starts by L-BFGS-B for the point, one BFGS per bootstrap; it is timed on a sample and scaled. Best
scipy is what can be written with it: centred inputs, analytic gradient, tight tolerances, 64 starts from variable projection,
bootstraps started at the optimum. Both sides run on one core, since CPU seconds of several threads count their waiting; the
command at the end has all cores. Without --table the points are synthetic (240 rows on Chinchilla's law, 0.7% noise).
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CORES = os.sched_getaffinity(0)
if (
    __name__ == "__main__"
):  # before numpy and jax start their threads: BLAS's spin, three times the CPU seconds of one
    os.sched_setaffinity(0, {min(CORES)})

import numpy as np
import scipy.optimize

DELTA = 1e-3


def synthetic(path: Path) -> None:
    """240 runs around Chinchilla's design."""
    rng = np.random.default_rng(0)
    N = np.exp(rng.uniform(np.log(4e7), np.log(1.6e10), 240))
    D = np.clip(20 * N * np.exp(rng.normal(0, 1.5, 240)), 2e8, 1e12)
    loss = (1.82 + 478 * N**-0.347 + 2143 * D**-0.367) * np.exp(0.007 * rng.standard_t(4, 240))
    np.savetxt(
        path, np.stack([N, D, loss], 1), delimiter=",", header="params,tokens,loss", comments=""
    )


def huber(r):
    size = np.abs(r)
    return np.where(size <= DELTA, r * r / 2, DELTA * (size - DELTA / 2))


def objective(theta, n, d, log_loss, weights):
    """Sum of Huber for (a, b, e, alpha, beta), log L = logsumexp(a - alpha n, b - beta d, e)."""
    a, b, e, alpha, beta = theta
    terms = np.stack([a - alpha * n, b - beta * d, np.full_like(n, e)])
    top = terms.max(0)
    return float(np.sum(weights * huber(top + np.log(np.sum(np.exp(terms - top), 0)) - log_loss)))


def with_gradient(theta, n, d, log_loss, weights):
    """The same with its gradient, scaled to order one."""
    a, b, e, alpha, beta = theta
    first, second = np.exp(a - alpha * n), np.exp(b - beta * d)
    total = first + second + np.exp(e)
    r = np.log(total) - log_loss
    slope = weights * np.clip(r, -DELTA, DELTA) / total
    along = np.array(
        [
            slope @ first,
            slope @ second,
            slope.sum() * np.exp(e),
            -slope @ (first * n),
            -slope @ (second * d),
        ]
    )
    return 1e3 * float(np.sum(weights * huber(r))), 1e3 * along


def tight(start, *columns):
    options = {"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 20}
    return scipy.optimize.minimize(
        with_gradient, start, columns, jac=True, method="L-BFGS-B", options=options
    )


def best_starts(n, d, loss):
    """64 starts: (A, B, E) by nonnegative least squares on a grid of exponents, in centred units."""
    for alpha, beta in itertools.product(np.geomspace(0.05, 1.6, 8), repeat=2):
        columns = (
            np.stack([np.exp(-alpha * n), np.exp(-beta * d), np.ones_like(n)], 1) / loss[:, None]
        )
        A, B, E = np.maximum(scipy.optimize.nnls(columns, np.ones_like(n))[0], 1e-3)
        yield np.array([np.log(A), np.log(B), np.log(E), alpha, beta])


def timed(job):
    """CPU seconds and the result."""
    begin = time.process_time()
    result = job()
    return time.process_time() - begin, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table")
    parser.add_argument("--where")
    parser.add_argument("--draws", type=int, default=4000)
    chosen = parser.parse_args()
    from scalejax import laws
    from scalejax.fitting import tables
    from scalejax.laws.inference.bootstrap import resample_counts
    from scalejax.laws.solver.losses import parse_loss
    from scalejax.laws.solver.multistart import find_optimum, refit

    folder = Path(tempfile.mkdtemp())
    path = Path(chosen.table) if chosen.table else folder / "points.csv"
    if not chosen.table:
        synthetic(path)
    frame = tables.read(path)
    read = tables.read_columns(
        frame.loc[tables.row_mask(frame, chosen.where)], ("params", "tokens"), "loss"
    )
    (N, D), L = read.inputs, read.target
    n, d, y, ones = np.log(N), np.log(D), np.log(L), np.ones(len(L))
    law, kind = laws.chinchilla(), parse_loss("huber:1e-3")
    draws = resample_counts(np.random.default_rng(0), len(L), chosen.draws)

    grid = list(
        itertools.product(
            range(0, 30, 5),
            range(0, 30, 5),
            np.arange(-1, 1.5, 0.5),
            np.arange(0, 2.5, 0.5),
            np.arange(0, 2.5, 0.5),
        )
    )
    some = [grid[i] for i in np.random.default_rng(0).choice(len(grid), 60, replace=False)]
    seconds, _ = timed(
        lambda: [
            scipy.optimize.minimize(objective, s, (n, d, y, ones), method="L-BFGS-B") for s in some
        ]
    )
    common_point = seconds * len(grid) / len(some)
    centred = (n - n.mean(), d - d.mean())
    best_point, found = timed(
        lambda: min(
            (tight(s, *centred, y, ones) for s in best_starts(*centred, L)), key=lambda f: f.fun
        )
    )
    start = found.x + np.array([found.x[3] * n.mean(), found.x[4] * d.mean(), 0, 0, 0])
    seconds, _ = timed(
        lambda: [
            scipy.optimize.minimize(objective, start, (n, d, y, w), method="BFGS")
            for w in draws[:40]
        ]
    )
    common_draws = seconds * len(draws) / 40
    seconds, scipy_fits = timed(lambda: [tight(found.x, *centred, y, w) for w in draws[:400]])
    best_draws = seconds * len(draws) / 400

    find_optimum(law, [N, D], L, ones, kind)  # compiles
    ours_point, at = timed(lambda: find_optimum(law, [N, D], L, ones, kind))
    ours_draws, state = timed(lambda: refit(law, at, draws))
    print(f"objective: scipy {found.fun / 1e3:.13g}, scalejax {float(at.state.cost[0]):.13g}")
    worse = np.mean(
        [float(state.cost[i]) > f.fun / 1e3 * (1 + 1e-6) for i, f in enumerate(scipy_fits)]
    )
    print(f"bootstraps in which scalejax is more than 1e-6 above best scipy: {worse:.1%}")
    rows = [
        ("point fit, multi-start", common_point, best_point, ours_point),
        (f"{len(draws)} bootstraps, warm", common_draws, best_draws, ours_draws),
    ]
    print(
        f"{'CPU seconds':28s} {'common':>9s} {'best scipy':>10s} {'scalejax':>9s}   v. common  v. best"
    )
    for name, common, best, ours in rows:
        print(
            f"{name:28s} {common:9.2f} {best:10.3f} {ours:9.3f}   {common / ours:8.0f}x {best / ours:7.1f}x"
        )
    os.sched_setaffinity(0, CORES)
    for name in ("first run, compiles", "second run, programs cached"):
        wall = _cold(path, chosen, folder)
        print(
            f"`scalejax fit`, {name}: {wall:.2f} s wall, {common_draws / wall:.0f}x common practice"
        )


def _cold(path: Path, chosen: argparse.Namespace, folder: Path) -> float:
    """Wall seconds of the command in a fresh process, with a compile cache of its own."""
    command = [
        sys.executable,
        "-m",
        "scalejax.cli",
        "fit",
        str(path),
        "--law",
        "chinchilla",
        "--bootstrap",
        str(chosen.draws),
        "--json",
    ]
    command += ["--where", chosen.where] if chosen.where else []
    begin = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        capture_output=True,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "programs")},
    )
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
