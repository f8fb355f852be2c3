"""Power laws through the optima of compute budgets, and what a fit of them consists of.

C training FLOPs, N parameters, D tokens.

Shapes: [draws] noise draws; [budgets] budgets with an optimum.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import chdtrc

from scalejax.laws.isoflop.budgets import IsoFLOPCurve
from scalejax.laws.isoflop.frontier import SIGNIFICANT, FrontierFit

# Percentiles of a 95% interval.
INTERVAL_PERCENTILES = (2.5, 97.5)


class PowerLaws(NamedTuple):
    """N* = params_coefficient C^params_exponent, D* = tokens_coefficient
    C^tokens_exponent (Hoffmann et al. 2022, section 3.2).

    N*, D*: compute-optimal parameters and tokens.  C: training FLOPs.
    """

    params_exponent: float | np.ndarray
    params_coefficient: float | np.ndarray
    tokens_exponent: float | np.ndarray
    tokens_coefficient: float | np.ndarray

    def params(self, C: float | np.ndarray) -> float | np.ndarray:
        """Compute-optimal number of parameters at C training FLOPs.

        >>> PowerLaws(0.5, 0.1, 0.5, 1.6).params(1e20)
        1000000000.0
        """
        return self.params_coefficient * C**self.params_exponent

    def tokens(self, C: float | np.ndarray) -> float | np.ndarray:
        """Compute-optimal number of tokens at C training FLOPs."""
        return self.tokens_coefficient * C**self.tokens_exponent


class Budget(NamedTuple):
    """The optimum at one compute budget."""

    flops: float
    models: int
    """Number of different model sizes."""
    params: float
    """N*; nan where there is no optimum, and `reason` says why."""
    tokens: float
    """D*; nan as `params`."""
    loss: float
    """Loss of the optimum, nats per token, without added noise; nan as `params`."""
    params_std: float
    """Standard deviation of log N* over the noise draws, at least the resolution of the
    protocol; 1 without draws."""
    tokens_std: float
    """The same of log D*."""
    valid: float
    """Fraction of the noise draws with an interior minimum; 1 without draws."""
    reason: str
    """Why the budget has no optimum; empty where it has one."""


class IsoFLOPResult(NamedTuple):
    """Power laws through the optima of all budgets."""

    law: PowerLaws
    """nan where fewer than two budgets have an interior minimum."""
    budgets: tuple[Budget, ...]
    draws: Float[np.ndarray, "draws 4"]
    """The law of every noise draw, in the order of PowerLaws."""
    r2: tuple[float, float]
    """Fraction of the variance of log N*, and of log D*, that the laws explain."""
    objective: float
    """Weighted sum of squared residuals of log N*."""
    gradient_norm: float
    verdict: str
    """ok or unidentified."""
    reasons: tuple[str, ...]
    frontier: FrontierFit | None = None
    """The loss of the optimum against compute; None for approach 1."""
    curves: tuple[IsoFLOPCurve, ...] = ()
    """The isoFLOP curve of each budget, for figures; empty for approach 1."""

    def interval(self, name: Literal["params", "tokens"], flops: float) -> tuple[float, float]:
        """95% interval of N* (name params) or D* (tokens); nan without draws."""
        if not len(self.draws):
            return np.nan, np.nan
        of_draws = getattr(PowerLaws(*self.draws.T), name)(flops)
        low, high = np.nanpercentile(of_draws, INTERVAL_PERCENTILES)
        return float(low), float(high)


def fit_power_laws(
    budgets: Sequence[Budget],
    minima: tuple[np.ndarray, np.ndarray] | None,
    reasons: Sequence[str],
    fixed: Mapping[str, float] | None = None,
) -> IsoFLOPResult:
    """Regress log N* and log D* on log C over the budgets that have an optimum.

    The two regressions are separate, so that their exponents need not sum to 1. Budgets
    are weighted by 1 / std^2.

    minima: log N* and log D* of every noise draw, (draws, all budgets) each, or None.
    reasons: what to report about the budgets.  fixed: exponents that are held.
    """
    held = fixed or {}
    used = np.array([i for i, budget in enumerate(budgets) if not budget.reason], int)
    if len(used) < 2:
        reason = f"{len(used)} budgets with an interior minimum: a power law needs two"
        return _no_law(budgets, (*reasons, reason))
    if len(used) == 2:
        reasons = [
            *reasons,
            "two budgets with an interior minimum determine the power law: no budget is left "
            "to check it with",
        ]
    # The draws keep their order across budgets: draw i of every budget is one data set.
    optima = [budgets[i] for i in used]
    log_C = np.log([budget.flops for budget in optima])
    of_params = _regress(
        log_C,
        np.log([budget.params for budget in optima]),
        np.array([budget.params_std for budget in optima]),
        None if minima is None else minima[0][:, used],
        held.get("params_exponent"),
    )
    of_tokens = _regress(
        log_C,
        np.log([budget.tokens for budget in optima]),
        np.array([budget.tokens_std for budget in optima]),
        None if minima is None else minima[1][:, used],
        held.get("tokens_exponent"),
    )
    if minima is not None:
        reasons = [*reasons, *_misfit_reasons(of_params, of_tokens, optima)]
    return IsoFLOPResult(
        law=PowerLaws(
            of_params.exponent, of_params.coefficient, of_tokens.exponent, of_tokens.coefficient
        ),
        budgets=tuple(budgets),
        draws=np.hstack([of_params.draws, of_tokens.draws]),
        r2=(of_params.r2, of_tokens.r2),
        objective=of_params.objective,
        gradient_norm=of_params.gradient_norm,
        verdict="ok",
        reasons=tuple(reasons),
    )


def _no_law(budgets: Sequence[Budget], reasons: tuple[str, ...]) -> IsoFLOPResult:
    return IsoFLOPResult(
        law=PowerLaws(np.nan, np.nan, np.nan, np.nan),
        budgets=tuple(budgets),
        draws=np.empty((0, 4)),
        r2=(np.nan, np.nan),
        objective=np.nan,
        gradient_norm=np.nan,
        verdict="unidentified",
        reasons=reasons,
    )


class _Regression(NamedTuple):
    """One power law through the budgets."""

    exponent: float
    coefficient: float
    r2: float
    objective: float
    gradient_norm: float
    draws: Float[np.ndarray, "draws 2"]
    """Exponent and coefficient of every noise draw, spread by `widening`."""
    squares: Float[np.ndarray, " budgets"]
    """Weighted squared residual of each budget; their expected sum is `dof`."""
    dof: int
    """Number of budgets minus number of fitted parameters."""
    widening: float
    """Factor by which the intervals are widened; 1 where the noise explains the
    residuals."""


def _regress(
    x: Float[np.ndarray, " budgets"],
    y: Float[np.ndarray, " budgets"],
    std: Float[np.ndarray, " budgets"],
    y_draws: Float[np.ndarray, "draws budgets"] | None,
    held: float | None,
) -> _Regression:
    weights = 1 / std**2
    # The point fit is the same regression with a single row.
    (slope,), (intercept,) = _line(x, y[None], weights, held)
    residual = y - intercept - slope * x
    gradient = abs(weights @ residual)
    if held is None:
        gradient = max(gradient, abs(weights @ (residual * x)))
    draws, widening = np.empty((0, 2)), 1.0
    squares, dof = weights * residual**2, len(x) - (2 if held is None else 1)
    if y_draws is not None:
        slopes, intercepts = _line(x, y_draws, weights, held)
        if dof and chdtrc(dof, squares.sum()) < SIGNIFICANT:
            # Birge's ratio: the scatter that is seen, over the one that is expected.
            widening = float(np.sqrt(squares.sum() / dof))
            slopes = slope + widening * (slopes - slope)
            intercepts = intercept + widening * (intercepts - intercept)
        draws = np.stack([slopes, np.exp(intercepts)], 1)
    return _Regression(
        exponent=float(slope),
        coefficient=float(np.exp(intercept)),
        r2=float(1 - np.sum(residual**2) / np.sum((y - y.mean()) ** 2)),
        objective=float(weights @ residual**2),
        gradient_norm=float(gradient),
        draws=draws,
        squares=squares,
        dof=dof,
        widening=widening,
    )


def _misfit_reasons(
    of_params: _Regression, of_tokens: _Regression, optima: Sequence[Budget]
) -> list[str]:
    """Say that the optima scatter by more than the noise explains."""
    # With D = C / 6 N both regressions have the same residuals: the worse one is named.
    name, fitted = max(("N*", of_params), ("D*", of_tokens), key=lambda pair: pair[1].widening)
    if fitted.widening == 1:
        return []
    worst = int(np.argmax(fitted.squares))
    return [
        f"the optima scatter about the power law of {name} by more than the noise explains: "
        f"weighted squares {fitted.squares.sum():.3g} on {fitted.dof} degrees of freedom, "
        f"{fitted.squares[worst]:.3g} of them from budget {optima[worst].flops:.3g}; intervals are "
        f"{fitted.widening:.2g} times wider for it"
    ]


def _line(
    x: Float[np.ndarray, " budgets"],
    y: Float[np.ndarray, "draws budgets"],
    weights: Float[np.ndarray, " budgets"],
    held: float | None = None,
) -> tuple[Float[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
    """Weighted least squares of each row of y on x: slopes and intercepts.

    An entry of y that is nan is left out; a row with fewer than two others gives nan.
    held: a slope that is not fitted.
    """
    w = np.where(np.isfinite(y), weights, 0.0)
    y = np.nan_to_num(y)
    # The mean of a row without any weight is not used, but must not divide by zero.
    total = np.maximum(w.sum(1), 1e-300)
    mean_x, mean_y = (w @ x) / total, (w * y).sum(1) / total
    # Centred x, because log C is about 45 and varies by a few units.
    centred = x - mean_x[:, None]
    spread = np.where((w > 0).sum(1) >= 2, (w * centred**2).sum(1), np.nan)
    slope = (w * centred * (y - mean_y[:, None])).sum(1) / spread
    if held is not None:
        slope = np.where(np.isfinite(slope), held, np.nan)
    return slope, mean_y - slope * mean_x
