"""What `fit` and `predict` print.

In a module of its own, since these verbs should not wait for flax to be imported.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from scalejax.fitting.fit import Fit


def forecast_text(forecast: dict[str, Any]) -> str:
    """What `scalejax predict` prints: value and interval, and the run that they are of."""
    known = forecast["interval"] != [None, None]
    lines = [
        f"{forecast['value']:.5g}{_band(forecast['interval'], 5) if known else ''}  ({forecast['method']})"
    ]
    for name, value in forecast.items():
        if isinstance(value, float) and name != "value":
            ends = forecast.get(f"{name}_interval")
            lines.append(f"  {name:24s} {value:.6g}" + (_band(ends, 5) if ends else ""))
    return "\n".join(lines)


def _band(ends: Iterable[float | None], digits: int) -> str:
    return "  95% [{}, {}]".format(
        *("open" if end is None else f"{end:.{digits}g}" for end in ends)
    )


def fit_text(fit: Fit) -> str:
    """A fit on one screen."""
    lines = [
        f"{fit.law.name} on {fit.n_rows} rows: {fit.verdict}"
        + "".join(f"\n  {reason}" for reason in fit.reasons)
    ]
    for name, value in fit.params.items():
        shown = f"{value:.6g}" if np.isfinite(value) else "unknown"
        lines.append(
            f"  {name:24s} {shown}"
            + (_band(fit.intervals[name], 6) if name in fit.intervals else "")
        )
    if np.isfinite(fit.objective):
        lines.append(
            f"  objective {fit.objective:.10g} ({fit.loss}), reached by {fit.starts_at_optimum:.0%} of starts"
        )
    if "chinchilla" in fit.views:
        lines.append(
            "  beside it, chinchilla: "
            + ", ".join(f"{name} {x:.6g}" for name, x in fit.views["chinchilla"].items())
        )
    crossed = f"{fit.cross_validation.get('method', 'rolling-origin')} cross-validation"
    for name, record in (("holdout", fit.holdout), (crossed, fit.cross_validation)):
        if record.get("n"):
            mean, most = record["mean_rel_error"], record["max_rel_error"]
            lines.append(
                f"  {name}: n {record['n']}, mean relative error {mean:.2%}, max {most:.2%}"
            )
    return "\n".join(lines)
