"""A study in sentences: its runs, its laws and how far to trust them, its forecasts."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from scalejax.fitting.charts.chart import compact_number
from scalejax.fitting.result import Fit
from scalejax.fitting.tables import PARAMS_COLUMN
from scalejax.report.ledger_lines import LEDGER, Forecast, ScoredForecast, change_by_hand
from scalejax.report.record import Record, Row

# What each verdict of a fit means.
VERDICTS = {
    "ok": "the data determine every parameter: no interval is open, and no parameter is at the "
    "edge of what the law allows",
    "at-boundary": "the best fit is at the edge of what the law allows, so the data do not need "
    "one of its terms; a forecast near the measured range can still hold, but the parameter at "
    "the edge is not a measurement",
    "unidentified": "the data do not determine every parameter; very different values fit "
    "equally well; a forecast near the measured range can still hold, and its interval says how "
    "well, but the open parameters are not measurements",
    "not-converged": "the solver did not reach an optimum; use neither these parameters nor "
    "their forecasts",
}

# What is said of a measurement that an interval does not contain.
OUTSIDE = "OUTSIDE the interval"

# Columns in which all runs of a study should agree, and what they contain.
COLUMNS_THAT_SHOULD_AGREE = {
    "code": "versions of the code",
    "jax": "versions of jax",
    "data_hash": "data sets",
    "devices": "kinds of devices",
}

# Columns that should be zero, and what another value means.
COLUMNS_THAT_SHOULD_BE_ZERO = {
    "placement_changed": "Resumed under another placement, so not reproducible bit for bit",
    "code_changed": "Trained by several versions of the code, which may differ in the last bits",
    "tokens_skipped": "Steps were skipped because their gradients were not finite",
    "spike_score": "The training loss has spikes",
}


def summary(record: Record) -> list[tuple[str, str]]:
    """(topic, sentences) about the runs, laws, forecasts, errors and cost."""
    topics = [("Runs", runs_text(record))]
    topics += [(f"Law: {name}", law_text(fit)) for name, fit in record.fits.items()]
    if not record.fits:
        topics.append(("Law", no_law_text(record)))
    topics.append(("Forecasts", forecasts_text(record.forecasts)))
    topics.append(("Top-1 error", top1_error_text(record)))
    return [*topics, ("Compute", cost_text(record))]


def runs_text(record: Record) -> str:
    """How many runs of which sizes and budgets finished, and which did not."""
    rows = record.results
    planned = len(record.study["runs"]) + len(record.study["forecast"])
    sizes, budgets = sorted(set(rows[PARAMS_COLUMN])), sorted(set(rows["tokens"]))
    text = (
        f"{len(rows)} of {count(planned, 'run')} finished: {count(len(sizes), 'model size')} "
        f"({_range(sizes)} parameters, with the head and without embeddings) and "
        f"{count(len(budgets), 'token budget')} ({_range(budgets)} tokens)."
    )
    if diverged := list(rows.loc[rows["status"] == "diverged", "run"]):
        text += f" Diverged and left out of every fit: {', '.join(diverged)}."
    if record.unfinished:
        text += f" Not finished: {', '.join(record.unfinished)}."
    if record.untabled:
        text += (
            f" Finished since these tables were written, and not in this report: "
            f"{', '.join(record.untabled)}; `scalejax run` takes them up."
        )
    return text


def law_text(fit: Fit) -> str:
    """The parameters of a fit with their intervals, and what its verdict means."""
    values = ", ".join(
        f"{name} = {value:.4g}{parameter_interval(fit, name)}" for name, value in fit.params.items()
    )
    level = " (95% intervals)" if fit.intervals else ""
    text = (
        f"{values}{level}, fitted to {count(fit.n_rows, 'run')}. "
        f"Verdict {fit.verdict}: {VERDICTS[fit.verdict]}."
    )
    return text + (f" Notes: {'; '.join(fit.reasons)}." if fit.reasons else "")


def no_law_text(record: Record) -> str:
    """Why there is no law."""
    runs = count(len(record.fitted), "run")
    if reasons := [f"{name}: {why}" for name, why in record.study.get("unfitted", {}).items()]:
        return f"No law was fitted. {runs} finished that a law could use. {' '.join(reasons)}"
    if record.fitted.empty:
        return f"No law was fitted. {runs} finished that a law could use."
    if record.unfinished:
        return "No law was fitted: laws are fitted when all runs are finished."
    return "No law was fitted, because the study names none."


def forecasts_text(forecasts: Sequence[ScoredForecast]) -> str:
    """How many forecasts were registered, and how many hold what was measured."""
    if not forecasts:
        return "No forecast was registered."
    text = f"{count(len(forecasts), 'forecast')} registered before the runs started"
    coverages = Counter(
        coverage_text(forecast, score["inside"]) for forecast, score in forecasts if score
    )
    if not coverages:
        return f"{text}; none of these runs has been measured yet."
    found = ", ".join(f"{number} {name}" for name, number in coverages.items())
    return f"{text}, {coverages.total()} measured: {found}."


def top1_error_text(record: Record) -> str:
    """Top-1 error of the runs with the highest and the lowest loss, beside guessing."""
    if record.with_top1_error.empty:
        return "No run of this study measured a downstream task."
    rows = record.with_top1_error.sort_values("loss").to_dict("records")
    best, worst = (
        f"{value_with_error(row, 'top1_error', 3)} at loss {row['loss']:.3f}"
        for row in (rows[0], rows[-1])
    )
    text = f"From {worst} to {best}" if len(rows) > 1 else best
    if record.chance_error is not None:
        text += f"; guessing has {record.chance_error:.3g}"
    return f"{text}."


def cost_text(record: Record) -> str:
    """The FLOPs of a study, and what shared trunks saved."""
    plan = record.study["plan"]
    text = f"Training takes {plan['flops']:.3g} FLOPs"
    if plan["saved_fraction"] > 0:
        text += (
            f"; without shared trunks it would take {plan['flops_separate']:.3g}, so "
            f"{100 * plan['saved_fraction']:.2g}% is saved"
        )
    return f"{text}."


def warnings(record: Record) -> list[str]:
    """What a reader should know before comparing these runs."""
    rows = record.results
    texts = []
    for column, what in COLUMNS_THAT_SHOULD_AGREE.items():
        values = sorted(set(rows[column].dropna().astype(str))) if column in rows else []
        if len(values) > 1:
            texts.append(f"These runs come from {len(values)} {what}: {', '.join(values)}.")
    for column, what in COLUMNS_THAT_SHOULD_BE_ZERO.items():
        runs = list(rows.loc[rows[column].fillna(0) > 0, "run"]) if column in rows else []
        if runs:
            texts.append(f"{what}: {', '.join(runs)}.")
    if change := change_by_hand(record.folder):
        texts.append(f"{LEDGER} was changed by hand: {change}, so its forecasts are no evidence.")
    texts += record.study["plan"]["warnings"]
    texts += [f"A fit could not be read: {reason}." for reason in record.unreadable_fits]
    return texts


def parameter_interval(fit: Fit, name: str) -> str:
    """` [low, high]` of a parameter, an open end as `open`; empty without intervals."""
    if name not in fit.intervals:
        return ""
    low, high = ("open" if end is None else f"{end:.4g}" for end in fit.intervals[name])
    return f" [{low}, {high}]"


def forecast_interval(forecast: Forecast, digits: int) -> str:
    """`[low, high]` of a forecast, an open end as `open`.

    `without an interval` when both ends are open.
    """
    if is_unbounded(forecast):
        return "without an interval"
    ends = (forecast["low"], forecast["high"])
    low, high = ("open" if end is None else f"{end:.{digits}f}" for end in ends)
    return f"[{low}, {high}]"


def coverage_text(forecast: Forecast, inside: bool | None) -> str:
    """Whether the interval contains the measurement.

    An interval that is open at both ends contains everything, which says nothing.
    """
    if is_unbounded(forecast):
        return "with no interval to compare with"
    return "inside the interval" if inside else OUTSIDE


def is_unbounded(forecast: Forecast) -> bool:
    """Whether the fit bounds the forecast on neither side."""
    return forecast["low"] is None and forecast["high"] is None


def value_with_error(row: Row, name: str, digits: int) -> str:
    """A number of a row, followed by its standard error if the row has one."""
    error = row.get(f"{name}_se", math.nan)
    value = f"{row[name]:.{digits}f}"
    return f"{value} ± {error:.{digits}f}" if np.isfinite(error) else value


def metric_name(column: str) -> str:
    """A column of the results table in words.

    >>> metric_name("loss"), metric_name("top1_error")
    ('loss', 'top-1 error')
    """
    return column.replace("top1", "top-1").replace("_", " ")


def run_id(run: str) -> str:
    """The id in `study@version/id`."""
    return run.rpartition("/")[2]


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "run"), count(2, "run")
    ('1 run', '2 runs')
    """
    return f"{number} {noun}" + "s" * (number != 1)


def _range(ascending: list[float]) -> str:
    low, high = compact_number(ascending[0]), compact_number(ascending[-1])
    return low if low == high else f"{low} to {high}"
