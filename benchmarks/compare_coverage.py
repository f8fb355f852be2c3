"""How often the 95% intervals of `scalejax compare` contain the true gain.

    python benchmarks/compare_coverage.py [--sets 200] [--draws 200] [--only NAME]

Two Chinchilla laws are known, and so is the compute that B saves over A. Both recipes
are trained on a grid of four sizes and five budgets, 20 runs each, with Gaussian noise
of .4% of the loss. The designs:

- paired: the two runs of a size, budget and seed share half of their variance;
- close: they share nine tenths of it;
- unpaired: they share nothing, and other seeds say so;
- unlinked: they share nothing, but have the same seeds, so that they are paired;
- partial: as paired, but B lacks six of the runs;
- trunks: as paired, and the five branches of a size share half of their variance;
- small: as paired, with three budgets, 12 runs each.

The output is the share of data sets whose interval contains the true gain at the lowest
and highest budget that both cover and in the middle, and the median width of the
interval as a ratio of its ends. The Monte Carlo error is .015 for 200 data sets at .95.
"""

import argparse
from typing import NamedTuple

import numpy as np

from scalejax import laws
from scalejax.fitting.comparison import compare as comparisons
from scalejax.fitting.comparison.pairing import Pairing, draw_jointly
from scalejax.laws.forms import Chinchilla
from scalejax.laws.solver.losses import parse_loss
from scalejax.laws.solver.multistart import Optimum, find_optimum, refit

A = Chinchilla(A=20.0, B=60.0, E=1.6, alpha=0.34, beta=0.35)
B = Chinchilla(A=19.0, B=52.0, E=1.6, alpha=0.34, beta=0.35)
SIZES = 33e3 * 2.0 ** np.arange(4)
BUDGETS = np.geomspace(0.45e6, 7e6, 5)
NOISE = 0.004


class Design(NamedTuple):
    """What two recipes share."""

    budgets: int = 5
    shared: float = 0.5
    """Share of the variance of a run that its partner shares."""
    trunk: float = 0.0
    """Share of the variance of a run that the branches of its trunk share."""
    is_paired: bool = True
    missing: int = 0
    """Runs that B lacks."""


DESIGNS = {
    "paired": Design(),
    "close": Design(shared=0.9),
    "unpaired": Design(shared=0.0, is_paired=False),
    "unlinked": Design(shared=0.0),
    "partial": Design(missing=6),
    "trunks": Design(trunk=0.5),
    "small": Design(budgets=3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage of the gains of `scalejax compare`.")
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--only", choices=tuple(DESIGNS))
    options = parser.parse_args()
    for name in [options.only] if options.only else DESIGNS:
        covered, widths = coverage(DESIGNS[name], options.sets, options.draws)
        columns = "  ".join(
            f"{share:.3f} (width {width:.2f})" for share, width in zip(covered, widths, strict=True)
        )
        print(f"{name:9s} {columns}", flush=True)


def coverage(design: Design, sets: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of covered gains and the median ratio of the interval's ends."""
    tokens = np.geomspace(BUDGETS[0], BUDGETS[-1], design.budgets)
    N, D = (x.ravel() for x in np.meshgrid(SIZES, tokens, indexing="ij"))
    trunk = np.repeat(np.arange(len(SIZES)), design.budgets) if design.trunk else np.arange(N.size)
    kept = np.ones(N.size, bool)
    kept[np.linspace(1, N.size - 2, design.missing, dtype=int)] = False
    rows_of_b = np.cumsum(kept) - 1
    pairs = np.stack([np.flatnonzero(kept), rows_of_b[kept]], 1)
    pairing = Pairing(pairs if design.is_paired else pairs[:0], (trunk, trunk[kept]))
    budgets = np.geomspace((6 * N * D).min(), (6 * N * D).max(), 3).tolist()
    bracket = budgets[0] / 1e9, budgets[-1] * 1e9
    law = laws.chinchilla()
    truth = comparisons.gains_of_draws(law, _columns(A), _columns(B), budgets, bracket)[0]
    noise = [_noise(design, trunk, np.random.default_rng(seed)) for seed in range(sets)]
    optima_a = _fits(A, N, D, np.stack([a for a, _ in noise]))
    optima_b = _fits(B, N[kept], D[kept], np.stack([b[kept] for _, b in noise]))
    covered, ratios = np.zeros(len(budgets)), []
    for seed, optima in enumerate(zip(optima_a, optima_b, strict=True)):
        drawn = draw_jointly(law, optima, pairing, draws, seed)
        gains = comparisons.gains_of_draws(law, drawn.a, drawn.b, budgets, bracket)
        ends = [(low or 0.0, high or np.inf) for low, high in comparisons.interval_ends(gains)]
        covered += [low <= true <= high for true, (low, high) in zip(truth, ends, strict=True)]
        ratios.append([high / low if low else np.inf for low, high in ends])
    return covered / sets, np.median(ratios, axis=0)


def _columns(law: Chinchilla) -> dict[str, np.ndarray]:
    return {name: np.array([value]) for name, value in law._asdict().items()}


def _noise(design: Design, trunk: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Errors of log L of all runs of A and of B."""

    def unit() -> np.ndarray:
        effects = rng.normal(size=trunk.max() + 1)[trunk]
        own = rng.normal(size=len(trunk))
        return np.sqrt(design.trunk) * effects + np.sqrt(1 - design.trunk) * own

    common = unit()
    shares = np.sqrt(design.shared), np.sqrt(1 - design.shared)
    return [NOISE * (shares[0] * common + shares[1] * unit()) for _ in "AB"]


def _fits(truth: Chinchilla, N: np.ndarray, D: np.ndarray, noise: np.ndarray) -> list[Optimum]:
    """The optima of all data sets, solved together from the fit without noise."""
    law, exact = laws.chinchilla(), np.asarray(truth.loss(N, D), np.float64)
    clean = find_optimum(law, [N, D], exact, np.ones(N.size), parse_loss("huber:1e-3"))
    theta = np.asarray(refit(law, clean, np.ones(noise.shape), exact * np.exp(noise)).theta)
    padding = np.repeat(exact[:1], len(clean.weights) - N.size)
    return [
        clean._replace(
            theta=column,
            problem=clean.problem._replace(
                targets=np.concatenate([exact * np.exp(error), padding])
            ),
        )
        for column, error in zip(theta.T, noise, strict=True)
    ]


if __name__ == "__main__":
    main()
