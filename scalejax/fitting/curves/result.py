"""A fit of a whole-curve law to a table: its prediction and its scores."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from scalejax.fitting.extrapolation import extrapolation
from scalejax.fitting.reading.json_types import wrong_place
from scalejax.fitting.reading.numbers import one_run
from scalejax.fitting.result import LEVEL, CrossValidation, Estimate, Fit, Forecast, Scores
from scalejax.laws.curves.forms import CurveFormula, law_from_parameters, predict_curve
from scalejax.laws.curves.laws import CurveLaw
from scalejax.laws.curves.rates import checked_rates, extent


@dataclass(frozen=True, kw_only=True)
class CurveScores(Scores):
    """Means over curves, each counting once, and the scores of each curve."""

    by_curve: dict[str, Scores] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The scores in JSON; empty when nothing was scored."""
        if not self.n:
            return {}
        by_curve = {name: scores.record() for name, scores in self.by_curve.items()}
        return super().record() | {"by_curve": by_curve}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "CurveScores":
        """The inverse of `record`."""
        by_curve = record.get("by_curve", {}).items()
        curves = {name: Scores.from_record(scores) for name, scores in by_curve}
        fields: dict[str, Any] = {**record, "by_curve": curves}
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class CurveSplit:
    """One fit to all curves except one, scored on that curve."""

    left_out: str
    """Name of the curve."""
    n: int
    """Losses of the curve."""
    mae: float
    mean_rel_error: float
    max_rel_error: float


@dataclass(frozen=True, kw_only=True)
class LeaveOneCurveOut(CrossValidation):
    """Errors on each curve of a fit to the other curves, each curve counting once."""

    method = "leave-one-curve-out"
    mae: float = np.nan
    """Mean absolute error, nats per token."""
    by_split: tuple[CurveSplit, ...] = ()

    def record(self) -> dict[str, Any]:
        """The errors in JSON; empty when there are too few curves."""
        if not self.splits:
            return {}
        return {
            "method": self.method,
            "splits": self.splits,
            "n": self.n,
            "mae": self.mae,
            "mean_rel_error": self.mean_rel_error,
            "max_rel_error": self.max_rel_error,
            "by_split": [vars(split) for split in self.by_split],
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "LeaveOneCurveOut":
        """The inverse of `record`."""
        splits = tuple(CurveSplit(**split) for split in record.get("by_split", ()))
        fields: dict[str, Any] = {**record, "by_split": splits}
        fields.pop("method", None)
        return cls(**fields)


@dataclass(frozen=True, kw_only=True, eq=False)
class CurveFit(Fit[CurveLaw]):
    """A whole-curve law fitted to a table."""

    holdout: CurveScores = field(default_factory=CurveScores)
    cross_validation: LeaveOneCurveOut = field(default_factory=LeaveOneCurveOut)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict, repr=False)
    """Smallest and largest steps, summed rates, peaks and drops of the rate up to the
    fitted losses, and params for a law that reads them."""

    def forecast(self, **inputs: Any) -> Forecast:
        """Predict the loss after the last step, as a point without an interval.

        learning_rates: the rate of every step, (steps,).  params: the model's
        parameters, for a law that reads them. `laws.predict_curve` gives the loss after
        every step. The method of the estimate says how far the schedule is beyond those
        of the fitted losses.

        Raises ValueError for other inputs, or when the fit did not converge.
        """
        inputs = one_run(inputs)
        expected = {"learning_rates", *self.law.inputs} - {"learning_rate"}
        if set(inputs) != expected:
            size = ", params=..." if "params" in self.law.inputs else ""
            raise ValueError(
                f"the {self.law.name} law predicts from the learning rate of every step, in "
                f"Python: laws.predict_curve(fit, learning_rates{size}); "
                f"got {', '.join(inputs) or 'nothing'}"
            )
        if self.verdict == "not-converged":
            raise ValueError(
                f"this {self.law.name} fit did not converge and predicts nothing: "
                f"{'; '.join(self.reasons)}"
            )
        value = float(predict_curve(self, **inputs)[-1])
        run = extent(checked_rates(inputs["learning_rates"]))
        run |= {name: x for name, x in inputs.items() if name != "learning_rates"}
        method = "no interval: whole-curve laws forecast a point"
        far = "; ".join([method, *extrapolation(run, self.ranges)])
        return Forecast(Estimate(value, None, None, LEVEL, far), run, {})

    def _spread_record(self) -> dict[str, Any]:
        return {"ranges": {name: list(ends) for name, ends in self.ranges.items()}}

    @classmethod
    def _fields_from_record(cls, record: dict[str, Any]) -> dict[str, Any]:
        # Files of earlier versions have none.
        ranges = record["spread"].get("ranges", {})
        return super()._fields_from_record(record) | {
            "holdout": CurveScores.from_record(record["holdout"]),
            "cross_validation": LeaveOneCurveOut.from_record(record["cross_validation"]),
            "ranges": {name: (low, high) for name, (low, high) in ranges.items()},
        }


class LawRecord(TypedDict):
    """What a file holds of the law."""

    law: str
    params: dict[str, float]


def read_law(path: str | os.PathLike[str]) -> CurveFormula:
    """Read the law in a file of a whole-curve fit.

    path: JSON, as `scalejax fit --out` wrote it or as `scalejax fit --json` printed it.

    Raises FileNotFoundError, or ValueError for a file that holds another kind of law.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a fit in JSON: {error}") from error
    wrong = wrong_place(record, LawRecord, "fit")
    try:
        if not wrong:
            return law_from_parameters(record["law"], record["params"])
    except KeyError as error:
        wrong = f"fit.params.{error.args[0]}"
    raise ValueError(
        f"{path} is not a whole-curve fit that converged: its field {wrong.removeprefix('fit.')} "
        "is missing or has a value that it cannot have"
    )
