"""What `fit` and `predict` print."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scalejax.fitting.display import tables
from scalejax.fitting.display.text import fit_text as fit_text
from scalejax.fitting.display.text import forecast_text as forecast_text
from scalejax.fitting.result import Estimate, Fit


def groups_text(by: str, fits: Mapping[str, Fit[Any]], form: tables.Format | None) -> str:
    """Fits of several groups of rows as one table, and below it what each has to say.

    by: the column of the groups.  fits: by its values.  form: latex or markdown gives
    only the table.
    """
    names = list(dict.fromkeys(name for fit in fits.values() for name in fit.params))
    head = [by, "rows", "verdict", *names]
    rows = [
        [group, str(fit.n_rows), fit.verdict, *(_parameter(fit, name) for name in names)]
        for group, fit in fits.items()
    ]
    if form is not None:
        return tables.render(head, rows, form)
    reasons = [f"{group}: {reason}" for group, fit in fits.items() for reason in fit.reasons]
    return "\n".join([tables.plain(head, rows), *reasons])


def registered_text(estimate: Estimate) -> str:
    """Return a forecast that has been registered, in one line.

    >>> registered_text(Estimate(2.5, 2.4, None, 0.95, "pairs"))
    'registered: loss 2.5000, 95% interval [2.4000, open]; pairs'
    """
    ends = ("open" if end is None else f"{end:.4f}" for end in (estimate.low, estimate.high))
    interval = f"{estimate.level:.0%} interval [{', '.join(ends)}]"
    return f"registered: loss {estimate.value:.4f}, {interval}; {estimate.method}"


def _parameter(fit: Fit[Any], name: str) -> str:
    value = fit.params.get(name, np.nan)
    if not np.isfinite(value):
        return "unknown"
    return f"{value:.4g} {tables.interval_text(fit.intervals.get(name))}".strip()
