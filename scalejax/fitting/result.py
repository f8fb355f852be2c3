"""The result of a fit: parameters with intervals, a verdict, scores, and its file.

`Fit` is the base of the results of all kinds of law. Each kind adds what it needs for
predictions, and how that is written to fit.json.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar, overload

import numpy as np

from scalejax.files import content_hash, write_text
from scalejax.fitting.display.displayed import Displayed
from scalejax.laws.inference.intervals import Interval as Interval
from scalejax.laws.inference.replicates import NoiseFloor
from scalejax.laws.law import Law

# Version of fit.json and of what `scalejax fit --json` prints.
FORMAT = 2

# Bootstrap draws and residuals that a fit keeps. With 1,000 of them, percentiles at 95%
# move by less than the Monte Carlo error.
STORED = 1000

# Coverage of every interval of parameters and predictions.
LEVEL = 0.95

L = TypeVar("L", bound=Law, covariant=True)


class Estimate(NamedTuple):
    """A prediction and its interval."""

    value: float
    low: float | None
    """None, like `high`, when nothing bounds the value; `method` then says why."""
    high: float | None
    level: float
    """Coverage of the interval."""
    method: str
    """How the interval was computed, and how far the run is beyond the fitted rows."""


class Estimates(NamedTuple):
    """Predictions of several runs and their intervals, as arrays."""

    value: np.ndarray
    low: np.ndarray
    """nan, like `high`, when nothing bounds the value; `method` then says why."""
    high: np.ndarray
    level: float
    """Coverage of each interval."""
    method: np.ndarray
    """The `method` of each prediction, as text."""


class Forecast(NamedTuple):
    """The prediction for one run, and what the law says of the run."""

    estimate: Estimate
    run: dict[str, float]
    """The run's inputs, and other predicted quantities such as its optimal tokens."""
    intervals: dict[str, Interval]
    """95% intervals of quantities of the run, by their names."""

    def summary(self) -> dict[str, Any]:
        """What `scalejax predict --json` prints."""
        estimate = self.estimate
        ends = {f"{name}_interval": list(pair) for name, pair in self.intervals.items()}
        return {
            "value": estimate.value,
            "interval": [estimate.low, estimate.high],
            **self.run,
            **ends,
            "method": estimate.method,
        }


class Seconds(NamedTuple):
    """Wall time of a fit."""

    solve: float
    """Seconds to read the table and find the optimum."""
    uncertainty: float
    """Seconds for intervals, verdict and scores."""


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Relative errors of predictions; `n` is 0 when nothing was scored."""

    n: int = 0
    """Number of rows that were predicted."""
    mean_rel_error: float = np.nan
    """Mean |relative error|, a fraction."""
    max_rel_error: float = np.nan
    """Largest |relative error|, a fraction."""

    def record(self) -> dict[str, Any]:
        """The errors in JSON; empty when nothing was scored."""
        if not self.n:
            return {}
        return {
            "n": self.n,
            "mean_rel_error": self.mean_rel_error,
            "max_rel_error": self.max_rel_error,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """The inverse of `record`."""
        return cls(**record)


@dataclass(frozen=True, kw_only=True)
class Scores(Errors):
    """Scores of held-out rows."""

    mae: float = np.nan
    """Mean absolute error, in the units of the target."""
    r2: float | None = None
    """Explained share of the variance; None when the measurements do not vary."""

    @classmethod
    def of(cls, predicted: np.ndarray, measured: np.ndarray) -> Self:
        """Score predictions, (rows,), against measurements, (rows,).

        >>> scores = Scores.of(np.array([2.0, 3.0]), np.array([2.0, 2.5]))
        >>> scores.mae, scores.max_rel_error
        (0.25, 0.2)
        """
        error = np.abs(predicted - measured)
        relative = error / np.abs(measured)
        spread = float(np.sum((measured - measured.mean()) ** 2))
        return cls(
            n=len(measured),
            mae=float(error.mean()),
            mean_rel_error=float(relative.mean()),
            max_rel_error=float(relative.max()),
            r2=1 - float(np.sum(error**2)) / spread if spread > 0 else None,
        )

    def record(self) -> dict[str, Any]:
        """The scores in JSON; empty when nothing was scored."""
        if not self.n:
            return {}
        return {
            "n": self.n,
            "mae": self.mae,
            "mean_rel_error": self.mean_rel_error,
            "max_rel_error": self.max_rel_error,
            "r2": self.r2,
        }


@dataclass(frozen=True, kw_only=True)
class CrossValidation(Errors):
    """Errors of predictions for rows that each fit had left out."""

    method: ClassVar[str] = "cross-validation"
    """Which rows were left out."""
    splits: int = 0
    """Number of fits that were scored."""
    left_out: int = 0
    """Number of splits without a score: their rows do not determine every parameter, or
    their fit did not converge."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit(Displayed, ABC, Generic[L]):
    """A law fitted to a table."""

    law: L
    """With the inputs that were read, and with what was held."""
    params: dict[str, float]
    """Best parameters by name; nan, and null in JSON, when the fit did not converge."""
    intervals: dict[str, Interval]
    """95% percentile intervals by parameter; empty without bootstraps."""
    objective: float
    """Sum of the loss over the rows."""
    gradient_norm: float
    """Largest component of the objective's gradient, in the solver's coordinates."""
    starts_at_optimum: float
    """Share of the starts that reached the optimum."""
    n_rows: int
    verdict: str
    """ok, at-boundary, unidentified or not-converged."""
    reasons: list[str]
    """Why the verdict is not ok, and notes on the rows and the bootstrap."""
    loss: str
    """The loss that was minimized, as in `FitOptions.loss`."""
    columns: dict[str, str]
    """The table's column from which each input and the target was read."""
    condition: float = np.nan
    """Condition number of the scaled normal matrix; from 1e9 on, the rows cannot tell
    the parameters apart."""
    at_boundary: list[str] = field(default_factory=list)
    """Parameters at a bound of the law."""
    noise: NoiseFloor | None = None
    """Standard deviation of the log target between runs of equal inputs and different
    seeds. No law of these inputs predicts a single run better. None without such
    runs."""
    seed: int = 0
    clusters: str | None = None
    """Column whose values were resampled together."""
    resample: str = "pairs"
    """What was resampled: pairs, residuals, trunks, or noise with its size."""
    holdout: Errors = field(default_factory=Errors)
    """Scores of the held-out rows."""
    cross_validation: CrossValidation = field(default_factory=CrossValidation)
    views: dict[str, dict[str, float]] = field(default_factory=dict)
    """The same law in other letters, and other quantities that follow from the fit."""
    seconds: Seconds = field(default_factory=lambda: Seconds(0.0, 0.0))
    draws: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    """Bootstrap draws of each parameter, (draws,), nan where a draw has no fit. At most
    STORED of them; empty without bootstraps."""

    @abstractmethod
    def forecast(self, **inputs: Any) -> Forecast:
        """Predict one run, with a 95% interval.

        Raises ValueError for inputs that the law does not read, or when the fit did not
        converge.
        """

    @overload
    def predict(self, **inputs: float) -> Estimate: ...
    @overload
    def predict(self, **inputs: Any) -> Estimate | Estimates: ...
    def predict(self, **inputs: Any) -> Estimate | Estimates:
        """Predict a run, with a 95% interval for the value that it will measure.

        inputs: the law's own, such as params and tokens. A law of both also takes
        flops, which means the compute-optimal run. Arrays, which broadcast, predict
        several runs and give `Estimates` of their shape.
        """
        arrays = {name: x for name, x in inputs.items() if np.ndim(x) and name != "learning_rates"}
        if not arrays:
            return self.forecast(**inputs).estimate
        shape = np.broadcast_shapes(*(np.shape(x) for x in arrays.values()))
        columns = {name: np.broadcast_to(np.asarray(x), shape) for name, x in arrays.items()}
        runs = [
            inputs | {name: x[i].item() for name, x in columns.items()} for i in np.ndindex(*shape)
        ]
        estimates = [self.forecast(**run).estimate for run in runs]
        values, lows, highs = (
            np.array([getattr(one, end) for one in estimates], np.float64).reshape(shape)
            for end in ("value", "low", "high")
        )
        methods = np.array([one.method for one in estimates], object).reshape(shape)
        return Estimates(values, lows, highs, LEVEL, methods)

    def converged_draws(self) -> dict[str, np.ndarray]:
        """The draws without those that have no fit."""
        if not self.draws:
            return {}
        converged = np.all(np.isfinite(np.stack(list(self.draws.values()))), axis=0)
        return {name: values[converged] for name, values in self.draws.items()}

    def summary(self) -> dict[str, Any]:
        """What `scalejax fit --json` prints: everything except the draws."""
        record: dict[str, Any] = {
            "format": FORMAT,
            "law": self.law.name,
            "params": nested({name: finite_or_none(value) for name, value in self.params.items()}),
            "intervals": nested({name: list(ends) for name, ends in self.intervals.items()}),
            "objective": finite_or_none(self.objective),
            "gradient_norm": finite_or_none(self.gradient_norm),
            "starts_at_optimum": self.starts_at_optimum,
            "n_rows": self.n_rows,
            "verdict": self.verdict,
            "reasons": self.reasons,
            "loss": self.loss,
            "columns": self.columns,
            "condition": finite_or_none(self.condition),
            "at_boundary": self.at_boundary,
            "noise": {} if self.noise is None else self.noise._asdict(),
            "seed": self.seed,
            "clusters": self.clusters,
            "resample": self.resample,
            "holdout": self.holdout.record(),
            "cross_validation": self.cross_validation.record(),
        }
        if self.views:
            record["views"] = self.views
        return record | {"seconds": self.seconds._asdict()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write fit.json, completely or not at all.

        Raises ValueError when the path is a folder.
        """
        target = Path(path)
        if target.is_dir():
            raise ValueError(
                f"{target} is a folder; a fit is one file, such as {target / 'fit.json'}"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        record = self.summary() | {"form": self._law_record(), "spread": self._spread_record()}
        # A fit is evidence: `load` compares the hash, so that a change by hand shows.
        sealed = record | {"sha256": content_hash(json.loads(json.dumps(record)))}
        write_text(target, json.dumps(sealed, allow_nan=False, indent=1))

    @classmethod
    def from_record(cls, record: dict[str, Any], law: Any) -> Self:
        """Return the fit that `save` wrote.

        record: the content of fit.json.  law: of the kind of this class, with inputs
        and held parameters as in the file.
        """
        return cls(law=law, **cls._fields_from_record(record))

    def _law_record(self) -> dict[str, Any]:
        """What the file holds of the law beside its name."""
        return {"inputs": list(self.law.inputs), "fixed": dict(self.law.fixed), "tied": []}

    def _spread_record(self) -> dict[str, Any]:
        """What the file holds for the intervals of predictions."""
        return {"draws": draws_record(self.draws)}

    @classmethod
    def _fields_from_record(cls, record: dict[str, Any]) -> dict[str, Any]:
        """The fields of a fit, from the content of fit.json."""
        params = flat(record["params"]).items()
        intervals = flat(record["intervals"]).items()
        noise = record["noise"]
        draws = record["spread"].get("draws", {}).items()
        unchanged = (
            *("starts_at_optimum", "n_rows", "verdict", "reasons", "loss", "columns"),
            *("at_boundary", "seed", "clusters", "resample"),
        )
        return {name: record[name] for name in unchanged} | {
            "params": {name: nan_if_none(value) for name, value in params},
            "intervals": {name: (low, high) for name, (low, high) in intervals},
            "objective": nan_if_none(record["objective"]),
            "gradient_norm": nan_if_none(record["gradient_norm"]),
            "condition": nan_if_none(record["condition"]),
            "noise": NoiseFloor(**noise) if noise else None,
            "views": record.get("views", {}),
            "seconds": Seconds(**record["seconds"]),
            "draws": {name: np.asarray(values, np.float64) for name, values in draws},
        }


def dropped_reasons(complete: np.ndarray) -> list[str]:
    """Say how many rows a fit left out; empty when it used all of them.

    complete: (rows,), whether all values of a row are finite.
    """
    dropped = int(np.sum(~complete))
    return [f"dropped {dropped} rows with missing or infinite values"] if dropped else []


def kept_draws(names: Iterable[str], draws: np.ndarray) -> dict[str, np.ndarray]:
    """The first STORED draws of each parameter, with nan where a draw has no fit.

    draws: (draws, parameters).
    """
    columns = np.ascontiguousarray(draws[:STORED].T)
    return dict(zip(names, np.where(np.isfinite(columns), columns, np.nan), strict=True))


def draws_record(draws: dict[str, np.ndarray]) -> dict[str, list[float | None]]:
    """The draws in JSON, with None where a draw has no fit."""
    return {name: [finite_or_none(x) for x in values.tolist()] for name, values in draws.items()}


def finite_or_none(value: float) -> float | None:
    """The value for JSON, which has neither nan nor infinity."""
    return value if np.isfinite(value) else None


def nan_if_none(value: float | None) -> float:
    """The inverse of `finite_or_none`."""
    return np.nan if value is None else value


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Group parameters that are named QUANTITY.PARAMETER by their quantity.

    >>> nested({"beta2.coefficient": 1.0, "beta2.exponent": 2.0, "E": 3.0})
    {'beta2': {'coefficient': 1.0, 'exponent': 2.0}, 'E': 3.0}
    """
    groups: dict[str, Any] = {}
    for name, value in values.items():
        quantity, _, parameter = name.partition(".")
        if parameter:
            groups.setdefault(quantity, {})[parameter] = value
        else:
            groups[name] = value
    return groups


def flat(groups: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `nested`.

    >>> flat({"beta2": {"coefficient": 1.0}, "E": 3.0})
    {'beta2.coefficient': 1.0, 'E': 3.0}
    """
    values: dict[str, Any] = {}
    for name, value in groups.items():
        if isinstance(value, dict):
            values |= {f"{name}.{parameter}": inner for parameter, inner in value.items()}
        else:
            values[name] = value
    return values
