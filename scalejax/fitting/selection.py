"""Which law and which loss predict best, by cross-validation."""

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
    """Mean |relative error| of the more expensive runs, or of the curve left out,
    averaged over the splits. None if no split could be fitted."""
    splits: int
    """Number of splits in the average: those that all candidates could fit."""
    verdict: str


class Selection(NamedTuple):
    """The candidates, best first, and the fit of the first one to all rows."""

    ranking: list[Candidate]
    fit: Fit[Law]


class _Contender(NamedTuple):
    """A law under a loss, fitted to all rows."""

    law: Law
    loss: str
    fit: Fit[Law]


def select(
    table: "str | Path | DataFrame",
    laws: Sequence[Law],
    losses: Sequence[str] = LOSSES,
    *,
    bootstrap: int | None = None,
    **choices: Any,
) -> Selection:
    """Rank every (law, loss) pair by its error on runs that it was not fitted to.

    Laws of one row per run are fitted to growing fractions of the runs, cheapest first,
    and scored on the more expensive ones. Whole-curve laws are fitted to all curves but
    one, and scored on that one. All candidates are scored on the same splits, by
    relative errors, so that losses on different scales can be compared.

    The error of the best candidate is too optimistic, because it was selected, and more
    so with more candidates. Register a forecast to know the real one.

    laws: of one target. bootstrap: number of draws for the fit of the best candidate,
    as for `scalejax.fit`; the fits that are ranked need none.
    choices: other arguments of `scalejax.fit`, the same for all candidates.

    Raises ValueError without laws or losses, for laws of different targets or that read
    different rows, and when there is no split that all candidates could fit.
    """
    _check_candidates(laws, losses)
    contenders = [
        _Contender(law, loss, fit(table, law, loss=loss, bootstrap=0, **choices))
        for law in laws
        for loss in losses
    ]
    _check_same_rows(contenders)
    # Only splits that all candidates could fit are compared. A candidate that could fit
    # none at all does not count for that.
    errors = [_errors_by_split(contender.fit.cross_validation) for contender in contenders]
    common = _common_splits(errors)
    if not common:
        rows = contenders[0].fit.n_rows
        raise ValueError(
            f"no split of the {rows} rows could be fitted by all candidates: there are too few "
            "rows, costs or curves"
        )
    ranked = []
    for contender, by_split in zip(contenders, errors, strict=True):
        # A candidate that could not fit any split is ranked last, without an error.
        error = float(np.mean([by_split[split] for split in common])) if by_split else None
        splits = len(common) if by_split else 0
        law, loss, full_fit = contender
        ranked.append((law, Candidate(law.name, loss, error, splits, full_fit.verdict)))
    ranked.sort(key=_sort_key)
    best_law, best = ranked[0]
    final = fit(table, best_law, loss=best.loss, bootstrap=bootstrap, **choices)
    return Selection([candidate for _, candidate in ranked], final)


def _sort_key(ranked: tuple[Law, Candidate]) -> float:
    error = ranked[1].mean_rel_error
    return np.inf if error is None else error


def _check_candidates(laws: Sequence[Law], losses: Sequence[str]) -> None:
    if not (laws and losses):
        raise ValueError(
            f"select needs laws and losses to choose from; got {len(laws)} laws and "
            f"{len(losses)} losses"
        )
    targets = sorted({law.target for law in laws})
    if len(targets) > 1:
        raise ValueError(
            f"laws of {' and '.join(targets)} cannot be ranked against each other, because they "
            "predict different things"
        )


def _check_same_rows(contenders: Sequence[_Contender]) -> None:
    if len({contender.fit.n_rows for contender in contenders}) > 1:
        rows = {contender.law.name: contender.fit.n_rows for contender in contenders}
        counts = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise ValueError(
            f"the laws read different rows ({counts}): choose rows that have the columns of all "
            "laws, with `where`"
        )


def _errors_by_split(validation: CrossValidation) -> dict[str | int, float]:
    """Return the mean relative error of each split that could be fitted.

    A split is named by what two candidates have in common there: the curve that is left
    out, or the number of fitted rows. Kinds of law without such splits have none.
    """
    if not isinstance(validation, RollingOrigin | LeaveOneCurveOut):
        return {}
    return {_split_name(split): split.mean_rel_error for split in validation.by_split}


def _split_name(split: Split | CurveSplit) -> str | int:
    return split.left_out if isinstance(split, CurveSplit) else split.fitted


def _common_splits(errors: Sequence[dict[str | int, float]]) -> list[str | int]:
    """Return the splits of all candidates that could fit any, in order."""
    names = [set(by_split) for by_split in errors if by_split]
    # The order of a mean over a set would depend on the hash seed.
    return sorted(set.intersection(*names), key=_order) if names else []


def _order(name: str | int) -> tuple[bool, str | int]:
    # Curves have names and numbers of rows are numbers; a selection has one kind only.
    return isinstance(name, str), name
