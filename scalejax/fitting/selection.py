"""Which law and which loss predict best: cross-validation over both, then the fit of the winner."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scalejax.fitting.curves.result import CurveSplit, LeaveOneCurveOut
from scalejax.fitting.fit import fit
from scalejax.fitting.parametric.cross_validation import RollingOrigin, Split
from scalejax.fitting.result import CrossValidation, Fit
from scalejax.laws.law import Law

if TYPE_CHECKING:
    from pandas import DataFrame

LOSSES = ("huber:1e-3", "huber:1e-2", "lad", "log-mse", "mse")


class Candidate(NamedTuple):
    """One law under one loss."""

    law: str
    loss: str
    mean_rel_error: float | None
    """Mean over the splits of the mean |relative error| of the dearer runs, or of the curve left out; None where no split could
    be fitted."""
    splits: int
    """Over how many splits: those that all candidates fitted."""
    verdict: str


class Selection(NamedTuple):
    """Candidates, best first, and the fit of the first to all rows."""

    ranking: list[Candidate]
    fit: Fit[Law]


def select(
    table: "str | Path | DataFrame",
    laws: Sequence[Law],
    losses: Sequence[str] = LOSSES,
    *,
    bootstrap: int = 0,
    **choices: Any,
) -> Selection:
    """Ranks every law under every loss by how well it predicts dearer runs than those it is fitted to.

    At growing shares of the runs (half to nine tenths, cheapest first) each candidate is fitted to the cheaper ones and scored on
    the rest, always on the same rows; whole-curve laws are fitted to all curves but one and scored on that one, each in turn.
    Errors are relative, so losses on different scales compare. The winner's own error is flattered by having been chosen, the
    more so the more candidates there are: register a forecast to know.

    laws: of one target.  choices: as for `scalejax.fit` (where, holdout, weights, cluster, seed, columns, ..), the same for all.
    bootstrap: draws of the winner's fit.

    Raises ValueError for no laws or losses, for laws of different targets, rows or orders of the runs, and when no candidate
    could be cross-validated.
    """
    if not (laws and losses):
        raise ValueError(
            f"select needs laws and losses to choose from; got {len(laws)} laws and {len(losses)} losses"
        )
    if len(targets := sorted({law.target for law in laws})) > 1:
        raise ValueError(
            f"laws of {' and '.join(targets)} cannot be ranked against each other: their errors are not of one thing"
        )
    fits = [(law, loss, fit(table, law, loss=loss, **choices)) for law in laws for loss in losses]
    if len({made.n_rows for _, _, made in fits}) > 1:
        rows = ", ".join(f"{law.name} {made.n_rows}" for law, _, made in fits[:: len(losses)])
        raise ValueError(
            f"the laws read different rows ({rows}): choose rows that have the columns of all, with `where`"
        )
    scored = [
        {_split(split): split for split in _splits(made.cross_validation)} for _, _, made in fits
    ]
    common = (
        sorted(set.intersection(*(set(splits) for splits in scored if splits)))
        if any(scored)
        else []
    )
    if not common:
        rows = fits[0][2].n_rows
        raise ValueError(
            f"no split of the {rows} rows could be fitted by all candidates: too few rows, costs or curves"
        )
    ranked = []
    for (law, loss, made), splits in zip(fits, scored, strict=True):
        error = float(np.mean([splits[n].mean_rel_error for n in common])) if splits else None
        ranked.append(
            (law, Candidate(law.name, loss, error, len(common) if splits else 0, made.verdict))
        )
    ranked.sort(
        key=lambda pair: np.inf if pair[1].mean_rel_error is None else pair[1].mean_rel_error
    )
    law, best = ranked[0]
    return Selection(
        [candidate for _, candidate in ranked],
        fit(table, law, loss=best.loss, bootstrap=bootstrap, **choices),
    )


def _splits(errors: CrossValidation) -> Sequence[Split | CurveSplit]:
    """The errors of each split; none for a kind of law that has no cross-validation by split."""
    return errors.by_split if isinstance(errors, RollingOrigin | LeaveOneCurveOut) else ()


def _split(split: Split | CurveSplit) -> str | int:
    """What two candidates have in common where they share a split: the curve left out, or how many of the cheaper rows."""
    return split.left_out if isinstance(split, CurveSplit) else split.fitted
