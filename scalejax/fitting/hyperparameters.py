"""Fits laws of the best learning rate, batch size and beta2 to a table of sweeps.

The table has rows of (params, tokens, learning_rate, loss), and batch_tokens and beta2
when they were swept. A cell is all runs of equal params and tokens.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from scalejax.fitting import tables
from scalejax.fitting.charts.chart import Chart
from scalejax.fitting.extrapolation import extrapolation
from scalejax.fitting.options import FitOptions
from scalejax.fitting.plots import hyperparameters as plots
from scalejax.fitting.reading import diagnoses
from scalejax.fitting.reading.numbers import one_run
from scalejax.fitting.resampling import percentile_ends
from scalejax.fitting.result import (
    LEVEL,
    CrossValidation,
    Errors,
    Estimate,
    Fit,
    Forecast,
    Interval,
    Seconds,
    dropped_reasons,
    kept_draws,
)
from scalejax.laws.hyperparameters import (
    BETA2_NAMES,
    NAMES,
    Beta2,
    HyperparameterLaw,
    Hyperparameters,
    Sweep,
    SweepFit,
    fit_hyperparameters,
    regret,
)

if TYPE_CHECKING:
    from pandas import DataFrame

# The columns of a sweep beside the loss, and those that a table need not have.
SWEEP_COLUMNS = ("params", "tokens", "learning_rate")
OPTIONAL_COLUMNS = ("batch_tokens", "beta2")

# The loss of the regressions.
LOSS = "log-mse"


@dataclass(frozen=True, kw_only=True)
class Regrets(Errors):
    """Relative losses of the law's choices above the best run of each cell."""

    cells: int = 0
    """Number of cells that were scored; `n` counts their rows."""

    @classmethod
    def of(cls, regrets: np.ndarray, rows: int) -> "Regrets":
        """Summarize the regrets of cells, (cells,), nan where a cell has none."""
        known = regrets[np.isfinite(regrets)]
        if not len(known):
            return cls()
        return cls(
            n=rows,
            cells=len(known),
            mean_rel_error=float(known.mean()),
            max_rel_error=float(known.max()),
        )

    def record(self) -> dict[str, Any]:
        """The regrets in JSON; empty when nothing was scored."""
        if not self.n:
            return {}
        return {
            "n": self.n,
            "cells": self.cells,
            "mean_rel_error": self.mean_rel_error,
            "max_rel_error": self.max_rel_error,
        }


@dataclass(frozen=True, kw_only=True)
class LeaveOneCellOut(CrossValidation):
    """Regrets in each cell of the law that was fitted without that cell."""

    method = "leave-one-cell-out"

    def record(self) -> dict[str, Any]:
        """The regrets in JSON."""
        if not self.n:
            return {"method": self.method}
        return {
            "method": self.method,
            "n": self.n,
            "cells": self.splits,
            "mean_rel_error": self.mean_rel_error,
            "max_rel_error": self.max_rel_error,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "LeaveOneCellOut":
        """The inverse of `record`."""
        values = {name: value for name, value in record.items() if name != "method"}
        return cls(splits=values.pop("cells", 0), **values)


@dataclass(frozen=True, kw_only=True, eq=False)
class HyperparameterFit(Fit[HyperparameterLaw]):
    """Laws of the best hyperparameters, fitted to a table of sweeps."""

    holdout: Regrets = field(default_factory=Regrets)
    cross_validation: LeaveOneCellOut = field(default_factory=LeaveOneCellOut)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict, repr=False)
    """Smallest and largest params and tokens of the cells."""
    cells: tuple[Sweep, ...] = field(default=(), repr=False)
    """The runs of each cell; empty in a fit that was loaded from a file."""

    def charts(self) -> list[Chart]:
        """Return the panels of the figure: the sweeps, and the law of the best rate."""
        return plots.charts(self)

    def forecast(self, **inputs: float) -> Forecast:
        """Predict the best learning rate with its interval, and the best batch size.

        params, tokens: of the run. The forecast also has the best beta2 at that batch
        size when the table swept beta2, and no batch size when it was not swept.

        Raises ValueError for other inputs, or when the fit has no law.
        """
        inputs = one_run(inputs)
        estimate = self._learning_rate(inputs)
        batch = float(_law(self.params).batch_tokens(inputs["tokens"]))
        run = {**inputs, "learning_rate": estimate.value}
        if np.isfinite(batch):
            run["batch_tokens"] = batch
        if BETA2_NAMES[0] in self.params:
            beta2 = Beta2(*(self.params[name] for name in BETA2_NAMES))
            run["beta2"] = float(beta2.beta2(batch))
        return Forecast(estimate, run, {})

    def _learning_rate(self, inputs: dict[str, float]) -> Estimate:
        positive = all(0 < value < np.inf for value in inputs.values())
        if set(inputs) != {"params", "tokens"} or not positive:
            raise ValueError(
                "the hyperparameters law predicts from params and tokens, both positive; "
                f"got {inputs or 'nothing'}"
            )
        if not np.isfinite(list(self.params.values())).all():
            raise ValueError(f"this fit has no law ({self.verdict}): {'; '.join(self.reasons)}")
        size, tokens = inputs["params"], inputs["tokens"]
        value = float(_law(self.params).learning_rate(size, tokens))
        far = extrapolation(inputs, self.ranges)
        count = len(self.draws[NAMES[0]])
        low, high, method = None, None, "no interval: fitted without bootstraps"
        if count:
            rates = np.asarray(_law(self.draws).learning_rate(size, tokens))
            (low, high), *_ = percentile_ends(rates[:, None])
            method = f"{count} bootstrap draws of cells"
            if low is None:
                method = f"no interval: too few of {count} draws of cells give a law"
        return Estimate(value, low, high, LEVEL, "; ".join([method, *far]))

    def _spread_record(self) -> dict[str, Any]:
        ranges = {name: list(ends) for name, ends in self.ranges.items()}
        return super()._spread_record() | {"ranges": ranges}

    @classmethod
    def _fields_from_record(cls, record: dict[str, Any]) -> dict[str, Any]:
        ranges = record["spread"]["ranges"].items()
        return super()._fields_from_record(record) | {
            "ranges": {name: (low, high) for name, (low, high) in ranges},
            "holdout": Regrets.from_record(record["holdout"]),
            "cross_validation": LeaveOneCellOut.from_record(record["cross_validation"]),
        }


def fit(frame: "DataFrame", law: HyperparameterLaw, options: FitOptions) -> HyperparameterFit:
    """Fit LR*(N, D), batch*(D) and beta2*(batch) to sweeps; see `scalejax.fit`.

    frame: one row per run.  options: no special option is read. A bootstrap resamples
    cells, never runs, since the runs of a cell share its optimum.

    Raises ValueError for options that are not read, for a table that cannot be read,
    and for fewer than three cells.
    """
    options.check(law, ())
    begin = time.perf_counter()
    named = options.columns
    given = [name for name in OPTIONAL_COLUMNS if name in named or name in frame.columns]
    read = tables.read_columns(frame, (*SWEEP_COLUMNS, *given), "loss", named)
    diagnoses.check_one_row_per_run(frame.loc[read.complete], named.get("run", "run"))
    out = options.held_out_mask(len(frame))[read.complete]
    runs = _sweep(read, ~out)
    result = fit_hyperparameters(runs, draws=options.draws(), seed=options.seed)
    solved = time.perf_counter()
    params, draws = _parameters(result)
    known = result.verdict != "unidentified"
    ends = percentile_ends(draws) if known else []
    intervals: dict[str, Interval] = dict(zip(params, ends, strict=False))
    lost = (None, None) in intervals.values()
    held_out_cells = _sweep(read, out).cells() if out.any() else []
    regrets = np.array([regret(result.law, cell) for cell in held_out_cells])
    mean_regret = {"mean": float(result.regret.mean()), "max": float(result.regret.max())}
    return HyperparameterFit(
        law=law,
        params=params,
        intervals=intervals,
        objective=result.objective,
        gradient_norm=result.gradient_norm,
        starts_at_optimum=1.0,
        n_rows=len(runs.loss),
        verdict="unidentified" if lost else result.verdict,
        reasons=[
            *_diagnoses(frame.loc[read.complete].loc[~out], runs, {**named, **read.names}),
            *result.reasons,
            *(_lost_reasons(draws, runs) if lost else []),
            f"{result.runs_used} of {len(runs.loss)} runs, the best of their cells, give the law",
            *dropped_reasons(read.complete),
        ],
        loss=LOSS,
        columns=read.names,
        seed=options.seed,
        clusters="cell",
        at_boundary=[name for name in params if name.partition(".")[0] in result.at_boundary],
        holdout=Regrets.of(regrets, int(out.sum())),
        cross_validation=_leave_one_cell_out(result, len(runs.loss)),
        views={"regret": mean_regret} if known else {},
        draws=kept_draws(params, draws),
        cells=tuple(runs.cells()),
        ranges={
            "params": (float(runs.params.min()), float(runs.params.max())),
            "tokens": (float(runs.tokens.min()), float(runs.tokens.max())),
        },
        seconds=Seconds(solve=solved - begin, uncertainty=0.0),
    )


def _diagnoses(rows: "DataFrame", runs: Sweep, names: Mapping[str, str]) -> list[str]:
    """Say what the fitted rows look like other than sweeps."""
    reasons = tables.diagnose(rows, runs._asdict(), "loss", names)
    return reasons + diagnoses.cell_reasons(runs.params, runs.tokens, names["tokens"])


def _sweep(read: tables.Columns, rows: np.ndarray) -> Sweep:
    """Some rows of the table."""
    columns = {name: x[rows] for name, x in zip(read.names, read.inputs, strict=False)}
    # Without a column of batch sizes, or of beta2, all runs count as having the same.
    same = {"batch_tokens": np.ones(rows.sum()), "beta2": np.zeros(rows.sum())}
    return Sweep(**(same | columns), loss=read.target[rows])


def _law(params: Mapping[str, Any]) -> Hyperparameters:
    """The law of a fit's parameters, or of its draws; nan for what it does not have."""
    return Hyperparameters(*(params.get(name, np.nan) for name in NAMES))


def _parameters(result: SweepFit) -> tuple[dict[str, float], np.ndarray]:
    """The parameters by name, and their draws, (draws, parameters).

    They include the law of beta2 when there is one.
    """
    names = NAMES[: result.draws.shape[1]]
    values, draws = [*result.law][: len(names)], result.draws
    if result.beta2 is not None:
        names, values = names + BETA2_NAMES, [*values, *result.beta2]
        draws = np.hstack([draws, result.beta2_draws])
    return {name: float(value) for name, value in zip(names, values, strict=True)}, draws


def _lost_reasons(draws: np.ndarray, runs: Sweep) -> list[str]:
    """Say why the intervals are open."""
    share = float(np.mean(~np.isfinite(draws).all(axis=1)))
    return [
        f"{len(runs.cells())} cells: {share:.0%} of their draws do not identify the law, "
        "and no interval follows"
    ]


def _leave_one_cell_out(result: SweepFit, rows: int) -> LeaveOneCellOut:
    regrets = Regrets.of(result.left_out_regret, rows)
    return LeaveOneCellOut(
        splits=regrets.cells,
        n=regrets.n,
        mean_rel_error=regrets.mean_rel_error,
        max_rel_error=regrets.max_rel_error,
    )
