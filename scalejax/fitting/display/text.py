"""Fits and forecasts as text: what `print(fit)` and the command line show.

A fit shows itself by these functions, so they do not import its class.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from scalejax.laws.solver.losses import parse_loss


def fit_text(fit: Any) -> str:
    """A `Fit`: its verdict and reasons, its parameters, and how well it predicts."""
    lines = [f"{fit.law.name} on {fit.n_rows} rows: {fit.verdict}"]
    lines += [f"  {reason}" for reason in fit.reasons]
    for name, value in fit.params.items():
        number = f"{value:.6g}" if np.isfinite(value) else "unknown"
        interval = _interval(fit.intervals[name], digits=6) if name in fit.intervals else ""
        lines.append(f"  {name:24s} {number}{interval}")
    if np.isfinite(fit.objective):
        lines.append(
            f"  objective {fit.objective:.10g} ({fit.loss}), reached by "
            f"{fit.starts_at_optimum:.0%} of the starts"
        )
    if "chinchilla" in fit.views:
        parameters = ", ".join(f"{name} {x:.6g}" for name, x in fit.views["chinchilla"].items())
        lines.append(f"  chinchilla, for comparison: {parameters}")
    lines += _spread_line(fit)
    lines += _scores_line("holdout", fit.holdout)
    method = f"{fit.cross_validation.method} cross-validation"
    lines += _scores_line(method, fit.cross_validation)
    if left_out := fit.cross_validation.left_out:
        total = left_out + fit.cross_validation.splits
        lines.append(
            f"    {left_out} of {total} splits have no score: their rows do not determine every "
            "parameter"
        )
    return "\n".join(lines)


def forecast_text(forecast: Any) -> str:
    """A `Forecast`: a prediction with its interval, and the run that it is about."""
    estimate = forecast.estimate
    ends = (estimate.low, estimate.high)
    interval = "" if ends == (None, None) else _interval(ends, digits=5)
    lines = [f"{estimate.value:.5g}{interval}  ({estimate.method})"]
    # The other numbers describe the run: its params and tokens, say. Those of a
    # compute-optimal run have intervals of their own.
    for name, value in forecast.run.items():
        ends = forecast.intervals.get(name)
        lines.append(f"  {name:24s} {value:.6g}{_interval(ends, digits=5) if ends else ''}")
    return "\n".join(lines)


def _spread_line(fit: Any) -> list[str]:
    """How far the fitted rows lie from the law, for laws of one row per run."""
    quality = getattr(fit, "quality", None)
    if quality is None or not np.isfinite(quality.residual_spread):
        return []
    spread = quality.residual_spread
    relative = parse_loss(fit.loss).residual == "log"
    return [f"  residual spread {spread:.2%}" if relative else f"  residual spread {spread:.4g}"]


def _scores_line(name: str, scores: Any) -> list[str]:
    """How well the fit predicts rows that it was not fitted to, if there are any."""
    if not scores.n:
        return []
    mean, largest = scores.mean_rel_error, scores.max_rel_error
    line = f"  {name}: n {scores.n}, mean relative error {mean:.2%}, max {largest:.2%}"
    r2 = getattr(scores, "r2", None)
    return [line if r2 is None else f"{line}, R2 {r2:.4g}"]


def _interval(ends: Iterable[float | None], digits: int) -> str:
    """A 95% interval; an end that is not bounded is printed as `open`."""
    low, high = ("open" if end is None else f"{end:.{digits}g}" for end in ends)
    return f"  95% [{low}, {high}]"
