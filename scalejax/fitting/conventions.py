"""Which parameters and FLOPs count: how the exponent of the compute-optimal size moves with the convention."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scalejax.fitting import resampling, tables
from scalejax.fitting.fit import fit
from scalejax.fitting.result import Fit
from scalejax.laws import forms, optimal
from scalejax.laws.law import ParametricLaw

if TYPE_CHECKING:
    from pandas import DataFrame

COUNTS = ("params_non_embedding", "params_with_head", "params")
"""Kaplan et al. 2020 count without embeddings and head; Porian et al. 2024 with the head; Hoffmann et al. 2022 everything."""


NOMINAL = "6ND"
"""The FLOPs of a run by its counts alone: 6 x params x tokens, in the count that the law is fitted on."""


class Convention(NamedTuple):
    """One count N of the parameters and one of the FLOPs C."""

    count: str
    """Column of N."""
    flops: str
    """Column of C, or 6ND."""
    growth: float
    """g of C/D = c N^g over the table's runs; 1 for 6ND."""
    exponent: float
    """Of N*(C) = G C^exponent."""
    low: float | None
    high: float | None
    """95% percentile interval over the bootstrap draws of the law; None without, or where the rows leave an exponent free."""
    fit: Fit[ParametricLaw]


def compare(
    table: "str | Path | DataFrame",
    counts: Sequence[str] = COUNTS,
    flops: Sequence[str] = (NOMINAL,),
    *,
    law: ParametricLaw | None = None,
    **choices: Any,
) -> list[Convention]:
    """The same law fitted under several parameter counts of the same runs, and the exponent of N* under each count of FLOPs.

    A count that leaves parameters out counts small models as smaller than they are, by a factor that shrinks as models grow, and
    their 6 N D as fewer: without the head, N* seems to grow faster with compute than it does. Most of the step from Chinchilla's
    exponent to Kaplan's is that (Porian et al. 2024, section 3: .71 becomes .84 with the head left out).

    counts: columns of N.  flops: columns of C (`flops` is exact in a results table), or 6ND; a column enters by the power of N
    with which the FLOPs of a token grow over the runs (see `scalejax.laws.optimal.params_exponent`).  law: Chinchilla's unless
    given, or one with a view as it.  choices: as for `scalejax.fit`.

    Raises ValueError for a column that is missing, or for a law without an optimum.
    """
    named, table = choices.pop("columns", None) or {}, tables.read(table)
    found = []
    for count in counts:
        columns = named | {"params": count}
        made = fit(table, law or forms.chinchilla(), columns=columns, **choices)
        drawn = made.converged_draws()
        free = any(
            made.intervals.get(name) == (None, None)
            for k in made.law.coordinates
            for name, _, _ in k.units
        )
        for spent in flops:
            growth = (
                1.0 if spent == NOMINAL else _growth(table, choices.get("where"), columns, spent)
            )
            exponent = float(optimal.params_exponent(made.law.form(**made.params), growth))
            low, high = None, None
            if drawn and not free:
                ((low, high),) = resampling.percentile_ends(
                    optimal.params_exponent(made.law.form(**drawn), growth)[:, None]
                )
            found.append(Convention(count, spent, growth, exponent, low, high, made))
    return found


def _growth(frame: "DataFrame", where: str | None, columns: dict[str, str], flops: str) -> float:
    """Least-squares slope of log(C/D) on log N over the rows of the table."""
    frame = frame.loc[tables.row_mask(frame, where)]
    read = tables.read_columns(frame, ("params", "tokens"), "flops", columns | {"flops": flops})
    (params, tokens), spent = read.inputs, read.target
    if np.ptp(params) == 0:
        raise ValueError(
            f"{columns['params']} has a single value: how {flops} grow with it cannot be seen"
        )
    return float(np.polyfit(np.log(params), np.log(spent / tokens), 1)[0])
