"""Fits compute-optimal sizes to a table by isoFLOP curves (approach 2).

The table has rows of (params, tokens, flops, loss), with several sizes at each budget.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from scalejax.fitting import tables
from scalejax.fitting.charts.chart import Chart
from scalejax.fitting.extrapolation import extrapolation
from scalejax.fitting.options import DEFAULT_DRAWS, FitOptions
from scalejax.fitting.parametric import fit as parametric
from scalejax.fitting.plots import isoflop as plots
from scalejax.fitting.reading import diagnoses
from scalejax.fitting.reading.numbers import one_run
from scalejax.fitting.resampling import TAIL, percentile_ends
from scalejax.fitting.result import (
    LEVEL,
    Estimate,
    Fit,
    Forecast,
    Interval,
    Scores,
    Seconds,
    dropped_reasons,
    kept_draws,
)
from scalejax.laws.forms import chinchilla
from scalejax.laws.isoflop import Budget, IsoFLOP, IsoFLOPResult, Noise, PowerLaws, fit_isoflop
from scalejax.laws.isoflop.budgets import IsoFLOPCurve
from scalejax.laws.isoflop.frontier import Frontier

if TYPE_CHECKING:
    from pandas import DataFrame

# The loss of the power laws. The isoFLOP curves are interpolated, or fitted by least
# squares.
LOSS = "log-mse"


@dataclass(frozen=True, kw_only=True, eq=False)
class IsoFLOPFit(Fit[IsoFLOP]):
    """Laws of the compute-optimal size, tokens and loss, fitted to a table."""

    holdout: Scores = field(default_factory=Scores)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict, repr=False)
    """Smallest and largest budget with an optimum, by the name flops."""
    curves: tuple[IsoFLOPCurve, ...] = field(default=(), repr=False)
    """The isoFLOP curve of every budget; empty in a fit that was loaded from a file."""
    optima: tuple[Budget, ...] = field(default=(), repr=False)
    """The budgets that have an optimum; empty in a fit that was loaded from a file."""

    def charts(self) -> list[Chart]:
        """Return the panels of the figure: the curves, N*(C) and L*(C)."""
        return plots.charts(self)

    def forecast(self, **inputs: float) -> Forecast:
        """Predict the optimum of a compute budget: N* with its interval, D* and L*.

        flops: the budget, C; or loss: the budget is then the one whose optimum has this
        loss by L*(C), and the estimate is that budget. Intervals are those of the laws:
        the loss of a single run differs from L* by its noise.

        Raises ValueError for other inputs, when the fit has no power law, and for a
        loss that no budget reaches.
        """
        inputs = one_run(inputs)
        if set(inputs) not in ({"flops"}, {"loss"}) or not 0 < min(inputs.values()) < np.inf:
            raise ValueError(
                "the isoflop law predicts the optimum of a compute budget: give flops, or the "
                f"loss that the optimum is to reach, positive; got {inputs or 'nothing'}"
            )
        if "loss" in inputs:
            return self._budget_of(inputs["loss"])
        if "flops" not in self.columns:
            diagnoses.check_budgets(self.ranges.get("flops", (0.0, np.inf)))
        estimate = self._estimate("params", inputs["flops"])
        tokens = self._estimate("tokens", inputs["flops"]).value
        run = {"params": estimate.value, "tokens": tokens}
        loss = float(self._frontier(self.params).loss(inputs["flops"]))
        if not np.isfinite(loss):
            return Forecast(estimate, run, {})
        of_loss = self._interval(lambda frontier: frontier.loss(inputs["flops"]))
        intervals = {} if of_loss == (None, None) else {"loss": of_loss}
        return Forecast(estimate, run | {"loss": loss}, intervals)

    def optimal_loss(self, flops: float) -> Estimate:
        """Return the loss of the optimum of a compute budget, L*(C), by the frontier.

        Raises ValueError when the fit has no L*(C).
        """
        forecast = self.forecast(flops=flops)
        if "loss" not in forecast.run:
            raise ValueError(f"this fit has no L*(C): {'; '.join(self.reasons)}")
        ends = forecast.intervals.get("loss", (None, None))
        return Estimate(forecast.run["loss"], *ends, LEVEL, forecast.estimate.method)

    def _budget_of(self, loss: float) -> Forecast:
        """The budget whose optimum has a loss, and its optimum."""
        frontier = self._frontier(self.params)
        flops = float(frontier.flops(loss))
        if not 0 < flops < np.inf:
            why = "the fit has no L*(C)"
            if np.isfinite(frontier.E):
                why = f"L*(C) falls from infinity to its E of {frontier.E:.4g}"
            raise ValueError(f"no budget reaches a loss of {loss:g}: {why}")
        optimum = self.forecast(flops=flops)
        low, high = self._interval(lambda drawn: drawn.flops(loss))
        # Where E of a draw is above the loss, no budget reaches it.
        low, high = (end if end is None or np.isfinite(end) else None for end in (low, high))
        run = {"flops": flops, **optimum.run}
        return Forecast(Estimate(flops, low, high, LEVEL, optimum.estimate.method), run, {})

    def _frontier(self, of: Mapping[str, Any]) -> Frontier:
        """L*(C) of parameters or of their draws."""
        return Frontier(*(of.get(name, np.nan) for name in Frontier._fields))

    def _interval(self, quantity: Callable[[Frontier], Any]) -> Interval:
        """The 95% interval of a quantity of L*(C); open without draws."""
        values = np.asarray(quantity(self._frontier(self.draws)))
        # Infinity is a value here, and only nan stands for a draw without a law.
        if not values.size or np.mean(np.isnan(values)) > TAIL:
            return None, None
        # Neighbouring draws are not averaged, because one of them may be infinite.
        low, high = np.nanquantile(values, (TAIL, 1 - TAIL), method="nearest")
        return float(low), float(high)

    def _estimate(self, name: str, flops: float) -> Estimate:
        """N* ("params") or D* ("tokens") at a budget."""
        value = float(getattr(_power_laws(self.params), name)(flops))
        if not np.isfinite(value):
            raise ValueError(f"this fit has no optimum ({self.verdict}): {'; '.join(self.reasons)}")
        far = extrapolation({"flops": flops}, self.ranges)
        count = len(self.draws["params_exponent"])
        low, high, method = None, None, "no interval: fitted without noise draws"
        if count:
            draws = getattr(_power_laws(self.draws), name)(flops)
            (low, high), *_ = percentile_ends(draws[:, None])
            method = f"{count} noise draws"
            if low is None:
                method = f"no interval: too few of {method} give a law"
        return Estimate(value, low, high, LEVEL, "; ".join([method, *far]))

    def _spread_record(self) -> dict[str, Any]:
        ranges = {name: list(ends) for name, ends in self.ranges.items()}
        return super()._spread_record() | {"ranges": ranges}

    @classmethod
    def _fields_from_record(cls, record: dict[str, Any]) -> dict[str, Any]:
        ranges = record["spread"]["ranges"].items()
        return super()._fields_from_record(record) | {
            "holdout": Scores.from_record(record["holdout"]),
            "ranges": {name: (low, high) for name, (low, high) in ranges},
        }


def fit(frame: "DataFrame", law: IsoFLOP, options: FitOptions) -> IsoFLOPFit:
    """Fit N*(C), D*(C) and L*(C) by isoFLOP curves; see `scalejax.fit`.

    frame: rows of (params, tokens, flops, loss); tokens or flops may be missing.
    options: protocol and noise are read, and bootstrap is the number of draws of the
    noise; without a noise there are none by default.

    Raises ValueError for options that are not read, for a table that cannot be read,
    for draws without a noise, and when no budget has three sizes.
    """
    options.check(law, ("protocol", "noise"))
    begin = time.perf_counter()
    named = dict(options.columns)
    read = tables.read_columns(frame, _inputs(frame, named), "loss", named)
    out = options.held_out_mask(len(frame))
    held_out = out[read.complete]
    method = _Method(
        options.protocol or "parabola",
        None if options.noise is None else Noise.parse(options.noise),
        dict(law.fixed),
    )
    draws = options.draws(DEFAULT_DRAWS if options.noise is not None else 0)
    runs = _runs(read, ~held_out)
    result = method.fit(runs, draws=draws, seed=options.seed)
    solved = time.perf_counter()
    parametric_view, notes = _parametric_view(frame.loc[~out], options)
    holdout, holdout_notes = _holdout(result, read, held_out, method)
    params, drawn = _parameters(result)
    ends = zip(law.names, percentile_ends(drawn), strict=False)
    intervals = {name: pair for name, pair in ends if name not in dict(law.fixed)}
    used = tuple(budget for budget in result.budgets if not budget.reason)
    counted, rows = sum(budget.models for budget in used), int(np.sum(~held_out))
    return IsoFLOPFit(
        law=law,
        params=params,
        intervals=intervals,
        objective=result.objective,
        gradient_norm=result.gradient_norm,
        starts_at_optimum=1.0,
        n_rows=counted,
        verdict=result.verdict,
        reasons=[
            *tables.diagnose(frame.loc[read.complete & ~out], runs._asdict(), "loss", read.names),
            *result.reasons,
            *([f"{counted} of {rows} rows count"] if counted < rows else []),
            *_disagreement(parametric_view, intervals),
            *dropped_reasons(read.complete),
            *(notes + holdout_notes + _draw_notes(options, draws)),
        ],
        loss=LOSS,
        columns=read.names,
        seed=options.seed,
        holdout=holdout,
        views=_views(result) | parametric_view,
        draws=kept_draws(law.names, drawn),
        ranges=_budget_range(used),
        curves=result.curves,
        optima=used,
        seconds=Seconds(solve=solved - begin, uncertainty=time.perf_counter() - solved),
    )


def _power_laws(of: Mapping[str, Any]) -> PowerLaws:
    """N*(C) and D*(C) of parameters or of their draws."""
    return PowerLaws(*(of[name] for name in PowerLaws._fields))


def _parameters(result: IsoFLOPResult) -> tuple[dict[str, float], np.ndarray]:
    """The parameters of all three laws, and their draws, (draws, 7)."""
    frontier = result.frontier
    assert frontier is not None, "approach 2 fits it"
    params = result.law._asdict() | frontier.law._asdict()
    if not len(result.draws):
        return params, np.empty((0, len(params)))
    return params, np.hstack([result.draws, frontier.draws])


def _draw_notes(options: FitOptions, draws: int) -> list[str]:
    """Say why there are no intervals, unless the caller asked for none."""
    if options.noise is None and options.bootstrap is None:
        return ["no intervals: state the noise of a loss in nats, such as --noise 0.002"]
    if options.noise is not None and not draws:
        return ["noise serves bootstrap draws only, and there are none: no intervals"]
    return []


def _budget_range(used: tuple[Budget, ...]) -> dict[str, tuple[float, float]]:
    flops = [budget.flops for budget in used]
    return {"flops": (min(flops), max(flops))} if flops else {}


def _disagreement(
    view: dict[str, dict[str, float]], intervals: Mapping[str, Interval]
) -> list[str]:
    """Say that the parametric law has another exponent than the isoFLOP curves."""
    low, high = intervals.get("params_exponent", (None, None))
    if "chinchilla" not in view or low is None or high is None:
        return []
    exponent = view["chinchilla"]["params_exponent"]
    if low <= exponent <= high:
        return []
    return [
        f"Chinchilla's law on the same rows has params_exponent {exponent:.4g}, outside of the "
        f"interval [{low:.4g}, {high:.4g}]; parabolas are biased where the sizes are not centred "
        "on the optimum (arXiv 2603.22339)"
    ]


class _Runs(NamedTuple):
    """Columns of some runs, (rows,) each."""

    params: np.ndarray
    tokens: np.ndarray
    flops: np.ndarray
    loss: np.ndarray


class _Method(NamedTuple):
    """How the optimum of a budget is found."""

    protocol: Literal["parabola", "akima"]
    noise: Noise | None
    fixed: dict[str, float]
    """Exponents that are held."""

    def fit(self, runs: _Runs, *, draws: int = 0, seed: int = 0) -> IsoFLOPResult:
        """Fit the power laws to some runs."""
        return fit_isoflop(
            *runs,
            protocol=self.protocol,
            noise=self.noise,
            draws=draws,
            seed=seed,
            fixed=self.fixed,
        )


def _inputs(frame: "DataFrame", named: Mapping[str, str]) -> tuple[str, ...]:
    """params, and whichever of tokens and flops the table has."""
    present = [name for name in ("tokens", "flops") if name in named or name in frame.columns]
    if not present:
        # Raises the error that says which columns the table has.
        tables.column_for(frame, "flops", dict(named))
    return ("params", *present)


def _runs(read: tables.Columns, rows: np.ndarray) -> _Runs:
    """Some rows of the table, with missing tokens or flops from C = 6 N D."""
    values = dict(zip((name for name in read.names if name != "loss"), read.inputs, strict=True))
    params = values["params"]
    if "tokens" not in values:
        values["tokens"] = values["flops"] / (6 * params)
    if "flops" not in values:
        values["flops"] = 6 * params * values["tokens"]
    return _Runs(params[rows], values["tokens"][rows], values["flops"][rows], read.target[rows])


def _views(result: IsoFLOPResult) -> dict[str, dict[str, float]]:
    """The optimum of each budget, and how well the power laws go through them."""
    if result.verdict != "ok":
        return {}
    used = [budget for budget in result.budgets if not budget.reason]
    return {
        "params_by_budget": {f"{budget.flops:.6g}": budget.params for budget in used},
        "tokens_by_budget": {f"{budget.flops:.6g}": budget.tokens for budget in used},
        "loss_by_budget": {
            f"{budget.flops:.6g}": budget.loss for budget in used if np.isfinite(budget.loss)
        },
        "r2": {"params": result.r2[0], "tokens": result.r2[1]},
    }


def _parametric_view(
    frame: "DataFrame", options: FitOptions
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Chinchilla's law on the same rows (approach 3), and a note when it has no fit.

    It is worth a look because approach 2 is biased when the loss is not symmetric about
    its optimum.
    """
    named = dict(options.columns)
    if "tokens" not in named and "tokens" not in frame.columns:
        params, flops = (
            tables.numeric_column(frame, tables.column_for(frame, name, named))
            for name in ("params", "flops")
        )
        frame = frame.assign(tokens=flops / (6 * params))
    columns = {name: named[name] for name in ("params", "tokens", "loss") if name in named}
    try:
        fitted = parametric.fit(
            frame, chinchilla(), FitOptions(columns=columns, bootstrap=0, seed=options.seed)
        )
    except ValueError as error:
        return {}, [f"no parametric fit for comparison: {error}"]
    if fitted.verdict != "ok":
        reasons = "; ".join(fitted.reasons)
        return {}, [f"the parametric fit for comparison is {fitted.verdict}: {reasons}"]
    alpha, beta = fitted.params["alpha"], fitted.params["beta"]
    return {"chinchilla": fitted.params | {"params_exponent": beta / (alpha + beta)}}, []


def _holdout(
    result: IsoFLOPResult, read: tables.Columns, held_out: np.ndarray, method: _Method
) -> tuple[Scores, list[str]]:
    """Score the power law of N* on the held-out budgets, and note why there are none.

    Each held-out budget has its optimum from an isoFLOP curve of its own.
    """
    if not held_out.any() or result.verdict != "ok":
        return Scores(), []
    try:
        budgets = method.fit(_runs(read, held_out)).budgets
    except ValueError as error:
        return Scores(), [f"the holdout is not scored: {error}"]
    used = [budget for budget in budgets if not budget.reason]
    if not used:
        return Scores(), ["the holdout is not scored: none of its budgets has an interior minimum"]
    flops = np.array([budget.flops for budget in used])
    measured = np.array([budget.params for budget in used])
    return Scores.of(np.asarray(result.law.params(flops)), measured), []
