"""Approach 1: compute-optimal sizes from the envelope of training curves.

C training FLOPs, N parameters, D tokens, L nats per token.

Shapes: [rows] one entry per point of a curve; [budgets] compute budgets.
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from scalejax.laws.isoflop.power_laws import Budget, IsoFLOPResult, fit_power_laws

# A budget needs this many sizes, so that one can lie between two others.
MIN_MODELS = 3


def envelope(
    run: ArrayLike,
    params: ArrayLike,
    tokens: ArrayLike,
    flops: ArrayLike,
    loss: ArrayLike,
    *,
    budgets: int = 200,
) -> IsoFLOPResult:
    """Fit N*(C) and D*(C) to the run of lowest loss at many budgets.

    run: (rows,) labels of the training curves. params, tokens, flops, loss: (rows,),
    the points of the curves; the losses are already smoothed. Each curve is
    interpolated log-log in C and used within its own range only.

    A budget that the smallest or the largest of its sizes wins is left out, because the
    ladder of sizes cuts its optimum off. Every run must have a schedule that matches
    its length (Hoffmann et al. 2022, section 3.1): points in the middle of a schedule
    have too high a loss.
    """
    labels = np.asarray(run)
    N, D, C, L = (np.asarray(x, float) for x in (params, tokens, flops, loss))
    log_C = np.linspace(np.log(C.min()), np.log(C.max()), budgets)
    log_L, log_N, log_D = _interpolate(labels, (L, N, D), C, log_C)
    # Curves out of range have an infinite loss and never win.
    best = np.argmin(log_L, axis=0)
    optima = []
    for b, (c, winner) in enumerate(zip(log_C, best, strict=True)):
        in_range = np.isfinite(log_L[:, b])
        sizes = np.unique(log_N[in_range, b])
        if len(sizes) >= MIN_MODELS and sizes[0] < log_N[winner, b] < sizes[-1]:
            budget = Budget(
                flops=float(np.exp(c)),
                models=len(sizes),
                params=float(np.exp(log_N[winner, b])),
                tokens=float(np.exp(log_D[winner, b])),
                loss=float(np.exp(log_L[winner, b])),
                params_std=1.0,
                tokens_std=1.0,
                valid=1.0,
                reason="",
            )
            optima.append(budget)
    reasons = []
    if len(optima) < budgets:
        reasons.append(
            f"{budgets - len(optima)} of {budgets} budgets have no winner between the smallest "
            "and the largest model"
        )
    return fit_power_laws(optima, None, reasons)


def _interpolate(
    labels: np.ndarray,
    columns: tuple[np.ndarray, ...],
    C: Float[np.ndarray, " rows"],
    log_C: Float[np.ndarray, " budgets"],
) -> Float[np.ndarray, "columns curves budgets"]:
    """Logarithms of columns at the budgets, curve by curve; inf out of range."""
    names = np.unique(labels)
    table = np.full((len(columns), len(names), len(log_C)), np.inf)
    for r, name in enumerate(names):
        rows = np.flatnonzero(labels == name)
        rows = rows[np.argsort(C[rows])]
        inside = (log_C >= np.log(C[rows[0]])) & (log_C <= np.log(C[rows[-1]]))
        for k, values in enumerate(columns):
            table[k, r, inside] = np.interp(log_C[inside], np.log(C[rows]), np.log(values[rows]))
    return table
