"""Approach 2 from a table: rows of (params, tokens, flops, loss), several sizes at every budget."""

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from scalejax.fitting import parametric as points
from scalejax.fitting import tables
from scalejax.fitting.fit import Estimate, Fit, scores, stored
from scalejax.fitting.resampling import percentile_ends
from scalejax.laws import forms, isoflop
from scalejax.laws.isoflop import IsoFLOP

if TYPE_CHECKING:
    from pandas import DataFrame

LOSS = (
    "log-mse"  # of the power laws; the isoFLOP curves are interpolated, or fitted by least squares
)


def fit(
    frame: "DataFrame",
    law: IsoFLOP,
    *,
    held_out: np.ndarray,
    loss: str,
    weights: str | None,
    cluster: str | None,
    bootstrap: int,
    seed: int,
    columns: dict[str, str],
    protocol: str = "parabola",
    noise: str | None = None,
    **choices: Any,
) -> Fit:
    """N*(C) and D*(C) by isoFLOP curves; see `scalejax.fitting.fit.fit`. bootstrap: draws of the noise (see `Noise`)."""
    _refuse(choices, law, loss, cluster, weights)
    begin = time.perf_counter()
    read = tables.read_columns(frame, _inputs(frame, columns), "loss", columns)
    out = held_out[read.complete]
    options: dict[str, Any] = {
        "protocol": protocol,
        "noise": None if noise is None else isoflop.Noise.parse(noise),
    }
    found = isoflop.fit_isoflop(**_runs(read, ~out), draws=bootstrap, seed=seed, **options)
    solved = time.perf_counter()
    dropped = int(np.sum(~read.complete))
    reasons = [
        *found.reasons,
        *([f"dropped {dropped} rows with missing or infinite values"] if dropped else []),
    ]
    beside, notes = _parametric(frame.loc[~held_out], columns, seed)
    held, unscored = _holdout(found, read, out, options)
    notes += unscored + ["the noise is read by draws, and there are none: no intervals"] * (
        noise is not None and not bootstrap
    )
    fitted = Fit(
        law=law,
        params=found.law._asdict(),
        intervals=dict(zip(law.names, percentile_ends(found.draws), strict=False)),
        objective=found.objective,
        gradient_norm=found.gradient_norm,
        starts_at_optimum=1.0,
        n_rows=int(np.sum(~out)),
        verdict=found.verdict,
        reasons=reasons + notes,
        loss=LOSS,
        columns=read.names,
        seed=seed,
        holdout=held,
        views=_views(found) | beside,
        spread={"draws": dict(zip(law.names, stored(found.draws), strict=True))},
    )
    fitted.seconds.update(solve=solved - begin, uncertainty=time.perf_counter() - solved)
    return fitted


def predict(fit: Fit, **inputs: float) -> Estimate:
    """N* at a compute budget; see `forecast` for D*."""
    if set(inputs) != {"flops"} or not 0 < inputs["flops"] < np.inf:
        raise ValueError(
            f"isoflop predicts the optimum of a compute budget: give flops, positive; got {inputs or 'nothing'}"
        )
    return _estimate(fit, "params", inputs["flops"])


def forecast(fit: Fit, **inputs: float) -> tuple[dict[str, Any], Estimate]:
    """N* with its interval as the value, N* and D* beside it."""
    estimate = predict(fit, **inputs)
    return {
        "params": estimate.value,
        "tokens": _estimate(fit, "tokens", inputs["flops"]).value,
    }, estimate


def _estimate(fit: Fit, name: str, flops: float) -> Estimate:
    value = float(getattr(isoflop.PowerLaws(**fit.params), name)(flops))
    if not np.isfinite(value):
        raise ValueError(f"this fit has no optimum ({fit.verdict}): {'; '.join(fit.reasons)}")
    draws = fit.spread["draws"]
    if not draws["params_exponent"]:
        return Estimate(value, None, None, 0.95, "no interval: fitted without noise draws")
    drawn = getattr(isoflop.PowerLaws(**{k: np.asarray(v, float) for k, v in draws.items()}), name)(
        flops
    )
    (low, high), *_ = percentile_ends(drawn[:, None])
    method = (
        f"{len(drawn)} noise draws"
        if low is not None
        else f"no interval: too few of {len(drawn)} noise draws give a law"
    )
    return Estimate(value, low, high, 0.95, method)


def _refuse(
    choices: dict[str, Any], law: IsoFLOP, loss: str, cluster: str | None, weights: str | None
) -> None:
    given = [*choices, *(f"fix {name}" for name, _ in law.fixed)]
    given += [
        name for name, value in (("cluster", cluster), ("weights", weights)) if value is not None
    ]
    given += ["loss"] if loss != "huber:1e-3" else []
    if given:
        raise ValueError(
            f"isoflop reads protocol, noise and bootstrap; it does not read {', '.join(given)}"
        )


def _inputs(frame: "DataFrame", columns: dict[str, str]) -> tuple[str, ...]:
    """params, and of tokens and flops what the table has."""
    there = [name for name in ("tokens", "flops") if name in columns or name in frame.columns]
    if not there:
        tables.column_for(frame, "flops", columns)  # says what the table has
    return ("params", *there)


def _runs(read: tables.Columns, rows: np.ndarray) -> dict[str, np.ndarray]:
    """params, tokens, flops and loss of some rows; what is missing by C = 6 N D."""
    found = {name: x[rows] for name, x in zip(list(read.names)[:-1], read.inputs, strict=True)}
    found["tokens"] = (
        found["tokens"] if "tokens" in found else found["flops"] / (6 * found["params"])
    )
    found["flops"] = found["flops"] if "flops" in found else 6 * found["params"] * found["tokens"]
    return found | {"loss": read.target[rows]}


def _views(found: isoflop.IsoFLOPResult) -> dict[str, dict[str, float]]:
    """What each budget gave, and how well the power laws go through it."""
    if found.verdict != "ok":
        return {}
    used = [budget for budget in found.budgets if not budget.reason]
    return {
        "params_by_budget": {f"{budget.flops:.6g}": budget.params for budget in used},
        "tokens_by_budget": {f"{budget.flops:.6g}": budget.tokens for budget in used},
        "r2": {"params": found.r2[0], "tokens": found.r2[1]},
    }


def _parametric(
    frame: "DataFrame", columns: dict[str, str], seed: int
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Approach 3 on the same rows: approach 2 is biased where the loss is not symmetric about its optimum."""
    keys = {
        name: theirs for name, theirs in columns.items() if name in ("params", "tokens", "loss")
    }
    if "tokens" not in columns and "tokens" not in frame.columns:
        size, flops = (
            tables.numeric_column(frame, tables.column_for(frame, name, columns))
            for name in ("params", "flops")
        )
        frame = frame.assign(tokens=flops / (6 * size))
    law, nothing = forms.chinchilla(), np.zeros(len(frame), bool)
    try:
        fitted = points.fit(
            frame,
            law,
            held_out=nothing,
            loss="huber:1e-3",
            weights=None,
            cluster=None,
            bootstrap=0,
            seed=seed,
            columns=keys,
        )
    except ValueError as error:
        return {}, [f"no parametric fit beside it: {error}"]
    if fitted.verdict != "ok":
        return {}, [
            f"the parametric fit beside it is {fitted.verdict}: {'; '.join(fitted.reasons)}"
        ]
    alpha, beta = fitted.params["alpha"], fitted.params["beta"]
    return {"chinchilla": fitted.params | {"params_exponent": beta / (alpha + beta)}}, []


def _holdout(
    found: isoflop.IsoFLOPResult, read: tables.Columns, out: np.ndarray, options: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """N* of the held-out budgets, each by its own isoFLOP curve, against the power law; and why there are no scores."""
    if not out.any() or found.verdict != "ok":
        return {}, []
    try:
        there = isoflop.fit_isoflop(**_runs(read, out), **options)
    except ValueError as error:
        return {}, [f"the holdout is not scored: {error}"]
    used = [budget for budget in there.budgets if not budget.reason]
    flops, measured = np.array([b.flops for b in used]), np.array([b.params for b in used])
    if not used:
        return {}, ["the holdout is not scored: none of its budgets has an interior minimum"]
    return scores(found.law.params(flops), measured), []
