"""Reads the two tables of whole-curve laws: measured losses, and learning rates."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scalejax.fitting import tables
from scalejax.fitting.options import FitOptions
from scalejax.fitting.reading import diagnoses
from scalejax.fitting.result import dropped_reasons
from scalejax.laws.curves.laws import CurveLaw
from scalejax.laws.curves.rates import checked_rates

if TYPE_CHECKING:
    from pandas import DataFrame

# A row's own learning rate that differs from its schedule's by more, relative to the
# peak, is worth a note: most often the steps are off by one.
SAME_RATE = 1e-3

# Rates within this fraction of the peak are at the peak.
AT_PEAK = 1e-6

# Losses that end before this share of their schedule may be counted in another unit.
EARLY_END = 0.1


class Losses(NamedTuple):
    """Measured losses, each array (rows,)."""

    curve: np.ndarray
    """Index of the curve."""
    step: np.ndarray
    loss: np.ndarray
    params: np.ndarray
    """Parameters of the model; 1 for laws that do not read them."""

    def rows(self, mask: np.ndarray) -> "Losses":
        """Some of the losses."""
        return Losses(*(x[mask] for x in self))


class CurveTable(NamedTuple):
    """What a whole-curve law reads from the two tables."""

    frame: "DataFrame"
    """The rows without missing values."""
    losses: Losses
    held_out: np.ndarray
    """(rows,), which losses are scored and not fitted."""
    labels: list[str]
    """Name of each curve, with the model's size for a law that reads params."""
    rates: list[np.ndarray]
    """Learning rate of every step of each curve, (steps,) each."""
    columns: dict[str, str]
    """The table's column of each input and the target."""
    reasons: list[str]
    """Notes on the rows."""


def read_curves(frame: "DataFrame", law: CurveLaw, options: FitOptions) -> CurveTable:
    """Read losses and schedules, check them, and note what is odd about them.

    frame: rows of (curve, step, loss), and of params for a law that reads them.
    """
    sized = "params" in law.inputs
    numeric = ("step", "loss", *(["params"] if sized else []))
    named = dict(options.columns)
    columns = {name: tables.column_for(frame, name, named) for name in ("curve", *numeric)}
    values = {name: tables.numeric_column(frame, columns[name]) for name in numeric}
    finite = np.all([np.isfinite(x) for x in values.values()], axis=0)
    complete = finite & frame[columns["curve"]].notna().to_numpy()
    held_out = options.held_out_mask(len(frame))[complete]
    if held_out.all():
        raise ValueError("no rows are left to fit: every row is held out or has a missing value")
    rows = frame.loc[complete]
    if not sized:
        _check_one_size(rows, law, named)
    params = values["params"][complete] if sized else np.ones(len(rows))
    schedule = np.array(tables.labels(rows, columns["curve"]))
    (owners, sizes), curve = _curves(schedule, params)
    labels = [
        f"{name} at {size:g}" if sized else str(name)
        for name, size in zip(owners, sizes, strict=True)
    ]
    # The schedule is read from every row: a step without a loss still has its rate.
    schedules = _schedules(np.unique(owners), frame, columns, options)
    rates = [schedules[name] for name in owners]
    losses = Losses(curve, values["step"][complete], values["loss"][complete], params)
    _check_steps(losses, labels, rates)
    reasons = dropped_reasons(complete)
    if "learning_rate" in named or "learning_rate" in frame.columns:
        columns["learning_rate"] = tables.column_for(frame, "learning_rate", named)
        own = tables.numeric_column(rows, columns["learning_rate"])
        reasons += _rate_reasons(own, rates, losses)
    fitted = losses.rows(~held_out)
    reasons += _duplicate_reasons(labels, fitted)
    reasons += _warmup_reasons(rates, fitted, columns["step"])
    reasons += _early_end_reasons(labels, rates, losses, columns["step"])
    read = {"loss": fitted.loss, "params": fitted.params} if sized else {"loss": fitted.loss}
    reasons += tables.diagnose(rows, read, "loss", columns)
    return CurveTable(rows, losses, held_out, labels, rates, columns, reasons)


def _check_one_size(rows: "DataFrame", law: CurveLaw, named: Mapping[str, str]) -> None:
    """Raise ValueError if the rows of a law of one model size are of several."""
    known = [name for name in (tables.PARAMS_COLUMN, "params") if name in rows.columns]
    if "params" not in named and not known:
        return
    column = named.get("params", next(iter(known), ""))
    sizes = np.unique(tables.numeric_column(rows, column))
    if np.isfinite(sizes).sum() > 1:
        raise ValueError(
            f"the {law.name} law is one of a single model size, and {column} has "
            f"{np.isfinite(sizes).sum()} of them; fit annealing-size to several sizes, or choose "
            "the rows of one with --where"
        )


def _curves(
    schedule: np.ndarray, params: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The distinct pairs of schedule and params, and the index of each row's pair."""
    owners, owner = np.unique(schedule, return_inverse=True)
    sizes, size = np.unique(params, return_inverse=True)
    pairs, curve = np.unique(np.stack([owner, size]), axis=1, return_inverse=True)
    return (owners[pairs[0]], sizes[pairs[1]]), curve.ravel()


class _Rates(NamedTuple):
    """Learning rates as a table gives them, each array (rows,)."""

    curve: np.ndarray
    """Name of the curve."""
    step: np.ndarray
    rate: np.ndarray
    hint: str
    """What to do when a step is missing, for the error message."""


def _schedules(
    names: np.ndarray, frame: "DataFrame", columns: dict[str, str], options: FitOptions
) -> dict[str, np.ndarray]:
    """The learning rate of every step of each named schedule, (steps,)."""
    if options.schedules is None:
        table = _rates_of_rows(frame, columns, options)
    else:
        table = _rates_of_schedules(tables.read(options.schedules))
    schedules = {}
    for name in names:
        rows = np.flatnonzero(table.curve == name)
        if not len(rows):
            known = ", ".join(map(str, np.unique(table.curve)[:10]))
            raise ValueError(
                f"curve {str(name)!r} is not in the schedules table, which has {known}"
            )
        rows = rows[np.argsort(table.step[rows], kind="stable")]
        if options.schedules is None:
            # Several losses measured at one step are one step of the schedule.
            rows = rows[np.unique(table.step[rows], return_index=True)[1]]
        _check_every_step(table.step[rows], f"the schedule of curve {str(name)!r}", table.hint)
        schedules[name] = checked_rates(table.rate[rows], f"schedule of curve {str(name)!r}")
    return schedules


def _rates_of_rows(frame: "DataFrame", columns: dict[str, str], options: FitOptions) -> _Rates:
    """The rates in the table of losses, which then needs a row for every step."""
    rate = tables.column_for(frame, "learning_rate", dict(options.columns))
    return _Rates(
        curve=np.array(tables.labels(frame, columns["curve"])),
        step=tables.numeric_column(frame, columns["step"]),
        rate=tables.numeric_column(frame, rate),
        hint="; give the rate of every step: --schedules TABLE with columns curve, step, "
        "learning_rate",
    )


def _rates_of_schedules(table: "DataFrame") -> _Rates:
    """The rates in the table of schedules."""
    for name in ("curve", "step", "learning_rate"):
        if name not in table.columns:
            raise ValueError(
                f"the schedules table has no column {name!r}; it has "
                f"{', '.join(map(str, table.columns))}. Rename one: --columns is about the losses"
            )
    return _Rates(
        curve=np.array(tables.labels(table, "curve")),
        step=tables.numeric_column(table, "step"),
        rate=tables.numeric_column(table, "learning_rate"),
        hint="",
    )


def _check_every_step(steps: np.ndarray, schedule: str, hint: str) -> None:
    """Raise ValueError unless the sorted steps are 0, 1, 2, ..."""
    wrong = np.flatnonzero(steps != np.arange(len(steps)))
    if not len(wrong):
        return
    first = wrong[0]
    twice = first > 0 and steps[first] == steps[first - 1]
    problem = f"step {steps[first]:g} twice" if twice else f"no step {first}"
    raise ValueError(f"{schedule} has {problem}: steps go 0, 1, 2, ... without a gap{hint}")


def _check_steps(losses: Losses, labels: list[str], rates: list[np.ndarray]) -> None:
    for c, label in enumerate(labels):
        last = losses.step[losses.curve == c].max()
        if last >= len(rates[c]):
            raise ValueError(
                f"curve {label!r} has a loss at step {last:g}, and its schedule has only "
                f"{len(rates[c])} steps"
            )


def _rate_reasons(own: np.ndarray, rates: list[np.ndarray], losses: Losses) -> list[str]:
    """Note rows whose own learning rate is not their schedule's at that step."""
    pairs = zip(losses.curve, losses.step, strict=True)
    scheduled = np.array([rates[c][int(step)] for c, step in pairs])
    peak = np.array([rates[c].max() for c in losses.curve])
    different = np.isfinite(own) & (np.abs(own - scheduled) > SAME_RATE * peak)
    if not different.any():
        return []
    return [f"learning_rate of {different.sum()} rows is not that of their schedule at that step"]


def _duplicate_reasons(labels: list[str], losses: Losses) -> list[str]:
    """Note curves that have several losses at one step, as of two seeds or models."""
    order = np.lexsort((losses.step, losses.curve))
    curve, step, loss = losses.curve[order], losses.step[order], losses.loss[order]
    firsts = np.flatnonzero(np.append(True, (np.diff(curve) != 0) | (np.diff(step) != 0)))
    repeats = len(loss) - len(firsts)
    if not repeats:
        return []
    gaps = np.maximum.reduceat(loss, firsts) - np.minimum.reduceat(loss, firsts)
    worst = firsts[np.argmax(gaps)]
    return [
        f"duplicate: {repeats} losses repeat a step of their curve, with up to {gaps.max():.2g} "
        f"nats between them (curve {labels[curve[worst]]!r}, step {step[worst]:g}); a run, seed or "
        "model of its own is a curve of its own"
    ]


def _warmup_reasons(rates: list[np.ndarray], losses: Losses, column: str) -> list[str]:
    """Note losses of the warmup, which a law would bend towards."""
    peaks = np.array([np.argmax(r >= (1 - AT_PEAK) * r.max()) for r in rates])
    early = int(np.sum(losses.step < peaks[losses.curve]))
    if not early:
        return []
    return [
        f"{early} losses were measured before the learning rate first reached its peak, and no "
        f"whole-curve law holds during warmup; leave them out, such as with --where "
        f'"{diagnoses.quoted(column)} >= {peaks.max()}"'
    ]


def _early_end_reasons(
    labels: list[str], rates: list[np.ndarray], losses: Losses, column: str
) -> list[str]:
    """Note a curve that ends far before its schedule, as in another unit of steps."""
    for c, (label, of_curve) in enumerate(zip(labels, rates, strict=True)):
        last = losses.step[losses.curve == c].max()
        if last < EARLY_END * len(of_curve):
            return [
                f"the losses of curve {label!r} end at {column} {last:g} of the {len(of_curve)} "
                "steps of its schedule; are they counted in another unit?"
            ]
    return []
