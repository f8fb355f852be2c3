"""From a table and a law to a fit, and from a file back to the fit."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Unpack, overload

import numpy as np

from scalejax import laws
from scalejax.files import content_hash
from scalejax.fitting import expressions, hyperparameters, isoflop, tables
from scalejax.fitting.curves import fit as curves
from scalejax.fitting.curves.result import CurveFit
from scalejax.fitting.hyperparameters import HyperparameterFit
from scalejax.fitting.isoflop import IsoFLOPFit
from scalejax.fitting.options import DEFAULT_LOSS, FitKeywords, FitOptions, check_text
from scalejax.fitting.parametric import fit as parametric
from scalejax.fitting.parametric.result import ParametricFit
from scalejax.fitting.reading.fit_files import wrong_field
from scalejax.fitting.result import FORMAT, Estimate, Estimates, Fit, flat
from scalejax.laws import CurveLaw, HyperparameterLaw, IsoFLOP, ParametricLaw
from scalejax.laws.law import F, Law

if TYPE_CHECKING:
    from pandas import DataFrame

# Our names of the columns that laws read from a table.
COLUMNS = (
    *("params", "tokens", "unique_tokens", "flops", "loss", "top1_error", "width", "depth"),
    *("curve", "step", "learning_rate", "batch_tokens", "beta2", "run", "seed"),
)

# What reading a file that holds no fit may raise.
NOT_A_FIT = (
    *(KeyError, TypeError, AttributeError, RecursionError),
    *(json.JSONDecodeError, UnicodeDecodeError),
)


class Kind(NamedTuple):
    """How one kind of law is fitted, and the class of its fits."""

    fit: Callable[["DataFrame", Any, FitOptions], Fit[Any]]
    result: type[Fit[Any]]


KINDS: dict[type[Law], Kind] = {
    ParametricLaw: Kind(parametric.fit, ParametricFit),
    CurveLaw: Kind(curves.fit, CurveFit),
    IsoFLOP: Kind(isoflop.fit, IsoFLOPFit),
    HyperparameterLaw: Kind(hyperparameters.fit, HyperparameterFit),
}


def kind_of(law: Law) -> Kind:
    """Return how a law is fitted; raises ValueError for anything else than a law."""
    for law_type, kind in KINDS.items():
        if isinstance(law, law_type):
            return kind
    raise ValueError(f"expected a law, such as scalejax.laws.chinchilla(); got {law!r}")


@overload
def fit(
    table: tables.Table, law: ParametricLaw[F], **keywords: Unpack[FitKeywords]
) -> ParametricFit[F]: ...
@overload
def fit(table: tables.Table, law: CurveLaw, **keywords: Unpack[FitKeywords]) -> CurveFit: ...
@overload
def fit(table: tables.Table, law: IsoFLOP, **keywords: Unpack[FitKeywords]) -> IsoFLOPFit: ...
@overload
def fit(
    table: tables.Table, law: HyperparameterLaw, **keywords: Unpack[FitKeywords]
) -> HyperparameterFit: ...
@overload
def fit(table: tables.Table, law: Law | str, **keywords: Unpack[FitKeywords]) -> Fit[Law]: ...
def fit(
    table: tables.Table,
    law: Law | str,
    *,
    loss: str = DEFAULT_LOSS,
    where: str | None = None,
    holdout: str | None = None,
    weights: str | None = None,
    cluster: str | None = None,
    bootstrap: int | None = None,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    resample: str | None = None,
    schedules: "str | Path | DataFrame | None" = None,
    protocol: Literal["parabola", "akima"] | None = None,
    noise: str | None = None,
) -> Fit[Any]:
    """Fit a law to the rows of a table.

    table: path of a CSV, TSV, JSON or Parquet file, or whatever `pandas.DataFrame`
    takes.  law: a law, or the name of one.  loss: huber:DELTA, lad, mse, log-mse or
    asymmetric:FACTOR.  where, holdout: expressions over the table's own columns, such
    as "params > 1e8": the rows to use, and those of them that are scored and not
    fitted.  weights, cluster: columns of row weights, and of what is resampled
    together. bootstrap: number of draws behind the intervals. By default it is 1000, or
    fewer where that would take longer than seconds, which `reasons` then says; 0 turns
    the intervals off. The verdict rests on at least 200 draws in any case.  columns:
    our name of a column -> the table's, or arithmetic on its columns such as
    "log(ppl)".

    Some options are for one kind of law only. One row per run: resample is "pairs"
    (rows are drawn, the default and the safe choice), "residuals" (too narrow when the
    noise is uneven), "noise" (as large as between replicate seeds) or a known standard
    deviation, "noise:0.005", "noise:0.002@3,0.05@7" or "noise:COLUMN". Whole curves:
    schedules is a table of (curve, step, learning_rate). IsoFLOP curves: protocol, and
    noise as STD or STD@LOSS,STD@LOSS in nats.

    Raises ValueError for a table, column, value or expression that cannot be read, for
    too few rows, and for an option that the law does not read; FileNotFoundError.
    """
    if isinstance(law, str):
        law = laws.named(law)
    kind = kind_of(law)
    options = FitOptions(
        loss=loss,
        weights=weights,
        cluster=cluster,
        bootstrap=bootstrap,
        seed=seed,
        columns={} if columns is None else columns,
        resample=resample,
        schedules=schedules,
        protocol=protocol,
        noise=noise,
    )
    _check_column_names(law, options)
    frame, held_out = _chosen_rows(tables.read(table), where, holdout)
    frame = _without_skipped_tokens(frame, options.columns)
    options = dataclasses.replace(options, held_out=held_out)
    return _with_holdout_reason(kind.fit(frame, law, options), holdout, held_out)


def _with_holdout_reason(fitted: Fit[Any], holdout: str | None, held_out: np.ndarray) -> Fit[Any]:
    """Say so if a holdout was asked for, and no row of it could be scored."""
    if holdout is None or fitted.holdout.n:
        return fitted
    rows = f"{held_out.sum()} of {len(held_out)} rows"
    reason = f"--holdout {holdout!r} chooses {rows}, and none is scored"
    return dataclasses.replace(fitted, reasons=[reason, *fitted.reasons])


def _check_column_names(law: Law, options: FitOptions) -> None:
    known = {*COLUMNS, *law.inputs, law.target}
    if unknown := sorted({*options.columns} - known):
        raise ValueError(
            f"no law reads {', '.join(unknown)}, named in columns; "
            f"the names are {', '.join(COLUMNS)}"
        )


def _without_skipped_tokens(frame: "DataFrame", columns: Mapping[str, str]) -> "DataFrame":
    """Subtract the tokens of skipped steps, which trained nothing.

    A column that the caller names for tokens is taken as it is.
    """
    if "tokens" in columns or not {"tokens", "tokens_skipped"} <= {*frame.columns}:
        return frame
    read, skipped = (tables.numeric_column(frame, name) for name in ("tokens", "tokens_skipped"))
    return frame.assign(tokens=read - np.nan_to_num(skipped))


def _chosen_rows(
    frame: "DataFrame", where: str | None, holdout: str | None
) -> tuple["DataFrame", np.ndarray]:
    """The rows to use, and the mask of those among them that are held out."""
    for name, choice in (("where", where), ("holdout", holdout)):
        check_text(name, choice, optional=True)
    frame = expressions.chosen_rows(frame, where)
    if holdout is None:
        return frame, np.zeros(len(frame), bool)
    held_out = expressions.row_mask(frame, holdout)
    if held_out.all():
        raise ValueError(f"--holdout {holdout!r} takes all {len(frame)} rows: none are left to fit")
    return frame, held_out


def load(path: str | os.PathLike[str], law: Law | None = None) -> Fit[Any]:
    """Read a fit.json that `Fit.save` or `scalejax fit --out` wrote.

    law: a law of your own, which no file can hold. What the fit held or tied is in the
    file.

    Raises FileNotFoundError, or ValueError when the file is not a fit, or of another
    law.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no fit at {path}; `scalejax fit TABLE --law NAME --out {path}` writes one"
        )
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ValueError(
                f"{path} is not a fit of format {FORMAT}: fit again with this scalejax"
            )
        # Without the hash, a changed number would be used as it is.
        if record.pop("sha256", None) != content_hash(record):
            raise ValueError(
                f"{path} is not as it was written: it was damaged or changed by hand; restore "
                "it, or fit again"
            )
        fitted = _law_of_file(path, record, law)
        return kind_of(fitted).result.from_record(record, fitted)
    except NOT_A_FIT as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not a fit written by `scalejax fit --out`: {why}") from error


def _law_of_file(path: str | os.PathLike[str], record: dict[str, Any], own: Law | None) -> Law:
    """The law of a file's fit, with its inputs and with what was held and tied."""
    name, parameters = record["law"], list(flat(record["params"]))
    try:
        law = own or laws.named(name)
    except ValueError as error:
        raise ValueError(
            f"{path}: {name!r} is not a law of scalejax; give your own in Python: "
            "scalejax.fitting.fit.load(path, law=yours)"
        ) from error
    parametric_law = isinstance(law, ParametricLaw)
    if law.name != name or (parametric_law and list(law.names) != parameters):
        raise ValueError(
            f"{path} holds a fit of the {name} law of {', '.join(parameters)}; "
            f"got the {law.name} law of {', '.join(law.names)}"
        )
    if wrong := wrong_field(record, law):
        raise ValueError(
            f"{path} is not a fit written by `scalejax fit --out`: its field {wrong} is missing or "
            "has a value that it cannot have; fit again"
        )
    form = record["form"]
    inputs, fixed = tuple(form["inputs"]), tuple(sorted(form["fixed"].items()))
    law = dataclasses.replace(law, inputs=inputs, fixed=fixed)
    if isinstance(law, ParametricLaw):
        law = dataclasses.replace(law, tied=tuple((a, b) for a, b in form["tied"]))
    return law


def predict(fit: Fit[Any] | str | os.PathLike[str], **inputs: Any) -> Estimate | Estimates:
    """Predict one run from a fit, or from the file of one; see `Fit.predict`."""
    return (fit if isinstance(fit, Fit) else load(fit)).predict(**inputs)


def influence(fit: Fit[Any], run: Mapping[str, float]) -> np.ndarray:
    """Say which fitted runs a prediction depends on.

    Returns d prediction / d target of each fitted row, (rows,).

    fit: of a law of one row per run.  run: the inputs that `Fit.predict` takes.

    Raises ValueError for a fit that was loaded from a file, which holds no rows, and
    for the other kinds of law.
    """
    if not isinstance(fit, ParametricFit):
        raise ValueError(
            "influence needs a law that is fitted to one row per run; "
            f"the {fit.law.name} law is not"
        )
    return fit.influence(**run)
