"""How the exponent of the optimal size depends on what is counted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scalejax.fitting import expressions, resampling, tables
from scalejax.fitting.fit import fit
from scalejax.fitting.parametric.result import ParametricFit
from scalejax.fitting.result import Interval
from scalejax.laws import forms, optimal
from scalejax.laws.law import ParametricLaw

if TYPE_CHECKING:
    from pandas import DataFrame

# Kaplan et al. 2020 count parameters without embeddings and head, Porian et al. 2024
# with the head, Hoffmann et al. 2022 all of them.
COUNTS = ("params_non_embedding", "params_with_head", "params")

# The FLOPs 6 x params x tokens, by the parameter count that the law is fitted to.
NOMINAL = "6ND"


class Convention(NamedTuple):
    """The exponent of the optimal size under one count of parameters and FLOPs."""

    params_column: str
    """Column of the parameters N."""
    flops: str
    """Column of the FLOPs C, or 6ND."""
    growth: float
    """g of C/D = c N^g over the table's runs; 1 for 6ND."""
    exponent: float
    """Exponent of N*(C) = G C^exponent."""
    low: float | None
    """Lower end of the 95% percentile interval over bootstrap draws. None, like `high`,
    without draws, and when the rows do not determine an exponent of the law."""
    high: float | None
    fit: ParametricFit


def compare(
    table: "str | Path | DataFrame",
    counts: Sequence[str] = COUNTS,
    flops: Sequence[str] = (NOMINAL,),
    *,
    law: ParametricLaw | None = None,
    **choices: Any,
) -> list[Convention]:
    """Fit a law under several counts of parameters, and compare the exponents of N*.

    A count that leaves parameters out makes small models look smaller than they are, by
    a factor that shrinks as models grow, and their 6 N D too. So without the head, N*
    seems to grow faster with compute than it does. This is most of the difference
    between Chinchilla's exponent and Kaplan's (Porian et al. 2024, section 3: .71
    becomes .84 when the head is left out).

    counts: columns of N. flops: columns of C, or 6ND; the column `flops` of a results
    table is exact. FLOPs enter by the power of N with which the FLOPs per token grow
    over the runs (see `scalejax.laws.optimal.params_exponent`). law: Chinchilla's by
    default, or a law that can be written as it. choices: other arguments of
    `scalejax.fit`.

    Raises ValueError for a missing column, and for a law without an optimum.
    """
    names = dict(choices.pop("columns", None) or {})
    frame = tables.read(table)
    conventions = []
    for count in counts:
        columns = names | {"params": count}
        fitted = fit(frame, law or forms.chinchilla(), columns=columns, **choices)
        for spent in flops:
            growth = 1.0
            if spent != NOMINAL:
                growth = _growth(frame, choices.get("where"), columns, spent)
            form = fitted.law.form
            exponent = float(optimal.params_exponent(form(**fitted.params), growth))
            low, high = _exponent_interval(fitted, growth)
            conventions.append(Convention(count, spent, growth, exponent, low, high, fitted))
    return conventions


def _exponent_interval(fitted: ParametricFit, growth: float) -> Interval:
    """Return the 95% interval of the exponent of N*; open if it is undetermined."""
    draws = fitted.converged_draws()
    exponents = {name for k in fitted.law.coordinates for name, _, _ in k.units}
    if not draws or any(fitted.intervals.get(name) == (None, None) for name in exponents):
        return None, None
    values = optimal.params_exponent(fitted.law.form(**draws), growth)
    (interval,) = resampling.percentile_ends(np.asarray(values)[:, None])
    return interval


def _growth(frame: "DataFrame", where: str | None, columns: Mapping[str, str], flops: str) -> float:
    """Return the least-squares slope of log(C/D) on log N over the rows of a table."""
    frame = expressions.chosen_rows(frame, where)
    names = {**columns, "flops": flops}
    read = tables.read_columns(frame, ("params", "tokens"), "flops", names)
    (params, tokens), spent = read.inputs, read.target
    if np.ptp(params) == 0:
        raise ValueError(
            f"{columns['params']} has a single value; how {flops} grows with it needs several"
        )
    return float(np.polyfit(np.log(params), np.log(spent / tokens), 1)[0])
