"""Laws of the best learning rate and batch from a table of sweeps: (params, tokens, learning_rate, batch_tokens, loss)."""

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from scalejax.fitting import tables
from scalejax.fitting.fit import Estimate, Fit, stored
from scalejax.fitting.resampling import Interval, percentile_ends
from scalejax.laws import hyperparameters as hp
from scalejax.laws.hyperparameters import HyperparameterLaw

if TYPE_CHECKING:
    from pandas import DataFrame

SWEPT = ("params", "tokens", "learning_rate", "batch_tokens")


def fit(
    frame: "DataFrame",
    law: HyperparameterLaw,
    *,
    held_out: np.ndarray,
    loss: str,
    weights: str | None,
    cluster: str | None,
    bootstrap: int,
    seed: int,
    columns: dict[str, str],
    **choices: Any,
) -> Fit:
    """LR*(N, D), batch*(D), and beta2*(batch) where the table has several beta2; see `scalejax.fitting.fit.fit`.

    Draws resample cells of equal params and tokens, never runs.

    Scores are regrets: relative loss above the best run of a cell at the law's learning rate and batch.
    """
    given = [
        *choices,
        *(name for name, _ in law.fixed),
        *(["cluster"] if cluster else []),
        *(["weights"] if weights else []),
    ]
    given += ["loss"] if loss != "huber:1e-3" else []
    if given:
        raise ValueError(
            f"the hyperparameters law resamples whole cells and does not read {', '.join(given)}"
        )
    begin = time.perf_counter()
    swept = "beta2" in columns or "beta2" in frame.columns
    read = tables.read_columns(frame, (*SWEPT, *(["beta2"] if swept else [])), "loss", columns)
    out = held_out[read.complete]
    runs = _sweep(read, ~out)
    found = hp.fit_hyperparameters(runs, draws=bootstrap, seed=seed)
    solved = time.perf_counter()
    dropped = int(np.sum(~read.complete))
    names, values, draws = hp.NAMES, [*found.law], found.draws
    if found.beta2 is not None:
        names, values, draws = (
            names + hp.BETA2_NAMES,
            [*values, *found.beta2],
            np.hstack([draws, found.beta2_draws]),
        )
    known = found.verdict != "unidentified"
    intervals: dict[str, Interval] = dict(
        zip(names, percentile_ends(draws) if known else [], strict=False)
    )
    lost = (None, None) in intervals.values()
    fitted = Fit(
        law=law,
        params={name: float(value) for name, value in zip(names, values, strict=True)},
        intervals=intervals,
        objective=found.objective,
        gradient_norm=found.gradient_norm,
        starts_at_optimum=1.0,
        n_rows=len(runs.loss),
        verdict="unidentified" if lost else found.verdict,
        reasons=[
            *found.reasons,
            *(
                [_lost(float(np.mean(~np.isfinite(draws).all(axis=1))), len(runs.cells()))]
                if lost
                else []
            ),
            f"{found.kept} of {len(runs.loss)} runs, the best of their cells, give the law",
            *([f"dropped {dropped} rows with missing or infinite values"] if dropped else []),
        ],
        loss="log-mse",
        columns=read.names,
        seed=seed,
        clusters="cell",
        at_boundary=[name for name in names if name.partition(".")[0] in found.at_boundary],
        holdout=_regrets(
            np.array(
                [
                    hp.regret(found.law, cell)
                    for cell in (_sweep(read, out).cells() if out.any() else [])
                ]
            ),
            int(out.sum()),
        ),
        cross_validation={
            "method": "leave-one-cell-out",
            **_regrets(found.left_out, len(runs.loss)),
        },
        views={"regret": {"mean": float(found.regret.mean()), "max": float(found.regret.max())}}
        if known
        else {},
        spread={"draws": dict(zip(names, stored(draws), strict=True))},
    )
    fitted.seconds.update(solve=solved - begin, uncertainty=0.0)
    return fitted


def predict(fit: Fit, **inputs: float) -> Estimate:
    """The best learning rate of a run; see `forecast` for its batch."""
    if set(inputs) != {"params", "tokens"} or not all(
        0 < value < np.inf for value in inputs.values()
    ):
        raise ValueError(
            f"the hyperparameters law predicts from params and tokens, both positive; got {inputs or 'nothing'}"
        )
    if not np.isfinite(list(fit.params.values())).all():
        raise ValueError(f"this fit has no law ({fit.verdict}): {'; '.join(fit.reasons)}")
    value = hp.Hyperparameters(*(fit.params[name] for name in hp.NAMES)).learning_rate(
        inputs["params"], inputs["tokens"]
    )
    draws = fit.spread["draws"]
    if not draws[hp.NAMES[0]]:
        return Estimate(float(value), None, None, 0.95, "no interval: fitted without bootstraps")
    law = hp.Hyperparameters(*(np.asarray(draws[name], float) for name in hp.NAMES))
    (low, high), *_ = percentile_ends(
        law.learning_rate(inputs["params"], inputs["tokens"])[:, None]
    )
    count = len(draws[hp.NAMES[0]])
    method = (
        f"{count} bootstrap draws of cells"
        if low is not None
        else f"no interval: too few of {count} draws of cells give a law"
    )
    return Estimate(float(value), low, high, 0.95, method)


def forecast(fit: Fit, **inputs: float) -> tuple[dict[str, Any], Estimate]:
    """The learning rate as the value, the batch beside it, and the beta2 of that batch where the fit has its law."""
    estimate = predict(fit, **inputs)
    law = hp.Hyperparameters(*(fit.params[name] for name in hp.NAMES))
    batch = float(law.batch_tokens(inputs["tokens"]))
    at = {**inputs, "learning_rate": estimate.value, "batch_tokens": batch}
    if hp.BETA2_NAMES[0] in fit.params:
        at["beta2"] = float(hp.Beta2(*(fit.params[name] for name in hp.BETA2_NAMES)).beta2(batch))
    return at, estimate


def _lost(share: float, cells: int) -> str:
    return f"{cells} cells: {share:.0%} of their draws do not identify the law, and no interval follows"


def _sweep(read: tables.Columns, rows: np.ndarray) -> hp.Sweep:
    params, tokens, learning_rate, batch_tokens, *beta2 = (x[rows] for x in read.inputs)
    return hp.Sweep(
        params,
        tokens,
        learning_rate,
        batch_tokens,
        read.target[rows],
        *(beta2 or [np.zeros(len(params))]),
    )


def _regrets(regret: np.ndarray, rows: int) -> dict[str, Any]:
    known = regret[np.isfinite(regret)]
    if not len(known):
        return {}
    return {
        "n": rows,
        "cells": len(known),
        "mean_rel_error": float(known.mean()),
        "max_rel_error": float(known.max()),
    }
