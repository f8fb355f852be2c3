"""The fit of a law of one row per run: predictions, intervals and influence."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic

import jax
import jax.numpy as jnp
import numpy as np

from scalejax.fitting.charts.chart import Chart
from scalejax.fitting.extrapolation import SAME_VALUE, extrapolation
from scalejax.fitting.parametric.cross_validation import RollingOrigin
from scalejax.fitting.parametric.evaluate import evaluate
from scalejax.fitting.parametric.inverse import FittedLaw, required_run
from scalejax.fitting.parametric.quality import Quality
from scalejax.fitting.plots import parametric as plots
from scalejax.fitting.reading import diagnoses
from scalejax.fitting.reading.numbers import one_run
from scalejax.fitting.result import LEVEL, Estimate, Fit, Forecast, Interval, Scores
from scalejax.laws import optimal
from scalejax.laws.inference import identification
from scalejax.laws.law import F, ParametricLaw
from scalejax.laws.solver import losses
from scalejax.laws.solver.multistart import Optimum
from scalejax.laws.solver.problem import Problem, parameters_in_table_units, unconstrained

# A compute-optimal run this many times beyond the fitted sizes or tokens, or below
# them, is not one: the law has lost a term.
MAX_OPTIMUM_DISTANCE = 1e9

# Axes of the terms of a law of (params, tokens).
SIZE, DATA = 0, 1


@dataclass(frozen=True, kw_only=True, eq=False)
class ParametricFit(Fit[ParametricLaw[F]], Generic[F]):
    """A law of one row per run, fitted to a table."""

    holdout: Scores = field(default_factory=Scores)
    cross_validation: RollingOrigin = field(default_factory=RollingOrigin)
    quality: Quality = field(default_factory=Quality)
    """The spread of the residuals, the rows that stand out, and lack of fit."""
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict, repr=False)
    """Smallest and largest fitted value of each input."""
    unvaried: dict[str, float] = field(default_factory=dict, repr=False)
    """Inputs, or ratios such as tokens/params, with a single value in all fitted
    rows."""
    open_inputs: dict[str, list[str]] = field(default_factory=dict, repr=False)
    """Inputs beyond whose fitted values nothing bounds a prediction, each with the
    parameters that the rows leave free."""
    residuals: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)
    """Predicted minus observed, on the scale of the loss: of the rows, in their order
    and scaled by sqrt(n / (n - k)) for k parameters, or drawn for runs of other trunks.
    Empty without bootstraps."""
    assumption: str = field(default="", repr=False)
    """What the intervals assume about rows of one trunk; empty if nothing."""
    rows: str = field(default="", repr=False)
    """Digest of which rows were fitted; empty without bootstraps."""
    optimum: Optimum | None = field(default=None, repr=False)
    """The solver's optimum, for `influence`; None in a fit that was loaded from a
    file."""

    def forecast(self, **inputs: float) -> Forecast:
        """Predict one run, or the compute-optimal run of a budget.

        inputs: the law's own; or, for a law of (params, tokens), only flops: then the
        run is compute-optimal under C = 6 N D, and comes with intervals of its size and
        tokens. With the target, such as the loss, and all inputs but one, it finds the
        run that reaches it (see `required_run`).

        Raises ValueError for other inputs, or when the fit did not converge.
        """
        inputs = one_run(inputs)
        if self.law.target in inputs and self.law.target not in self.law.inputs:
            self._check_converged()
            fitted = FittedLaw(self.law, self.params, self.converged_draws(), self.ranges)
            return self._bounded(required_run(fitted, inputs))
        run = self._run(inputs)
        bands = {} if run == inputs else self._optimal_intervals(inputs["flops"])
        return Forecast(self.estimate(**run), run, bands)

    def estimate(self, **inputs: float) -> Estimate:
        """Predict the target at the law's own inputs, with a 95% prediction interval.

        Every bootstrap draw of the law is combined with every residual of the fitted
        rows; the interval is the 2.5 and 97.5 percentile of all combinations. It says
        how far a run like the fitted ones may fall from the law, not whether the law
        still holds there; `method` says how far beyond the fitted rows the run is.

        Without bootstrap draws there is no interval. Neither is there one for a run
        that changes what never varied in the fitted rows, for a run beyond them in an
        input whose parameters they leave free, and for a top-1 error outside of 0 to 1.
        `method` gives the reason.
        """
        inputs = one_run(inputs)
        self._check_converged()
        self._check_inputs(inputs)
        at = [np.array([inputs[name]], np.float64) for name in self.law.inputs]
        value = float(evaluate(self.law, self.params, at)[0])
        extrapolation = self.extrapolation(inputs)
        draws = self.converged_draws()
        reasons = [
            *self._impossible(value),
            *self._changes_of_unvaried(inputs),
            *self.beyond_open(inputs),
        ]
        if not draws:
            reasons = [self.no_draws]
        if reasons:
            method = "; ".join([f"no interval: {', '.join(reasons)}", *extrapolation])
            return Estimate(value, None, None, LEVEL, method)
        measured = self.measured(evaluate(self.law, draws, at)[:, None], self.residuals)
        low, high = np.percentile(measured, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
        method = (
            f"{len(measured)} bootstrap draws of {self._unit()} x {len(self.residuals)} residuals"
        )
        extrapolation = [*([self.assumption] if self.assumption else []), *extrapolation]
        return Estimate(value, float(low), float(high), LEVEL, "; ".join([method, *extrapolation]))

    @property
    def no_draws(self) -> str:
        """Why a fit without draws has none."""
        if self.intervals:
            return "its bootstraps gave none (see its reasons)"
        return "the fit has no bootstrap draws"

    def _unit(self) -> str:
        """What the bootstrap drew."""
        if self.resample == "trunks":
            return f"effects of {self.clusters} and noise of runs"
        return self.clusters or {"pairs": "rows"}.get(self.resample, self.resample)

    def measured(self, predicted: np.ndarray, residuals: np.ndarray) -> np.ndarray:
        """Return the measurements of runs that fall from the law by some residuals.

        predicted: the law's predictions; the arrays broadcast.  residuals: predicted
        minus observed, on the scale of the loss.  A top-1 error is a share of items,
        and stays between 0 and 1 where the law leaves them.
        """
        is_log = losses.parse_loss(self.loss).residual == "log"
        values = predicted * np.exp(-residuals) if is_log else predicted - residuals
        return np.clip(values, 0, 1) if self.law.target == "top1_error" else values

    def charts(self) -> list[Chart]:
        """Return the panels of the figure: the law with its rows, and the residuals."""
        self._check_converged()
        return plots.charts(self)

    def influence(self, **inputs: float) -> np.ndarray:
        """Return d prediction / d target of each fitted row, (rows,).

        By implicit differentiation it is -(d prediction / d theta) H^-1 (d gradient /
        d target), over the coordinates that are free to move. For a compute-optimal run
        (flops) that is everything: to first order, a shift of N* and D* does not change
        the loss.

        Raises ValueError for a fit that was loaded from a file, which holds no rows.
        """
        if self.optimum is None:
            raise ValueError(
                "influence needs the fitted rows, which a file does not hold; "
                "call it on the Fit that `fit` returned"
            )
        run = self._run(one_run(inputs))
        self._check_inputs(run)
        law, at = unconstrained(self.law), self.optimum
        problem, local = at.problem, identification.linearize(self.law, at)
        huber, kept = at.loss.stages[-1], at.weights > 0
        with jax.enable_x64(True):
            curvature = np.asarray(huber.curvature(jnp.asarray(local.residuals))) * at.weights[kept]
            inputs_at_run = tuple(np.array([run[name]]) for name in law.inputs)
            slope = jax.jacfwd(lambda theta: _predict_at(law, problem, theta, inputs_at_run))
            ahead = np.asarray(slope(jnp.asarray(at.theta)))[0]
        # A parameter that is held or at a bound does not move: its row of H is the
        # identity.
        fixed = np.all(problem.basis == 0, axis=0)
        still = fixed | (at.theta <= problem.low) | (at.theta >= problem.high)
        hessian = np.where(still[:, None] | still, np.eye(len(still)), at.state.hessian[..., 0])
        moved = np.where(still, 0.0, local.jacobian) * curvature[:, None]
        if at.loss.residual == "log":
            # The residual is log prediction - log target, so its slope is -1 / target.
            moved = moved / at.problem.targets[kept][:, None]
        return moved @ np.linalg.solve(hessian, np.where(still, 0.0, ahead))

    def _check_converged(self) -> None:
        if self.verdict == "not-converged":
            raise ValueError(
                f"this {self.law.name} fit did not converge and predicts nothing: "
                f"{'; '.join(self.reasons)}"
            )

    def _check_inputs(self, inputs: dict[str, float]) -> None:
        law = self.law
        if set(inputs) != set(law.inputs):
            raise ValueError(
                f"the {law.name} law predicts {law.target} from {', '.join(law.inputs)}; "
                f"got {', '.join(inputs) or 'nothing'}"
            )
        for name, value in inputs.items():
            if not np.isfinite(value) or (value <= 0 and name not in law.signed):
                raise ValueError(f"{name} must be positive; got {value}")
        if law.shares:
            diagnoses.check_shares(inputs)

    def _run(self, inputs: dict[str, float]) -> dict[str, float]:
        """The inputs, or the compute-optimal run when they are flops."""
        self._check_converged()
        if set(inputs) != {"flops"} or self.law.inputs != ("params", "tokens"):
            return inputs
        diagnoses.check_units_of_flops(self.ranges)
        best = optimal.compute_optimal(self._form(self.params), inputs["flops"])
        if not 0 < best.params < np.inf:
            raise ValueError("no compute-optimal run: a size or exponent of the fit is zero")
        run = {"params": float(best.params), "tokens": float(best.tokens)}
        for name, value in run.items():
            low, high = self.ranges[name]
            if value > MAX_OPTIMUM_DISTANCE * high or value < low / MAX_OPTIMUM_DISTANCE:
                raise ValueError(
                    f"no compute-optimal run of {inputs['flops']:.3g} FLOPs: the law puts its "
                    f"{name} at {value:.2g}, and the fitted rows have {low:.2g} to {high:.2g}; "
                    f"predict a run nearer to them, or fit rows that determine every parameter "
                    f"(verdict of this fit: {self.verdict})"
                )
        return run

    def _optimal_intervals(self, flops: float) -> dict[str, Interval]:
        """95% percentile intervals of N*, D* and D*/N* over the bootstrap draws.

        When the draws let a term vanish (its size or exponent is open below), nothing
        bounds the optimum on that side: without the size term the best model is
        arbitrarily small, without the data term arbitrarily large. A term that is open
        at both ends bounds the optimum on neither side.
        """
        draws = self.converged_draws()
        if not draws:
            return {}
        low, high = optimal.compute_optimal_bands(self._form(draws), flops, LEVEL)
        vanishing = self._vanishing_terms()
        # Which term bounds the lower, and which the upper end of each quantity.
        bounding = {
            "params": (SIZE, DATA),
            "tokens": (DATA, SIZE),
            "tokens_per_param": (DATA, SIZE),
        }
        intervals: dict[str, Interval] = {}
        for (name, (below, above)), lower, upper in zip(bounding.items(), low, high, strict=True):
            intervals[name] = (
                float(lower) if 0 < lower < np.inf and below not in vanishing else None,
                float(upper) if 0 < upper < np.inf and above not in vanishing else None,
            )
        return intervals

    def _form(self, params: Mapping[str, Any]) -> Any:
        """The law's NamedTuple at some parameters."""
        return self.law.form._make(params[name] for name in self.law.names)

    def _vanishing_terms(self) -> set[int]:
        """Axes of the terms that are zero, or constant, in enough of the draws."""
        ends_by_axis = [
            (axis, self.intervals.get(part, (0.0, 0.0)))
            for name, coordinate in zip(self.law.names, self.law.coordinates, strict=True)
            for exponent, axis, _ in coordinate.units
            for part in (name, exponent)
        ]
        if any(ends == (None, None) for _, ends in ends_by_axis):
            return {SIZE, DATA}
        return {axis for axis, (low, _) in ends_by_axis if low is None}

    def _changes_of_unvaried(self, inputs: dict[str, float]) -> list[str]:
        """Name the inputs of a run that differ from their single fitted value."""
        changes = []
        for quantity, fitted in self.unvaried.items():
            numerator, _, denominator = quantity.partition("/")
            value = inputs[numerator] / (inputs[denominator] if denominator else 1.0)
            if abs(value - fitted) > SAME_VALUE * abs(fitted):
                changes.append(
                    f"{quantity} was {fitted:.4g} in every fitted row, and here it is {value:.4g}"
                )
        return changes

    def beyond_open(self, inputs: dict[str, float]) -> list[str]:
        """Name the inputs beyond the fitted rows whose parameters these leave free.

        Nothing bounds a prediction at such inputs.
        """
        return [
            f"{name} is beyond the fitted rows, which leave {' and '.join(parts)} free"
            for name, parts in self.open_inputs.items()
            if extrapolation({name: inputs[name]}, self.ranges)
        ]

    def _bounded(self, forecast: Forecast) -> Forecast:
        """Drop the interval of a run that reaches a target where nothing bounds it."""
        run = {name: forecast.run[name] for name in self.law.inputs}
        reasons = [*self._changes_of_unvaried(run), *self.beyond_open(run)]
        if not self.draws:
            reasons = [self.no_draws]
        if not reasons:
            return forecast
        method = "; ".join([f"no interval: {', '.join(reasons)}", *self.extrapolation(run)])
        estimate = forecast.estimate._replace(low=None, high=None, method=method)
        return forecast._replace(estimate=estimate)

    def _impossible(self, value: float) -> list[str]:
        """Say that a predicted error is none."""
        if self.law.target != "top1_error" or 0 <= value <= 1:
            return []
        return [f"a top-1 error is between 0 and 1, so the law does not hold here ({self.verdict})"]

    def extrapolation(self, inputs: dict[str, float]) -> list[str]:
        """Say how far each input of a run lies beyond the fitted rows."""
        return extrapolation(inputs, self.ranges)

    def summary(self) -> dict[str, Any]:
        """What `scalejax fit --json` prints: everything except the draws."""
        return super().summary() | {"quality": self.quality.record()}

    def _law_record(self) -> dict[str, Any]:
        return super()._law_record() | {"tied": list(self.law.tied)}

    def _spread_record(self) -> dict[str, Any]:
        ranges = {name: list(ends) for name, ends in self.ranges.items()}
        record = {"ranges": ranges, "unvaried": self.unvaried, "open_inputs": self.open_inputs}
        if not self.draws:
            return record
        residuals = {
            "residuals": self.residuals.tolist(),
            "assumption": self.assumption,
            "rows": self.rows,
        }
        return record | super()._spread_record() | residuals

    @classmethod
    def _fields_from_record(cls, record: dict[str, Any]) -> dict[str, Any]:
        spread = record["spread"]
        return super()._fields_from_record(record) | {
            "quality": Quality.from_record(record["quality"]),
            "holdout": Scores.from_record(record["holdout"]),
            "cross_validation": RollingOrigin.from_record(record["cross_validation"]),
            "ranges": {name: (low, high) for name, (low, high) in spread["ranges"].items()},
            "unvaried": spread["unvaried"],
            "open_inputs": spread.get("open_inputs", {}),
            "residuals": np.asarray(spread.get("residuals", ()), np.float64),
            "assumption": spread.get("assumption", ""),
            "rows": spread.get("rows", ""),
        }


def _predict_at(
    law: ParametricLaw[Any], problem: Problem, theta: jax.Array, inputs: tuple[Any, ...]
) -> jax.Array:
    """The prediction in the table's units at coordinates theta, (p,).

    It is differentiable with respect to theta.
    """
    return law.predict(parameters_in_table_units(law, problem, theta[:, None]), *inputs)
