"""A table and a law -> Fit: parameters with intervals, a verdict, forecasts with intervals, saved as one JSON file."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scalejax import laws
from scalejax.files import write_text
from scalejax.fitting import tables
from scalejax.laws import CurveLaw, HyperparameterLaw, IsoFLOP, ParametricLaw
from scalejax.laws.law import Law

if TYPE_CHECKING:
    from pandas import DataFrame

FITTERS = {
    ParametricLaw: "scalejax.fitting.parametric",
    CurveLaw: "scalejax.fitting.curves",
    IsoFLOP: "scalejax.fitting.isoflop",
    HyperparameterLaw: "scalejax.fitting.hyperparameters",
}
"""Kind of law -> the module whose `fit(frame, law, **choices) -> Fit` reads its table."""

READ = (
    *("params", "tokens", "unique_tokens", "flops", "loss", "top1_error", "width", "depth"),
    *("curve", "step", "learning_rate", "batch_tokens", "beta2", "run", "seed"),
)
"""What is read from tables, by our names."""
FORMAT = 2
UNKNOWN = (
    "objective",
    "gradient_norm",
    "condition",
)  # nan, null in JSON, where a table gave no law, as its parameters are
STORED = 1000  # draws and residuals kept in the file: percentiles at 95% move by less than the Monte Carlo error


class Estimate(NamedTuple):
    """A predicted value with its interval; None where the fit has nothing to say how far it can be trusted."""

    value: float
    low: float | None
    high: float | None
    level: float
    method: str


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A law fitted to a table."""

    law: Law
    params: dict[str, float]
    """nan, and null in JSON, where the fit did not converge."""
    intervals: dict[str, tuple[float | None, float | None]]
    """95% percentile intervals; an open end is None; empty without bootstraps."""
    objective: float
    """Sum over rows of the loss."""
    gradient_norm: float
    """Largest component of the objective's gradient in the solver's centred coordinates."""
    starts_at_optimum: float
    """Share of the starts that reached the optimum."""
    n_rows: int
    verdict: str
    reasons: list[str]
    loss: str
    columns: dict[str, str]
    """Which column of the table each input and the target was read from."""
    condition: float = np.nan
    """Condition number of the scaled normal matrix: from 1e9 on the rows cannot tell the parameters apart."""
    at_boundary: list[str] = field(default_factory=list)
    """Parameters at the edge of what the law allows."""
    noise: dict[str, float | int] = field(default_factory=dict)
    """{std, degrees_of_freedom}: standard deviation of the log target between runs of equal inputs and several seeds, pooled; no
    law of these inputs predicts one run better. Empty without such runs."""
    seed: int = 0
    clusters: str | None = None
    """Column whose values were drawn together."""
    resample: str = "pairs"
    """What bootstraps drew: pairs, residuals, or noise with its size."""
    holdout: dict[str, Any] = field(default_factory=dict)
    cross_validation: dict[str, Any] = field(default_factory=dict)
    views: dict[str, dict[str, float]] = field(default_factory=dict)
    """The same law in other letters."""
    seconds: dict[str, float] = field(default_factory=dict)
    spread: dict[str, Any] = field(default_factory=dict)
    """What intervals of forecasts are made of; written to the file, not to the summary."""
    rows_used: dict[str, Any] = field(default_factory=dict, repr=False)
    """Arrays in memory for `influence`; not written."""

    def predict(self, **inputs: float) -> Estimate:
        """The law at one run, with a 95% prediction interval for the target that the run will measure.

        Inputs are the law's own (params and tokens, say), or flops for the compute-optimal run of a law of both.
        """
        return fitter(self.law).forecast(self, **inputs)[1]

    def summary(self) -> dict[str, Any]:
        """What `--json` prints: everything but the draws."""
        record = {"format": FORMAT, "law": self.law.name}
        skipped = ("law", "spread", "rows_used")
        record |= {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in skipped
        }
        record |= {name: value if np.isfinite(value := record[name]) else None for name in UNKNOWN}
        record["params"] = _nested(
            {name: value if np.isfinite(value) else None for name, value in self.params.items()}
        )
        record["intervals"] = _nested({name: list(ends) for name, ends in self.intervals.items()})
        if not self.views:
            del record["views"]
        return record

    def save(self, path: str | os.PathLike) -> None:
        """Writes fit.json, whole or not at all."""
        law = {
            "inputs": list(self.law.inputs),
            "fixed": dict(self.law.fixed),
            "tied": list(self.law.tied) if isinstance(self.law, ParametricLaw) else [],
        }
        target = Path(path)
        if target.is_dir():
            raise ValueError(
                f"{target} is a folder; a fit is one file, such as {target / 'fit.json'}"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(
            target,
            json.dumps(
                self.summary() | {"form": law, "spread": self.spread}, allow_nan=False, indent=1
            ),
        )


def load(path: str | os.PathLike, law: Law | None = None) -> Fit:
    """Reads a fit.json. law: for a law of your own, which no file can hold; what was held or tied in the fit is in the file.

    Raises FileNotFoundError, or ValueError when the file is no fit, or one of another law.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no fit at {path}; `scalejax fit TABLE --law NAME --out {path}` writes one"
        )
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        if record.pop("format") != FORMAT:
            raise ValueError(
                f"{path} is not a fit of format {FORMAT}: fit again with this scalejax"
            )
        form = record.pop("form")
        law = dataclasses.replace(
            _law_of(path, record.pop("law"), list(_flat(record["params"])), law),
            inputs=tuple(form["inputs"]),
            fixed=tuple(sorted(form["fixed"].items())),
        )
        if isinstance(law, ParametricLaw):
            law = dataclasses.replace(law, tied=tuple((a, b) for a, b in form["tied"]))
        record |= {name: np.nan for name in UNKNOWN if record[name] is None}
        record["params"] = {
            name: np.nan if value is None else value
            for name, value in _flat(record["params"]).items()
        }
        record["intervals"] = {
            name: tuple(ends) for name, ends in _flat(record["intervals"]).items()
        }
        return Fit(law=law, **record)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not a fit written by `scalejax fit --out`: {why}") from error


def _law_of(path: str | os.PathLike, name: str, parameters: list[str], given: Law | None) -> Law:
    """The law of a fit's file: the one given, if it is the same, or the one of scalejax's that has its name."""
    if given is None and name not in laws.NAMES:
        raise ValueError(
            f"{path}: {name!r} is no law of scalejax's; give your own in Python: scalejax.fitting.fit.load(path, law=yours)"
        )
    law = given or laws.named(name)
    same = law.name == name and (
        not isinstance(law, ParametricLaw) or list(law.names) == parameters
    )
    if not same:
        got = f"{law.name} law of {', '.join(law.names)}"
        raise ValueError(
            f"{path} holds a fit of the {name} law of {', '.join(parameters)}; got the {got}"
        )
    return law


def stored(draws: np.ndarray) -> list[list[float | None]]:
    """The first draws of each parameter, from (draws, parameters), as a file holds them: None where a draw gave no fit."""
    return [[x if np.isfinite(x) else None for x in column] for column in draws[:STORED].T.tolist()]


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """{"a.b": x} -> {"a": {"b": x}}: laws of several quantities name their parameters QUANTITY.PARAMETER."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        head, _, rest = name.partition(".")
        if rest:
            nested.setdefault(head, {})[rest] = value
        else:
            nested[name] = value
    return nested


def _flat(nested: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `_nested`."""
    pairs = (
        (name, value if isinstance(value, dict) else {"": value}) for name, value in nested.items()
    )
    return {
        f"{name}.{rest}".rstrip("."): value
        for name, inner in pairs
        for rest, value in inner.items()
    }


def fit(
    table: "str | Path | DataFrame",
    law: Law,
    *,
    loss: str = "huber:1e-3",
    where: str | None = None,
    holdout: str | None = None,
    weights: str | None = None,
    cluster: str | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    columns: dict[str, str] | None = None,
    **choices: Any,
) -> Fit:
    """Fits a law to the rows of a table.

    loss: huber:DELTA, lad, mse, log-mse or asymmetric:FACTOR.  where, holdout: expressions over the table's own columns (rows
    used; rows among those kept out and scored).  weights, cluster: columns with row weights, and of what is drawn together.
    bootstrap: number of draws.  columns: our name -> the table's.  choices: what only some laws read; of those of points,
    resample: "pairs" (rows drawn, the default and the safe choice), "residuals" (too narrow where the noise is uneven), "noise"
    (as large as between replicate seeds) or "noise:0.005", "noise:0.002@3,0.05@7", "noise:COLUMN" (a known standard deviation).

    Raises ValueError for a table, column, value or expression that cannot be read, or too few rows; FileNotFoundError.
    """
    frame = tables.read(table)
    used = tables.row_mask(frame, where)
    if not used.any():
        raise ValueError(f"--where {where!r} leaves no rows of {len(frame)}")
    frame = frame.loc[used]
    out = tables.row_mask(frame, holdout) if holdout is not None else np.zeros(len(frame), bool)
    if out.all():
        raise ValueError(f"--holdout {holdout!r} takes all {len(frame)} rows: none are left to fit")
    for name, number in (("bootstrap", bootstrap), ("seed", seed)):
        if number < 0:
            raise ValueError(f"{name} is a whole number, 0 or more; got {number}")
    if unknown := sorted({*(columns or {})} - {*READ, *law.inputs, law.target}):
        raise ValueError(
            f"no law reads {', '.join(unknown)}, named in columns; the names are {', '.join(READ)}"
        )
    return fitter(law).fit(
        frame,
        law,
        held_out=out,
        loss=loss,
        weights=weights,
        cluster=cluster,
        bootstrap=bootstrap,
        seed=seed,
        columns=columns or {},
        **choices,
    )


def fitter(law: Law) -> Any:
    """The module that fits and predicts laws of this kind."""
    return import_module(FITTERS[type(law)])


def scores(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float | int | None]:
    """Holdout scores: n, mae, mean and max relative error (fractions), r2 (None for fewer than two rows)."""
    error = np.abs(predicted - measured)
    relative = error / np.abs(measured)
    spread = float(np.sum((measured - measured.mean()) ** 2))
    return {
        "n": len(measured),
        "mae": float(error.mean()),
        "mean_rel_error": float(relative.mean()),
        "max_rel_error": float(relative.max()),
        "r2": 1 - float(np.sum(error**2)) / spread if spread > 0 else None,
    }


def predict(fit: "Fit | str | os.PathLike", **inputs: float) -> Estimate:
    """The prediction of a fit, or of the file it was saved in, at one run; see `Fit.predict`."""
    return (fit if isinstance(fit, Fit) else load(fit)).predict(**inputs)


def influence(fit: Fit, run: dict[str, float]) -> np.ndarray:
    """d forecast / d measured target of each fitted row, (n_rows,): which runs a forecast leans on.

    Implicit differentiation at the optimum; `run` holds the inputs that `Fit.predict` takes. Raises ValueError for a fit read
    from a file, which has no rows, and for laws of whole curves, isoFLOP or hyperparameters, which are not fitted to rows.
    """
    if not isinstance(fit.law, ParametricLaw):
        raise ValueError(
            f"influence is of laws fitted to one row per run; the {fit.law.name} law is not"
        )
    if not fit.rows_used:
        raise ValueError(
            "influence needs the rows of the fit: call it on the Fit that `fit` returned, not on a loaded one"
        )
    return fitter(fit.law).influence(fit, **run)


def forecast(fit: Fit, **inputs: float) -> dict[str, Any]:
    """What `scalejax predict --json` prints: value, interval, the run's inputs, method."""
    at, estimate = fitter(fit.law).forecast(fit, **inputs)
    return {
        "value": estimate.value,
        "interval": [estimate.low, estimate.high],
        **at,
        "method": estimate.method,
    }
