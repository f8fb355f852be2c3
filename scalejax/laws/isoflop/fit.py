"""Approach 2: the compute-optimal size of every budget from its isoFLOP curve.

C training FLOPs, N parameters, D tokens, L nats per token.

Shapes: [rows] one entry per run; [draws] noise draws; [budgets] compute budgets;
[sizes] model sizes of a budget, padded to the largest number of sizes.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from scalejax.laws.isoflop.minima import Minima, Protocol, find_minima
from scalejax.laws.isoflop.noise import Noise
from scalejax.laws.isoflop.power_laws import Budget, IsoFLOPResult, fit_power_laws

# Runs whose log C is within this of their neighbour share a budget. A coarser rule,
# such as rounding to one figure, merges 1.5e19 with 2.4e19.
SAME_BUDGET = 0.01

# A parabola has three coefficients.
MIN_MODELS = 3

# A budget needs an interior minimum in this fraction of the noise draws.
MIN_VALID = 0.5


def fit_isoflop(
    params: ArrayLike,
    tokens: ArrayLike,
    flops: ArrayLike,
    loss: ArrayLike,
    *,
    protocol: str = "parabola",
    noise: Noise | None = None,
    draws: int = 0,
    seed: int = 0,
) -> IsoFLOPResult:
    """Fit N*(C) and D*(C) to the minima of isoFLOP curves.

    params, tokens, flops, loss: (rows,), positive. Rows whose flops differ by less than
    1% share a budget; of several runs of one size at one budget, the lowest loss
    counts.

    protocol: `parabola` fits L as a quadratic in log N (Hoffmann et al. 2022, approach
    2); `akima` takes the lowest of 25 (n - 1) points of an Akima spline of log L in log
    N (Porian et al. 2024, section 3). A budget whose minimum is at the edge of its
    sizes, or whose parabola opens downwards, is left out, with a reason.

    draws: the number of times that Gaussian noise is added to all losses. N* of a
    budget is then its median over the draws, a budget needs an interior minimum in half
    of them, and the power laws weight it by 1 / std^2 of log N*. The i-th draw of all
    budgets gives the i-th power law; their percentiles are the intervals.

    Raises ValueError for an unknown protocol, for draws without noise, and when no
    budget has three models.
    """
    if protocol not in ("akima", "parabola"):
        raise ValueError(f"isoflop protocol {protocol!r} must be one of akima, parabola")
    if draws and noise is None:
        raise ValueError(
            "noise draws need the noise of a measured loss in nats per token, as STD or "
            "STD@LOSS,STD@LOSS (--noise 0.002)"
        )
    curves, reasons = _isoflop_curves(
        *(np.asarray(x, float) for x in (params, tokens, flops, loss))
    )
    # Without noise the measured losses are the only draw.
    losses = np.stack([curve.loss for curve in curves])[None]
    if draws and noise is not None:
        losses = _noisy(losses[0], noise, draws, seed)
    count = np.array([curve.models for curve in curves])
    # N* and D* are found separately, hence N* D* need not be C / 6.
    of_params = find_minima(np.stack([curve.log_N for curve in curves]), losses, count, protocol)
    of_tokens = find_minima(np.stack([curve.log_D for curve in curves]), losses, count, protocol)
    budgets = [
        _budget(curve, params_optimum, tokens_optimum, protocol)
        for curve, params_optimum, tokens_optimum in zip(
            curves,
            _optima(of_params, with_noise=draws > 0),
            _optima(of_tokens, with_noise=draws > 0),
            strict=True,
        )
    ]
    reasons += [budget.reason for budget in budgets if budget.reason]
    minima = (of_params.log_size, of_tokens.log_size) if draws else None
    return fit_power_laws(budgets, minima, reasons)


class _IsoFLOPCurve(NamedTuple):
    """The runs of one budget, by ascending N; padded with copies of the largest."""

    log_N: Float[np.ndarray, " sizes"]
    log_D: Float[np.ndarray, " sizes"]
    loss: Float[np.ndarray, " sizes"]
    models: int
    """Number of entries that are not padding."""
    flops: float


def _isoflop_curves(
    N: Float[np.ndarray, " rows"],
    D: Float[np.ndarray, " rows"],
    C: Float[np.ndarray, " rows"],
    L: Float[np.ndarray, " rows"],
) -> tuple[list[_IsoFLOPCurve], list[str]]:
    """One curve per budget with enough models, and a reason for every other budget."""
    order = np.argsort(C, kind="stable")
    breaks = np.flatnonzero(np.diff(np.log(C[order])) > SAME_BUDGET) + 1
    budgets, reasons = [], []
    for rows in np.split(order, breaks):
        flops = float(np.exp(np.log(C[rows]).mean()))
        # By N, then by loss: the first row of each size has its lowest loss.
        rows = rows[np.lexsort((L[rows], N[rows]))]
        rows = rows[np.unique(N[rows], return_index=True)[1]]
        if len(rows) < MIN_MODELS:
            reasons.append(
                f"budget {flops:.3g} left out: it has {len(rows)} model sizes, and an isoFLOP "
                f"curve needs {MIN_MODELS}"
            )
        else:
            budgets.append((rows, flops))
    if not budgets:
        raise ValueError(
            f"no budget has {MIN_MODELS} model sizes ({len(reasons)} budgets in {len(C)} rows): "
            "an isoFLOP table needs several sizes at each value of flops"
        )
    longest = max(len(rows) for rows, _ in budgets)

    def pad(x):
        return np.pad(x, (0, longest - len(x)), mode="edge")

    log_N, log_D = np.log(N), np.log(D)
    curves = [
        _IsoFLOPCurve(pad(log_N[rows]), pad(log_D[rows]), pad(L[rows]), len(rows), flops)
        for rows, flops in budgets
    ]
    return curves, reasons


def _noisy(
    losses: Float[np.ndarray, "budgets sizes"], noise: Noise, draws: int, seed: int
) -> Float[np.ndarray, "draws budgets sizes"]:
    rng = np.random.default_rng(seed)
    noisy = losses + noise.std(losses) * rng.standard_normal((draws, *losses.shape))
    # A draw cannot make a loss negative.
    return np.maximum(noisy, 1e-9)


class _Optimum(NamedTuple):
    """The minimum of one budget over the noise draws."""

    log_size: float
    """Log of the median size; nan where too few draws have an interior minimum."""
    std: float
    """Standard deviation of the log size; 1 without draws."""
    valid: float
    """Fraction of the draws with an interior minimum."""


def _optima(minima: Minima, *, with_noise: bool) -> list[_Optimum]:
    optima = []
    for log_sizes, resolution in zip(minima.log_size.T, minima.resolution, strict=True):
        inside = log_sizes[np.isfinite(log_sizes)]
        valid = len(inside) / len(log_sizes)
        if valid < MIN_VALID:
            optima.append(_Optimum(np.nan, 1.0, valid))
            continue
        # The grid of a spline limits how well the minimum is known. Division by the
        # valid fraction lowers the weight of a budget without a minimum in some draws.
        std = max(float(inside.std()), float(resolution), 1e-12) / valid if with_noise else 1.0
        optima.append(_Optimum(float(np.log(np.median(np.exp(inside)))), std, valid))
    return optima


def _budget(
    curve: _IsoFLOPCurve, of_params: _Optimum, of_tokens: _Optimum, protocol: Protocol
) -> Budget:
    valid = min(of_params.valid, of_tokens.valid)
    has_optimum = np.isfinite(of_params.log_size + of_tokens.log_size)
    return Budget(
        flops=curve.flops,
        models=curve.models,
        params=float(np.exp(of_params.log_size)),
        tokens=float(np.exp(of_tokens.log_size)),
        params_std=of_params.std,
        tokens_std=of_tokens.std,
        valid=valid,
        reason="" if has_optimum else _why_left_out(curve, valid, protocol),
    )


def _why_left_out(curve: _IsoFLOPCurve, valid: float, protocol: Protocol) -> str:
    """Why a budget has no optimum, judged by its measured losses."""
    budget = f"budget {curve.flops:.3g} left out: "
    lowest = int(np.argmin(curve.loss[: curve.models]))
    if lowest in (0, curve.models - 1):
        end = "smallest" if lowest == 0 else "largest"
        return budget + (
            f"its lowest loss is at the {end} model, {np.exp(curve.log_N[lowest]):.3g} parameters, "
            "so that the optimum is not bracketed"
        )
    reason = "no interior minimum"
    if protocol == "parabola":
        reason = "the parabola opens downwards or has its vertex outside of the sizes"
    share = f" in {100 * (1 - valid):.0f}% of the noise draws" if 0 < valid < 1 else ""
    return budget + reason + share
