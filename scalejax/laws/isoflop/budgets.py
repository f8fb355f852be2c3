"""Which runs share a compute budget, and the isoFLOP curve of each budget.

C training FLOPs, N parameters, D tokens, L nats per token.

Shapes: [rows] one entry per run; [sizes] model sizes of a budget, padded to the largest
number of sizes.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Runs whose log C is within this of their neighbour always share a budget. A coarser
# rule, such as rounding to one figure, merges 1.5e19 with 2.4e19.
SAME_BUDGET = 0.01

# FLOPs that scatter about their nominal budgets have small gaps within a budget and
# large gaps between budgets. Two groups of gaps are told apart from this ratio on.
CLEAR_RATIO = 4.0

# A parabola has three coefficients.
MIN_MODELS = 3


class IsoFLOPCurve(NamedTuple):
    """The runs of one budget, by ascending N; padded with copies of the largest."""

    log_N: Float[np.ndarray, " sizes"]
    log_D: Float[np.ndarray, " sizes"]
    loss: Float[np.ndarray, " sizes"]
    models: int
    """Number of entries that are not padding."""
    flops: float


def isoflop_curves(
    N: Float[np.ndarray, " rows"],
    D: Float[np.ndarray, " rows"],
    C: Float[np.ndarray, " rows"],
    L: Float[np.ndarray, " rows"],
) -> tuple[list[IsoFLOPCurve], list[str]]:
    """Return a curve per budget with enough models, and say what was left out.

    Raises ValueError when no budget has enough models.
    """
    log_C, log_N, log_D = np.log(C), np.log(N), np.log(D)
    order = np.argsort(C, kind="stable")
    budgets, small = [], []
    for rows in np.split(order, _breaks(log_C[order])):
        mean = float(log_C[rows].mean())
        # By N, then by loss: the first row of each size has its lowest loss.
        rows = rows[np.lexsort((L[rows], N[rows]))]
        rows = rows[np.unique(N[rows], return_index=True)[1]]
        (budgets if len(rows) >= MIN_MODELS else small).append((rows, mean))
    if not budgets:
        raise ValueError(
            f"no budget has {MIN_MODELS} model sizes ({len(small)} budgets in {len(C)} rows): an "
            "isoFLOP table needs several sizes at each value of flops. Where the FLOPs scatter, "
            "name a column of nominal budgets: --columns flops=BUDGET"
        )
    means = np.array([mean for _, mean in budgets])
    scattered = [float(np.ptp(log_C[rows])) > SAME_BUDGET for rows, _ in budgets]
    slopes = _slopes(means, np.array([L[rows].min() for rows, _ in budgets]))
    longest = max(len(rows) for rows, _ in budgets)
    curves = []
    for (rows, mean), scatters, slope in zip(budgets, scattered, slopes, strict=True):
        # What a run would have cost at the budget's mean, with more or fewer tokens.
        shift = mean - log_C[rows] if scatters else np.zeros(len(rows))
        columns = (log_N[rows], log_D[rows] + shift, L[rows] + slope * shift)
        x, d, loss = (np.pad(c, (0, longest - len(rows)), mode="edge") for c in columns)
        curves.append(IsoFLOPCurve(x, d, loss, len(rows), float(np.exp(mean))))
    return curves, [*_scatter_reasons(means, scattered), *_small_reasons(small)]


def _breaks(log_C: Float[np.ndarray, " rows"]) -> np.ndarray:
    """Where the next budget begins in sorted FLOPs.

    >>> _breaks(np.log([1.0e18, 1.03e18, 1.05e18, 1.00e19, 1.04e19])).tolist()
    [3]
    """
    gaps = np.diff(log_C)
    wide = np.sort(gaps[gaps > SAME_BUDGET])
    if not len(wide):
        return np.zeros(0, int)
    # Either all wide gaps lie between budgets, or those above the largest jump do.
    below = np.r_[SAME_BUDGET, wide[:-1]]
    jump = int(np.argmax(wide / below))
    if wide[jump] < CLEAR_RATIO * below[jump]:
        jump = 0
    return np.flatnonzero(gaps >= wide[jump]) + 1


def _slopes(
    log_C: Float[np.ndarray, " budgets"], lowest: Float[np.ndarray, " budgets"]
) -> Float[np.ndarray, " budgets"]:
    """Return dL/dlogC at each budget, from the lowest losses of its neighbours.

    At the optimum the loss does not change with N. So the slope of the lowest losses is
    also the slope at fixed N, by which a run's loss is moved to its budget's mean.
    """
    if len(log_C) < 2:
        return np.zeros(len(log_C))
    return np.gradient(lowest, log_C)


def _scatter_reasons(means: Float[np.ndarray, " budgets"], scattered: list[bool]) -> list[str]:
    if not any(scattered):
        return []
    return [
        f"the FLOPs of {sum(scattered)} budgets scatter by more than {SAME_BUDGET:.0%}; budgets "
        f"were told apart by the gaps between them ({listed(np.exp(means))}), and losses moved to "
        "the mean of each"
    ]


def _small_reasons(small: list[tuple[np.ndarray, float]]) -> list[str]:
    """One sentence about the budgets that have too few models."""
    if not small:
        return []
    flops = np.exp([mean for _, mean in small])
    if len(small) == 1:
        sizes = len(small[0][0])
        return [
            f"budget {flops[0]:.3g} left out: it has {sizes} model sizes, and an isoFLOP curve "
            f"needs {MIN_MODELS}"
        ]
    runs = sum(len(rows) for rows, _ in small)
    return [
        f"{len(small)} budgets with fewer than {MIN_MODELS} model sizes left out ({runs} runs): "
        f"{listed(flops)}"
    ]


def listed(numbers: np.ndarray) -> str:
    """Return up to six numbers in words; the first ones and the last, if more.

    >>> listed(np.array([1e18, 2e18]))
    '1e+18, 2e+18'
    """
    texts = [f"{number:.3g}" for number in numbers]
    return ", ".join(texts if len(texts) <= 6 else [*texts[:4], "...", texts[-1]])
