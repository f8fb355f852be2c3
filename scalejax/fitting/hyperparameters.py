"""Fits laws of the best learning rate, batch size and beta2 to a table of sweeps.

The table has rows of (params, tokens, learning_rate, batch_tokens, loss), and beta2
when it was swept. A cell is all runs of equal params and tokens.
"""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from scalejax.fitting import tables
from scalejax.fitting.options import FitOptions
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

# The columns of a sweep beside the loss and beta2.
SWEEP_COLUMNS = ("params", "tokens", "learning_rate", "batch_tokens")

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

    def forecast(self, **inputs: float) -> Forecast:
        """Predict the best learning rate with its interval, and the best batch size.

        params, tokens: of the run. The forecast also has the best beta2 at that batch
        size when the table swept beta2.

        Raises ValueError for other inputs, or when the fit has no law.
        """
        estimate = self._learning_rate(inputs)
        law = Hyperparameters(*(self.params[name] for name in NAMES))
        batch = float(law.batch_tokens(inputs["tokens"]))
        run = {**inputs, "learning_rate": estimate.value, "batch_tokens": batch}
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
        law = Hyperparameters(*(self.params[name] for name in NAMES))
        value = float(law.learning_rate(size, tokens))
        count = len(self.draws[NAMES[0]])
        if not count:
            return Estimate(value, None, None, LEVEL, "no interval: fitted without bootstraps")
        draws = Hyperparameters(*(self.draws[name] for name in NAMES))
        rates = np.asarray(draws.learning_rate(size, tokens))
        (low, high), *_ = percentile_ends(rates[:, None])
        method = f"{count} bootstrap draws of cells"
        if low is None:
            method = f"no interval: too few of {count} draws of cells give a law"
        return Estimate(value, low, high, LEVEL, method)

    @classmethod
    def _fields_from_record(cls, record: dict[str, Any]) -> dict[str, Any]:
        return super()._fields_from_record(record) | {
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
    named = dict(options.columns)
    beta2 = ["beta2"] if "beta2" in named or "beta2" in frame.columns else []
    read = tables.read_columns(frame, (*SWEEP_COLUMNS, *beta2), "loss", named)
    out = options.held_out_mask(len(frame))[read.complete]
    runs = _sweep(read, ~out)
    result = fit_hyperparameters(runs, draws=options.bootstrap, seed=options.seed)
    solved = time.perf_counter()
    params, draws = _parameters(result)
    known = result.verdict != "unidentified"
    intervals: dict[str, Interval] = dict(
        zip(params, percentile_ends(draws) if known else [], strict=False)
    )
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
        seconds=Seconds(solve=solved - begin, uncertainty=0.0),
    )


def _sweep(read: tables.Columns, rows: np.ndarray) -> Sweep:
    """Some rows of the table."""
    params, tokens, learning_rate, batch_tokens, *beta2 = (x[rows] for x in read.inputs)
    # Without a column of beta2 all runs count as having the same.
    beta2 = beta2[0] if beta2 else np.zeros(len(params))
    return Sweep(params, tokens, learning_rate, batch_tokens, read.target[rows], beta2)


def _parameters(result: SweepFit) -> tuple[dict[str, float], np.ndarray]:
    """The parameters by name, and their draws, (draws, parameters).

    They include the law of beta2 when there is one.
    """
    names, values, draws = NAMES, [*result.law], result.draws
    if result.beta2 is not None:
        names, values = NAMES + BETA2_NAMES, [*values, *result.beta2]
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
