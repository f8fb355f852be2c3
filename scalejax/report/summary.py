"""A study in sentences: its runs, what its laws say and how far to trust them, its forecasts beside the truth."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from scalejax.fitting.result import Fit
from scalejax.fitting.tables import PARAMS_COLUMN as SIZE
from scalejax.report.charts import compact
from scalejax.report.record import Record

VERDICTS = {
    "ok": "these rows decide every parameter: no interval is open, and none sits at the edge of what the law allows",
    "at-boundary": "the best fit lies at the edge of what the law allows, so one of its terms is not needed by these rows; a "
    "forecast near the measured range can still hold, the parameter at the edge is not a measurement",
    "unidentified": "these rows do not decide every parameter: quite different values fit them equally well; a forecast near "
    "the measured range can still hold, and its interval says how well, but the open parameters are not measurements",
    "not-converged": "the solver did not reach an optimum: use neither these parameters nor their forecasts",
}


def summary(record: Record) -> list[tuple[str, str]]:
    """(name, sentences) of the study: runs, laws, forecasts, downstream error, FLOPs saved."""
    said = [("Runs", runs_in_words(record))]
    said += [(f"Law: {name}", law_in_words(fit)) for name, fit in record.fits.items()] or [
        ("Law", no_law(record))
    ]
    said += [("Forecast", forecast_in_words(line)) for line in record.forecasts] or [
        ("Forecast", "None was registered.")
    ]
    if len(record.with_error):
        said.append(("Top-1 error", error_in_words(record)))
    plan = record.study["plan"]
    cost = f"{plan['flops']:.3g} FLOPs of training"
    saved = f"; without shared trunks it would have been {plan['flops_separate']:.3g}: {plan['saved_fraction']:.0%} saved"
    return [*said, ("Compute", cost + saved * (plan["saved_fraction"] > 0) + ".")]


def runs_in_words(record: Record) -> str:
    """How many runs of which sizes and budgets finished, and which did not."""
    rows, planned = record.results, len(record.study["runs"]) + len(record.study["forecast"])
    sizes, tokens = sorted(set(rows[SIZE])), sorted(set(rows["tokens"]))
    words = f"{len(rows)} of {planned} finished: {count(len(sizes), 'model size')} ({_span(sizes)} parameters, head included, "
    words += f"embeddings not) and {count(len(tokens), 'token budget')} ({_span(tokens)} tokens)."
    if diverged := list(rows.loc[rows["status"] == "diverged", "run"]):
        words += f" Diverged, and left out of every fit: {', '.join(diverged)}."
    if record.unfinished:
        words += f" Not finished: {', '.join(record.unfinished)}."
    return words


def error_in_words(record: Record) -> str:
    """Top-1 error at the two ends of the losses, beside guessing."""
    rows = record.with_error.sort_values("loss")
    best, worst = (
        f"{with_error(row, 'top1_error', 3)} at loss {row['loss']:.3f}"
        for _, row in rows.iloc[[0, -1]].iterrows()
    )
    guess = "" if record.chance is None else f"; guessing gives {record.chance:.3g}"
    return f"From {worst} to {best}{guess}." if len(rows) > 1 else f"{best}{guess}."


def law_in_words(fit: Fit) -> str:
    """The parameters with their intervals, the verdict, and what the verdict means."""
    values = ", ".join(
        f"{name} = {value:.4g}{interval(fit, name)}" for name, value in fit.params.items()
    )
    drawn = " (95% intervals)" if fit.intervals else ""
    words = f"{values}{drawn}, from {count(fit.n_rows, 'run')}. Verdict {fit.verdict}: {VERDICTS[fit.verdict]}."
    return words + (f" Notes: {'; '.join(fit.reasons)}." if fit.reasons else "")


def interval(fit: Fit, name: str) -> str:
    """` [low, high]`, an open end as `open`; empty for a fit without intervals."""
    if name not in fit.intervals:
        return ""
    low, high = ("open" if end is None else f"{end:.4g}" for end in fit.intervals[name])
    return f" [{low}, {high}]"


def forecast_in_words(line: dict[str, Any]) -> str:
    """A registered forecast beside its measurement."""
    metric, unit = (
        line["metric"].replace("_", " "),
        " nats per token" if line["metric"] == "loss" else "",
    )
    words = f"Before run {short(line['run'])} started, the {line['law']} law gave {metric} {line['value']:.4f}{bounds(line, 4)}"
    words += "" if unbounded(line) else f" ({line['level']:.0%} interval)"
    if "measured" not in line:
        return words + "; not measured yet."
    error = f"{line['error']:+.4f}{unit} ({line['error'] / line['value']:+.2%})"
    return words + f". Measured: {line['measured']:.4f}, {where(line)}, {error} from the forecast."


def bounds(line: Mapping[str, Any], digits: int) -> str:
    """` [low, high]` of a forecast, an open end as `open`; ` without an interval` when both ends are open."""
    low, high = (
        "open" if line[end] is None else f"{line[end]:.{digits}f}" for end in ("low", "high")
    )
    return " without an interval" if unbounded(line) else f" [{low}, {high}]"


def where(line: Mapping[str, Any]) -> str:
    """Where the measurement fell; an interval that is open at both ends could not have missed it, and says nothing."""
    if unbounded(line):
        return "no interval to judge by"
    return "inside the interval" if line["inside"] else "OUTSIDE the interval"


def unbounded(line: Mapping[str, Any]) -> bool:
    """Whether the fitted rows bound the forecast on neither side."""
    return line["low"] is None and line["high"] is None


KINDS = {
    "code": "versions of the code",
    "jax": "versions of jax",
    "data_hash": "data sets",
    "devices": "kinds of devices",
}
"""Columns in which the runs of one study should agree."""
FLAGS = {
    "placement_changed": "Resumed under another placement, so not repeatable bit for bit",
    "tokens_skipped": "Steps were skipped because their gradients were not finite",
}
"""Columns that should be zero."""


def cautions(record: Record) -> list[str]:
    """What a reader should know before trusting a comparison of these runs."""
    rows = record.results
    said = []
    for column, words in KINDS.items():
        kinds = sorted(set(rows[column].dropna().astype(str))) if column in rows else []
        said += (
            [f"These runs come from {len(kinds)} {words}: {', '.join(kinds)}."]
            if len(kinds) > 1
            else []
        )
    for column, words in FLAGS.items():
        flagged = list(rows.loc[rows[column].fillna(0) > 0, "run"]) if column in rows else []
        said += [f"{words}: {', '.join(flagged)}."] if flagged else []
    return [
        *said,
        *record.study["plan"]["warnings"],
        *(f"A fit could not be read: {why}." for why in record.unreadable),
    ]


def no_law(record: Record) -> str:
    """Why there is no law."""
    runs = f"{count(len(record.fitted), 'run')} finished that could be fitted"
    reasons = [f"{name}: {reason}" for name, reason in record.study.get("unfitted", {}).items()]
    return f"No law was fitted; {runs}. " + " ".join(
        reasons or ["A law needs at least one run for each of its parameters."]
    )


def with_error(row: Any, name: str, digits: int) -> str:
    """A number of a row, with its standard error where the row has one."""
    error = row.get(f"{name}_se", math.nan)
    return f"{row[name]:.{digits}f}" + (f" ± {error:.{digits}f}" if np.isfinite(error) else "")


def short(run: str) -> str:
    """The id of `study@version/id`."""
    return run.rpartition("/")[2]


def count(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}" + "s" * (number != 1)


def _span(ordered: list[float]) -> str:
    low, high = compact(ordered[0]), compact(ordered[-1])
    return low if low == high else f"{low} to {high}"
