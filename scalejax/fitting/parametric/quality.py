"""How well a law fits its rows: the spread of residuals, outliers, and lack of fit."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scalejax.fitting.result import finite_or_none, nan_if_none
from scalejax.laws.inference.identification import linearize
from scalejax.laws.inference.replicates import LackOfFit
from scalejax.laws.inference.spread import residual_spread, standing_out
from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.multistart import Optimum

if TYPE_CHECKING:
    from pandas import DataFrame

# Reasons name at most this many outliers.
MAX_NAMED = 3


class Outlier(NamedTuple):
    """A row far from the law."""

    row: int
    """Index of the row in the table, from 0."""
    run: str
    """The run's id; empty if the table has none."""
    measured: float
    expected: float
    """What the law predicts for the row."""
    spreads: float
    """Its residual, in units of the residual spread."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How far the fitted rows lie from the law."""

    residual_spread: float = np.nan
    """Standard deviation of a residual, on the scale of the loss: a fraction of the
    target for losses of logarithms. Outliers do not count in it if the loss is
    robust."""
    outliers: tuple[Outlier, ...] = ()
    """Rows that stand out, the farthest first."""
    lack_of_fit: LackOfFit | None = None
    """Whether the law misses its design points by more than the noise of replicates;
    None without replicates."""

    @classmethod
    def of(
        cls,
        law: ParametricLaw[Any],
        at: Optimum,
        rows: "DataFrame",
        run_column: str,
        lack_of_fit: LackOfFit | None,
    ) -> "Quality":
        """Measure the fit of a law to its rows.

        rows: the fitted rows. run_column: the column of run ids, if the table has it.
        """
        residuals, weights = linearize(law, at).residuals, at.weights[at.weights > 0]
        robust = bool(np.isfinite(at.loss.deltas[-1]))
        spread = residual_spread(residuals, weights, law.free, robust=robust)
        targets = np.asarray(at.problem.targets)[: len(residuals)]
        relative = at.loss.residual == "log"
        expected = targets * np.exp(residuals) if relative else targets + residuals
        names = rows[run_column].astype(str) if run_column in rows.columns else None
        outliers = tuple(
            Outlier(
                row=int(rows.index[i]),
                run="" if names is None else str(names.iloc[i]),
                measured=float(targets[i]),
                expected=float(expected[i]),
                spreads=float(abs(residuals[i]) * np.sqrt(weights[i]) / max(spread, 1e-12)),
            )
            for i in standing_out(residuals, weights, spread, law.free).tolist()
        )
        return cls(residual_spread=spread, outliers=outliers, lack_of_fit=lack_of_fit)

    def reasons(self, target: str) -> list[str]:
        """Name the rows that stand out; empty if none does."""
        named = [
            f"row {it.row}{f' (run {it.run})' if it.run else ''} stands out: {target} "
            f"{it.measured:.4g}, where the law expects {it.expected:.4g}, "
            f"{min(it.spreads, 1e6):.3g} times the residual spread"
            for it in self.outliers[:MAX_NAMED]
        ]
        if more := len(self.outliers) - MAX_NAMED:
            named += [f"{more} more rows stand out"] if more > 0 else []
        return named

    def record(self) -> dict[str, Any]:
        """The quality in JSON."""
        return {
            "residual_spread": finite_or_none(self.residual_spread),
            "outliers": [outlier._asdict() for outlier in self.outliers],
            "lack_of_fit": None if self.lack_of_fit is None else self.lack_of_fit._asdict(),
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Quality":
        """The inverse of `record`."""
        test = record["lack_of_fit"]
        if test is not None:
            test = LackOfFit(**test | {"degrees_of_freedom": tuple(test["degrees_of_freedom"])})
        return cls(
            residual_spread=nan_if_none(record["residual_spread"]),
            outliers=tuple(Outlier(**outlier) for outlier in record["outliers"]),
            lack_of_fit=test,
        )
