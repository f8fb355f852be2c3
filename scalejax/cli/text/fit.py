"""What `fit` and `predict` print."""

from collections.abc import Iterable

import numpy as np

from scalejax.fitting.parametric.result import ParametricFit
from scalejax.fitting.result import Errors, Fit, Forecast, Scores
from scalejax.laws.solver.losses import parse_loss


def fit_text(fit: Fit) -> str:
    """A fit: its verdict and reasons, its parameters, and how well it predicts."""
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


def forecast_text(forecast: Forecast) -> str:
    """A prediction with its interval, and the run that it is about."""
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


def _spread_line(fit: Fit) -> list[str]:
    """How far the fitted rows lie from the law, for laws of one row per run."""
    if not isinstance(fit, ParametricFit) or not np.isfinite(fit.quality.residual_spread):
        return []
    spread = fit.quality.residual_spread
    relative = parse_loss(fit.loss).residual == "log"
    return [f"  residual spread {spread:.2%}" if relative else f"  residual spread {spread:.4g}"]


def _scores_line(name: str, scores: Errors) -> list[str]:
    """How well the fit predicts rows that it was not fitted to, if there are any."""
    if not scores.n:
        return []
    mean, largest = scores.mean_rel_error, scores.max_rel_error
    line = f"  {name}: n {scores.n}, mean relative error {mean:.2%}, max {largest:.2%}"
    has_r2 = isinstance(scores, Scores) and scores.r2 is not None
    return [f"{line}, R2 {scores.r2:.4g}" if has_r2 else line]


def _interval(ends: Iterable[float | None], digits: int) -> str:
    """A 95% interval; an end that is not bounded is printed as `open`."""
    low, high = ("open" if end is None else f"{end:.{digits}g}" for end in ends)
    return f"  95% [{low}, {high}]"
