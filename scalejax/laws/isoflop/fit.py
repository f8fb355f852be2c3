"""Approach 2: the compute-optimal size of every budget from its isoFLOP curve.

C training FLOPs, N parameters, D tokens, L nats per token.

Shapes: [rows] one entry per run; [draws] noise draws; [budgets] compute budgets;
[sizes] model sizes of a budget, padded to the largest number of sizes.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from scalejax.laws.isoflop.budgets import IsoFLOPCurve, isoflop_curves, listed
from scalejax.laws.isoflop.frontier import Frontier, fit_frontier
from scalejax.laws.isoflop.minima import Minima, Protocol, find_minima
from scalejax.laws.isoflop.noise import Noise
from scalejax.laws.isoflop.outliers import outlier_reasons
from scalejax.laws.isoflop.power_laws import Budget, IsoFLOPResult, fit_power_laws

# With more budgets left out than this, one sentence names them all.
MAX_REASONS = 3

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
    fixed: Mapping[str, float] | None = None,
) -> IsoFLOPResult:
    """Fit N*(C), D*(C) and the frontier L*(C) to the minima of isoFLOP curves.

    params, tokens, flops, loss: (rows,), positive. Rows whose flops differ by less than
    1% share a budget, and so do rows that scatter by more, if the gaps between budgets
    are clearly wider. The losses of such a budget are moved to its mean. Of several
    runs of one size at one budget, the lowest loss counts.

    protocol: `parabola` fits L as a quadratic in log N (Hoffmann et al. 2022, approach
    2); `akima` takes the lowest of 25 (n - 1) points of an Akima spline of log L in log
    N (Porian et al. 2024, section 3). A budget whose minimum is at the edge of its
    sizes, or whose parabola opens downwards, is left out, with a reason.

    draws: the number of times that Gaussian noise is added to all losses. N* of a
    budget is then its median over the draws, of which half must have an interior
    minimum. The power laws weight the budget by 1 / std^2 of log N*. The i-th draw of
    all budgets gives the i-th power law; their percentiles are the intervals. Where the
    optima scatter about the law by more than this noise explains, the draws are spread
    by as much, and a reason says so.

    fixed: exponents of `PowerLaws` and parameters of `Frontier` that are held, by name.

    Raises ValueError for an unknown protocol, for draws without noise, and when no
    budget has three models.
    """
    method = _checked_protocol(protocol, noise, draws)
    curves, reasons = isoflop_curves(*(np.asarray(x, float) for x in (params, tokens, flops, loss)))
    measured = np.stack([curve.loss for curve in curves])
    losses = measured[None]
    if draws and noise is not None:
        # The measured losses are solved along with the draws of the noise.
        losses = np.concatenate([losses, _noisy(measured, noise, draws, seed)])
    count = np.array([curve.models for curve in curves])
    # N* and D* are found separately, hence N* D* need not be C / 6.
    of_params = find_minima(np.stack([curve.log_N for curve in curves]), losses, count, method)
    of_tokens = find_minima(np.stack([curve.log_D for curve in curves]), losses, count, method)
    sizes, lengths = (_optima(one, with_noise=draws > 0) for one in (of_params, of_tokens))
    at_minima = zip(curves, sizes, lengths, of_params.loss[0].tolist(), strict=True)
    budgets = [_budget(*optimum, method) for optimum in at_minima]
    reasons += _left_out_reasons(budgets)
    if method == "parabola":
        reasons += outlier_reasons(curves, noise)
    held = dict(fixed or {})
    of_frontier = {name: held.pop(name) for name in Frontier._fields if name in held}
    minima = (of_params.log_size[1:], of_tokens.log_size[1:]) if draws else None
    fitted = fit_power_laws(budgets, minima, reasons, held)._replace(curves=tuple(curves))
    return _with_frontier(fitted, of_params.loss[1:] if draws else None, of_frontier)


def _with_frontier(
    fitted: IsoFLOPResult,
    loss_draws: Float[np.ndarray, "draws budgets"] | None,
    fixed: Mapping[str, float],
) -> IsoFLOPResult:
    # A budget can have an optimum in most noise draws and none in the measured losses.
    used = [
        i
        for i, budget in enumerate(fitted.budgets)
        if np.isfinite(budget.loss) and not budget.reason
    ]
    frontier = fit_frontier(
        np.array([fitted.budgets[i].flops for i in used]),
        np.array([fitted.budgets[i].loss for i in used]),
        None if loss_draws is None else loss_draws[:, used],
        fixed,
    )
    notes = frontier.reasons if fitted.verdict == "ok" else []
    return fitted._replace(reasons=(*fitted.reasons, *notes), frontier=frontier)


def _noisy(
    losses: Float[np.ndarray, "budgets sizes"], noise: Noise, draws: int, seed: int
) -> Float[np.ndarray, "draws budgets sizes"]:
    rng = np.random.default_rng(seed)
    noisy = losses + noise.std(losses) * rng.standard_normal((draws, *losses.shape))
    # A draw cannot make a loss negative.
    return np.maximum(noisy, 1e-9)


def _checked_protocol(protocol: str, noise: Noise | None, draws: int) -> Protocol:
    if protocol not in ("akima", "parabola"):
        raise ValueError(f"isoflop protocol {protocol!r} must be one of akima, parabola")
    if draws and noise is None:
        raise ValueError(
            "noise draws need the noise of a measured loss in nats per token, as STD or "
            "STD@LOSS,STD@LOSS (--noise 0.002)"
        )
    return "akima" if protocol == "akima" else "parabola"


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
    draws = minima.log_size[1:] if with_noise else minima.log_size
    for log_sizes, resolution in zip(draws.T, minima.resolution, strict=True):
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
    curve: IsoFLOPCurve,
    of_params: _Optimum,
    of_tokens: _Optimum,
    loss: float,
    protocol: Protocol,
) -> Budget:
    valid = min(of_params.valid, of_tokens.valid)
    has_optimum = np.isfinite(of_params.log_size + of_tokens.log_size)
    return Budget(
        flops=curve.flops,
        models=curve.models,
        params=float(np.exp(of_params.log_size)),
        tokens=float(np.exp(of_tokens.log_size)),
        loss=loss,
        params_std=of_params.std,
        tokens_std=of_tokens.std,
        valid=valid,
        reason="" if has_optimum else _why_left_out(curve, valid, protocol),
    )


def _why_left_out(curve: IsoFLOPCurve, valid: float, protocol: Protocol) -> str:
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


def _left_out_reasons(budgets: list[Budget]) -> list[str]:
    """One sentence per budget without an optimum, or one for all if they are many."""
    left_out = [budget for budget in budgets if budget.reason]
    if len(left_out) <= MAX_REASONS:
        return [budget.reason for budget in left_out]
    flops = np.array([budget.flops for budget in left_out])
    first = left_out[0].reason
    return [
        f"{len(left_out)} of {len(budgets)} budgets have no interior minimum and are left out: "
        f"{listed(flops)}. The first: {first}"
    ]
