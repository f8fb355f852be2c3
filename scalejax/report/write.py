"""Write the report of a study: an HTML page, and its figures as PNG and SVG files."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import numpy as np

from scalejax.files import make_folder, replacing, write_text
from scalejax.fitting.charts.chart import Chart, compact_number, size_colours
from scalejax.fitting.charts.figure import figure
from scalejax.fitting.charts.matplotlib import images
from scalejax.fitting.parametric.result import ParametricFit
from scalejax.fitting.result import Fit
from scalejax.fitting.tables import PARAMS_COLUMN
from scalejax.report import diagnostics, figures
from scalejax.report.analysis import DOES_NOT_HOLD, claim_text, value_text
from scalejax.report.forecast_bars import forecast_bars
from scalejax.report.ledger_lines import ScoredForecast
from scalejax.report.page import (
    Cell,
    Section,
    bullets,
    columns,
    descriptions,
    folded,
    page,
    paragraph,
    table,
)
from scalejax.report.record import Record, Row, read_study
from scalejax.report.summary import (
    OUTSIDE,
    VERDICTS,
    count,
    coverage_text,
    forecast_interval,
    metric_name,
    parameter_interval,
    run_id,
    summary,
    value_with_error,
    warnings,
)

if TYPE_CHECKING:
    import pandas as pd


def write_report(folder: Path) -> Path:
    """Write report.html and its figures into the folder of a study.

    Parts that the study lacks, such as forecasts, laws or curves, become a sentence of
    the page.

    Returns the path of the page. Raises FileNotFoundError if the folder is not that of
    a study, and ValueError if no run of it has finished.
    """
    record = read_study(Path(folder))
    make_folder(record.folder / "figures")
    colours = size_colours(record.results[PARAMS_COLUMN])
    sections = [
        _summary_section(record),
        *_conclusion_sections(record),
        _curves_section(record, colours),
        *_law_sections(record, colours),
        *_forecast_sections(record),
        *_error_sections(record, colours),
        Section("Runs", run_table(record.results)),
    ]
    path = record.folder / "report.html"
    content = page(
        title=record.study["name"],
        lead=_lead(record.study["question"]),
        sections=sections,
        footer=_footer(record.results),
    )
    write_text(path, content)
    return path


def _summary_section(record: Record) -> Section:
    notes = warnings(record)
    body = descriptions(summary(record))
    return Section("Summary", body + bullets(notes, "notes") if notes else body)


def _conclusion_sections(record: Record) -> list[Section]:
    """What the study concludes, with its charts; nothing without an analysis."""
    if record.analysis is None:
        return []
    rows = []
    for it in record.analysis.conclusions:
        verdict = Cell(it.verdict, is_alarm=it.verdict == DOES_NOT_HOLD)
        claim, note = Cell(claim_text(it), is_text=True), Cell(it.note, is_text=True)
        measured = Cell(value_text(it), is_text=bool(it.unit))
        rows.append([claim, verdict, measured, note])
    # A narrow window shows the first two columns without scrolling.
    body = table(["claim", "verdict", "measured", "how"], rows) if rows else ""
    charts = "".join(_picture(record, chart) for chart in record.analysis.charts)
    return [Section("Conclusions", body + charts)]


def _curves_section(record: Record, colours: Mapping[float, str]) -> Section:
    if record.curves is None or not len(record.curves):
        text = "There are no curves: curves.parquet is missing or empty."
        return Section("Loss curves", paragraph(text))
    views = [
        figures.loss_curves(record.curves, record.results, colours, against)
        for against in _budgets(record)
    ]
    return Section(views[0].title, _picture(record, *views))


def _law_sections(record: Record, colours: Mapping[float, str]) -> list[Section]:
    """A section for each law. The summary says why there is none."""
    return [_law_section(record, fit, colours) for fit in record.fits.values()]


def _law_section(record: Record, fit: Fit, colours: Mapping[float, str]) -> Section:
    """Formula, parameters and verdict of a law, and its charts if it has any."""
    verdict = paragraph(f"Verdict {fit.verdict}: {VERDICTS[fit.verdict]}.")
    notes = verdict + bullets([*fit.reasons, *_quality_notes(fit)])
    body = columns(_formula(fit) + _parameter_table(fit), notes)
    if _draws_lines(fit) and len(record.fitted):
        rows = (fit, record.fitted, record.forecast_runs, colours)
        views = figures.law_lines(*rows, _budgets(record))
        body += _picture(record, *views, figures.collapsed(*rows))
        trends = diagnostics.residual_trends(fit, record.fitted)
        body += folded(trends, _picture(record, figures.residuals(*rows)))
        for it in (diagnostics.noise(fit), diagnostics.shared_trunks(fit, record.fitted)):
            body += folded(it.conclusion, it.details)
    return Section(f"Law: {fit.law.name}", body)


def _budgets(record: Record) -> list[figures.Budget]:
    """What figures are drawn against: tokens, and FLOPs if the table has them."""
    if "flops" not in record.results:
        return ["tokens"]
    budgets = record.results[["flops", "tokens"]].to_numpy(float)
    return ["tokens", "flops"] if (budgets > 0).all() else ["tokens"]


def _draws_lines(fit: Fit) -> TypeGuard[ParametricFit]:
    """Whether a fit gives lines of loss against tokens, one for each size."""
    if not isinstance(fit, ParametricFit) or fit.verdict == "not-converged":
        return False
    return fit.law.target == "loss" and set(fit.law.inputs) <= {"params", "tokens"}


def _formula(fit: Fit) -> str:
    """The formula of a law with its source, and what its letters mean."""
    formula, _, rest = fit.law.formula.partition("\n\n")
    letters = rest.partition("\n\n")[0]
    html = f"<p><code>{escape(formula)}</code></p>"
    return html + (f'<p class="small">{escape(letters)}</p>' if letters else "")


def _parameter_table(fit: Fit) -> str:
    rows = []
    for name, value in fit.params.items():
        # Parameters that are held have no interval, with or without a bootstrap.
        without = "held at this value" if fit.intervals else "no bootstrap"
        interval = parameter_interval(fit, name).strip() or without
        rows.append([Cell(name), Cell(f"{value:.5g}", value), Cell(interval)])
    return table(["parameter", "value", "95% interval"], rows)


def _quality_notes(fit: Fit) -> list[str]:
    """How reliably the optimum was found, and how well the law predicts."""
    notes = [
        f"{fit.starts_at_optimum:.0%} of the solver's starts reached this optimum (objective "
        f"{fit.objective:.4g}, loss {fit.loss})."
    ]
    validation = fit.cross_validation
    if validation.n:
        if isinstance(fit, ParametricFit):
            how = "Fitted to the cheaper runs, the law predicts the more expensive ones"
        else:
            how = "On data that was left out of the fit, the law predicts"
        notes.append(
            f"{how} with a relative error of {validation.mean_rel_error:.2%} on average and "
            f"{validation.max_rel_error:.2%} at worst ({count(validation.splits, 'split')})."
        )
    return notes


def _forecast_sections(record: Record) -> list[Section]:
    """The forecasts, if there are any."""
    if not record.forecasts:
        return []
    by_metric: dict[str, list[ScoredForecast]] = {}
    for scored in record.forecasts:
        by_metric.setdefault(scored.forecast["metric"], []).append(scored)
    charts = [
        forecast_bars(forecasts, record.results, metric) for metric, forecasts in by_metric.items()
    ]
    pictures = "".join(_picture(record, chart) for chart in charts)
    note = paragraph("An error is what was measured minus the forecast.")
    body = pictures + note + _forecast_table(record.forecasts, record.results)
    return [Section("Forecasts and measurements", body)]


def _forecast_table(forecasts: Sequence[ScoredForecast], results: "pd.DataFrame") -> str:
    """Every forecast beside what was measured."""
    # A run that diverged, or that measured something else, is never scored.
    ended = {"diverged": "diverged", "done": "not measured"}
    status = {run: ended.get(it, "not yet") for run, it in results[["run", "status"]].to_numpy()}
    levels = sorted({f"{forecast['level']:.0%}" for forecast, _ in forecasts})
    head = ["run", "law", "metric", "forecast", f"{' or '.join(levels)} interval"]
    head += ["measured", "error", "measurement"]
    rows = []
    for forecast, score in forecasts:
        words = (run_id(forecast["run"]), forecast["law"], metric_name(forecast["metric"]))
        row = [Cell(word) for word in words]
        row.append(Cell(f"{forecast['value']:.4f}", forecast["value"]))
        row.append(Cell(forecast_interval(forecast, 4)))
        if score is None:
            why = status.get(run_id(forecast["run"]), "not yet")
            rows.append([*row, Cell(why), Cell(""), Cell("")])
            continue
        error = f"{score['error']:+.4f}"
        if forecast["value"]:
            error += f" ({score['error'] / forecast['value']:+.2%})"
        row += [Cell(f"{score['measured']:.4f}", score["measured"]), Cell(error, score["error"])]
        covered = coverage_text(forecast, score["inside"])
        rows.append([*row, Cell(covered, is_alarm=covered == OUTSIDE)])
    return table(head, rows)


def _error_sections(record: Record, colours: Mapping[float, str]) -> list[Section]:
    """Top-1 error against loss, if a run measured it."""
    rows = record.with_top1_error
    if not len(rows):
        return []
    of_error = [
        fit
        for fit in record.fits.values()
        if fit.law.target == "top1_error" and fit.law.inputs == ("loss",)
    ]
    fit = of_error[0] if of_error else None
    forecast_runs = record.study["forecast"]
    chart = figures.error_curve(fit, rows, forecast_runs, record.chance_error, colours)
    body = _picture(record, chart)
    if fit is None:
        body += paragraph("No law of error against loss was fitted, so there is no curve.")
    return [Section("Top-1 error against loss", body)]


class _Column(NamedTuple):
    """A column of the table of runs."""

    heading: str
    format: Callable[[Any], str]
    error_digits: int | None = None
    """Digits of a number that is shown with its standard error."""


# Columns of the table of runs between the run's id and its status.
COLUMNS: dict[str, _Column] = {
    PARAMS_COLUMN: _Column("params", compact_number),
    "tokens": _Column("tokens", compact_number),
    "learning_rate": _Column("learning rate", "{:.3g}".format),
    "batch_tokens": _Column("batch tokens", "{:,.0f}".format),
    "seed": _Column("seed", str),
    "loss": _Column("loss", "{:.4f}".format, error_digits=4),
    "bits_per_byte": _Column("bits per byte", "{:.3f}".format),
    "top1_error": _Column("top-1 error", "{:.3f}".format, error_digits=3),
    "flops": _Column("FLOPs", "{:.2e}".format),
    "wall_seconds": _Column("seconds", "{:.0f}".format),
}

# Settings that are written above the table when they are the same in every run.
SETTINGS = ("learning_rate", "batch_tokens", "seed")


def run_table(results: "pd.DataFrame") -> str:
    """The runs as a sortable HTML table, with standard errors of losses and errors.

    Settings that all runs share are written above it.
    """
    shared = [name for name in SETTINGS if name in results and len(set(results[name])) == 1]
    names = [name for name in COLUMNS if name in results and name not in shared]
    rows = []
    for row in results.to_dict("records"):
        cells = [Cell(_number_text(row, name), _sort_value(row[name])) for name in names]
        status = Cell(row["status"], is_alarm=row["status"] == "diverged")
        rows.append([Cell(row["run"]), *cells, status])
    head = ["run", *(COLUMNS[name].heading for name in names), "status"]
    html = table(head, rows, sortable=True)
    if not shared:
        return html
    values = [
        f"{COLUMNS[name].heading} {COLUMNS[name].format(results[name].iloc[0])}" for name in shared
    ]
    return paragraph(f"The same in every run: {', '.join(values)}.") + html


def _number_text(row: Row, name: str) -> str:
    if not np.isfinite(row[name]):
        return "–"
    column = COLUMNS[name]
    if column.error_digits is not None:
        return value_with_error(row, name, column.error_digits)
    return column.format(row[name])


def _sort_value(number: float) -> float:
    # Numbers that are not finite come last.
    return float(number) if np.isfinite(number) else math.inf


def _picture(record: Record, *views: Chart) -> str:
    """One figure that shows the views, which are also written to figures/."""
    drawn = [chart for chart in views if chart.marks]
    if not drawn:
        return paragraph(f"{views[0].title}: there is nothing to draw.")
    for chart in drawn:
        for form, content in images([chart], ("png", "svg")).items():
            # Where there is a link, it is replaced, and not the file that it names.
            with replacing(record.folder / "figures" / f"{chart.name}.{form}") as file:
                file.write_bytes(content)
    return figure(drawn, has_files=True)


def _lead(question: str) -> str:
    """The docstring of the experiment as HTML, its first paragraph large."""
    text = question.strip() or "The experiment file does not state a question."
    first, *others = text.split("\n\n")
    html = f'<p class="lead">{escape(first)}</p>'
    return html + "".join(f"<p>{escape(other)}</p>" for other in others)


def _footer(results: "pd.DataFrame") -> str:
    """Versions, devices and date, as HTML."""
    facts = []
    for name in ("code", "jax", "devices"):
        if name in results:
            values = sorted(set(results[name].dropna().astype(str)))
            facts.append(f"{name} {', '.join(values)}")
    if "finished" in results and (last := max(results["finished"].dropna(), default="")):
        # ISO 8601 in UTC, without its seconds.
        facts.append(f"last run finished {last[:16].replace('T', ' ')} UTC")
    facts.append("the figures are in figures/ beside this page, as PNG and SVG")
    return escape(" · ".join(facts))
