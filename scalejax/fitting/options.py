"""How to fit: the options that `scalejax.fit` takes, for all kinds of law."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np

from scalejax.laws.law import Law

if TYPE_CHECKING:
    from pandas import DataFrame

DEFAULT_LOSS = "huber:1e-3"

# Bootstrap draws of a fit whose caller does not say how many. Percentiles at 95% then
# move by less than the Monte Carlo error.
DEFAULT_DRAWS = 1000

# The options that only some kinds of law read. All kinds read bootstrap, seed and
# columns.
SPECIAL = ("loss", "weights", "cluster", "resample", "schedules", "protocol", "noise")


def check_text(name: str, value: object, *, optional: bool = False) -> None:
    """Raise ValueError if an option is not text, but for example a mask of rows.

    optional: whether None is allowed, and means the default.
    """
    if isinstance(value, str) or (optional and value is None):
        return
    raise ValueError(
        f"{name} must be text, such as a column's name or an expression; got {type(value).__name__}"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class FitOptions:
    """Options of a fit; None stands for the default of the kind of law."""

    held_out: np.ndarray | None = None
    """Mask of the rows that are scored and not fitted, (rows,); None holds out no
    row."""
    loss: str = DEFAULT_LOSS
    """huber:DELTA, lad, mse, log-mse or asymmetric:FACTOR."""
    weights: str | None = None
    """Column of row weights."""
    cluster: str | None = None
    """Column whose equal values are resampled together."""
    bootstrap: int | None = None
    """Number of bootstrap draws."""
    seed: int = 0
    """Seed of the draws."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Our name of a column -> the table's name."""
    resample: str | None = None
    """What a bootstrap resamples, for laws of one row per run: see
    `scalejax.fitting.resampling`."""
    schedules: "str | Path | DataFrame | None" = None
    """Table of (curve, step, learning_rate) with every step, for whole-curve laws."""
    protocol: Literal["parabola", "akima"] | None = None
    """How the minimum of an isoFLOP curve is found."""
    noise: str | None = None
    """STD or STD@LOSS,STD@LOSS in nats, the noise of a loss, for isoFLOP curves."""

    def __post_init__(self):
        for name in ("bootstrap", "seed"):
            number = getattr(self, name)
            is_whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
            if number is not None and not (is_whole and number >= 0):
                raise ValueError(f"{name} must be a whole number, 0 or more; got {number!r}")
        for name in ("loss", "weights", "cluster", "resample", "protocol", "noise"):
            check_text(name, getattr(self, name), optional=name != "loss")
        if not isinstance(self.columns, Mapping):
            raise ValueError(
                'columns must be a dictionary, such as {"params": "N"}; got '
                f"{type(self.columns).__name__}"
            )
        for name, column in self.columns.items():
            check_text(f"the column of {name}", column)

    def draws(self, default: int = DEFAULT_DRAWS) -> int:
        """Number of bootstrap draws: as many as the caller asked for, or the default.

        default: what takes seconds for the law and the table.
        """
        return default if self.bootstrap is None else self.bootstrap

    def held_out_mask(self, rows: int) -> np.ndarray:
        """(rows,): which of the table's rows are scored and not fitted."""
        return np.zeros(rows, bool) if self.held_out is None else self.held_out

    def check(self, law: Law, read: Collection[str]) -> None:
        """Raise ValueError when options are given that this kind of law does not read.

        read: which of SPECIAL the law reads.
        """
        unread = [name for name in SPECIAL if self._is_given(name) and name not in read]
        if unread:
            raise ValueError(
                f"the {law.name} law does not read {', '.join(unread)}; "
                f"it reads {', '.join((*read, 'bootstrap', 'seed', 'columns'))}"
            )

    def _is_given(self, name: str) -> bool:
        if name == "loss":
            return self.loss != DEFAULT_LOSS
        return getattr(self, name) is not None


class FitKeywords(TypedDict, total=False):
    """The keyword arguments of `scalejax.fit`, for type checkers."""

    loss: str
    where: str | None
    holdout: str | None
    weights: str | None
    cluster: str | None
    bootstrap: int | None
    seed: int
    columns: Mapping[str, str] | None
    resample: str | None
    schedules: "str | Path | DataFrame | None"
    protocol: Literal["parabola", "akima"] | None
    noise: str | None
