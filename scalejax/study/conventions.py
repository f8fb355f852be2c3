"""Which parameters count: how the exponent of the compute-optimal size moves with the convention."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scalejax.laws import forms, optimal
from scalejax.laws.forms import Law
from scalejax.study import draws
from scalejax.study.fits import Fit, fit
from scalejax.study.points import LEVEL

if TYPE_CHECKING:
    from pandas import DataFrame

COUNTS = ("params_non_embedding", "params_with_head", "params")
"""Kaplan et al. 2020 count without embeddings and head; Porian et al. 2024 with the head; Hoffmann et al. 2022 everything."""


class Convention(NamedTuple):
    """One count N of the parameters, with C = 6 N D in the same count."""

    count: str
    """Column of the table."""
    exponent: float
    """Of N*(C) = G C^exponent."""
    low: float | None
    high: float | None
    """95% percentile interval over the bootstrap draws; None without."""
    fit: Fit


def compare(
    table: "str | Path | DataFrame", counts: Sequence[str] = COUNTS, *, law: Law | None = None, **choices: Any
) -> list[Convention]:
    """The same law fitted under several parameter counts of the same runs, and the exponent of N* under each.

    A count that leaves parameters out counts small models as smaller than they are, by a factor that shrinks as models grow, and
    their FLOPs as fewer: without the head, N* seems to grow faster with compute than it does. Most of the step from Chinchilla's
    exponent to Kaplan's is that (Porian et al. 2024, section 3: .71 becomes .84 with the head left out).

    counts: columns of the table.  law: Chinchilla's unless given, or one with a view as it.  choices: as for `scalejax.fit`.

    Raises ValueError for a column that is missing, or for a law without an optimum.
    """
    named = choices.pop("columns", None) or {}
    found = []
    for count in counts:
        made = fit(table, law or forms.chinchilla(), columns=named | {"params": count}, **choices)
        exponent = float(optimal.params_exponent(made.law.form(**made.params)))
        low, high = None, None
        if drawn := draws.converged(made):
            tails = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
            low, high = (float(end) for end in np.percentile(optimal.params_exponent(made.law.form(**drawn)), tails))
        found.append(Convention(count, exponent, low, high, made))
    return found
