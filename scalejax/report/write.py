"""The report of a study: one HTML page that opens without a network, and the same figures as PNG files beside it."""

import base64
import math
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scalejax.files import write_text
from scalejax.fitting.result import Fit
from scalejax.fitting.tables import PARAMS_COLUMN as SIZE
from scalejax.laws import ParametricLaw
from scalejax.report import charts, figures
from scalejax.report.charts import Chart, compact
from scalejax.report.page import Cell, Section, bullets, glossary, page, paragraph, picture, table
from scalejax.report.record import Record, read_study
from scalejax.report.summary import (
    VERDICTS,
    cautions,
    count,
    forecast_in_words,
    interval,
    no_law,
    short,
    summary,
    with_error,
)

if TYPE_CHECKING:
    import pandas as pd


def write_report(folder: Path) -> Path:
    """Writes folder/report.html and folder/figures/*.png from the study's tables, fits and forecasts; gives the page's path.

    What is not there (a forecast, a law, a curve) is a sentence in the page, not an error. Raises FileNotFoundError when the
    folder holds no study, and ValueError when no run of it has finished.
    """
    record = read_study(Path(folder))
    (record.folder / "figures").mkdir(exist_ok=True)
    sections = [
        Section("Summary", glossary(summary(record)) + _cautions(record)),
        _curves(record),
        *_laws(record),
    ]
    sections += [_forecasts(record), _errors(record), Section("Runs", run_table(record.results))]
    title = record.study["name"]
    path = record.folder / "report.html"
    write_text(
        path, page(title=title, lead=_lead(record), sections=sections, footer=_footer(record))
    )
    return path


def _cautions(record: Record) -> str:
    said = cautions(record)
    return bullets(said, "notes") if said else ""


def _curves(record: Record) -> Section:
    if record.curves is None or not len(record.curves):
        return Section(
            "Loss curves", paragraph("There are no curves: curves.parquet is missing or empty.")
        )
    return _chart_section(record, figures.loss_curves(record.curves, record.results, record.sizes))


def _laws(record: Record) -> list[Section]:
    """Every law: formula, parameters, verdict; and for a law of (params, tokens) its lines and residuals."""
    sections = []
    for fit in record.fits.values():
        body = (
            _formula(fit)
            + _parameters(fit)
            + paragraph(f"Verdict {fit.verdict}: {VERDICTS[fit.verdict]}.")
        )
        body += bullets([*fit.reasons, *_checks(fit)])
        of_points = (
            isinstance(fit.law, ParametricLaw)
            and fit.law.target == "loss"
            and set(fit.law.inputs) <= {"params", "tokens"}
        )
        if of_points and len(record.fitted):
            for draw in (figures.law_lines, figures.residuals):
                body += _picture(record, draw(fit, record.fitted, record.held_out, record.sizes))
        sections.append(Section(f"Law: {fit.law.name}", body))
    return sections or [Section("Law", paragraph(no_law(record)))]


def _formula(fit: Fit) -> str:
    """The first line of the law's docstring: formula and source; then what its letters are."""
    first, _, rest = fit.law.formula.partition("\n\n")
    letters = rest.partition("\n\n")[0]
    return f"<p><code>{escape(first)}</code></p>" + (
        f'<p class="small">{escape(letters)}</p>' if letters else ""
    )


def _parameters(fit: Fit) -> str:
    rows = [
        [Cell(name), Cell(f"{value:.5g}", value), Cell(interval(fit, name).strip() or "not drawn")]
        for name, value in fit.params.items()
    ]
    return table(["parameter", "value", "95% interval"], rows)


def _checks(fit: Fit) -> list[str]:
    optimum = f"objective {fit.objective:.4g}, loss {fit.loss}"
    said = [f"{fit.starts_at_optimum:.0%} of the solver's starts reached this optimum ({optimum})."]
    if (found := fit.cross_validation).n:
        how = (
            "Fitted to the cheaper runs and asked for the dearer ones"
            if isinstance(fit.law, ParametricLaw)
            else "Asked for what it left out"
        )
        said.append(
            f"{how} ({count(found.splits, 'split')}), the law is off by {found.mean_rel_error:.2%} on average and "
            f"{found.max_rel_error:.2%} at worst."
        )
    return said


def _forecasts(record: Record) -> Section:
    if not record.forecasts:
        return Section(
            "Forecast against truth", paragraph("No forecast was registered in this study.")
        )
    rows = record.results.set_index("run")
    pairs: dict[str, list[dict[str, Any]]] = {}
    for line in record.forecasts:
        run, se = short(line["run"]), f"{line['metric']}_se"
        known = run in rows.index
        size = (
            f"{compact(rows.loc[run, SIZE])} params\n{compact(rows.loc[run, 'tokens'])} tokens"
            if known
            else run
        )
        error = float(rows.loc[run, se]) if known and se in rows else math.nan
        pairs.setdefault(line["metric"], []).append(
            line | {"label": f"{size}\n{line['law']} law", "measured_se": error}
        )
    body = "".join(
        _picture(record, figures.forecast_bars(group, metric)) for metric, group in pairs.items()
    )
    return Section(
        "Forecast against truth",
        body + bullets([forecast_in_words(line) for line in record.forecasts]),
    )


def _errors(record: Record) -> Section:
    title = "Top-1 error against loss"
    if not len(record.with_error):
        return Section(title, paragraph("No run of this study measured a downstream task."))
    fit = next(
        (
            fit
            for fit in record.fits.values()
            if fit.law.target == "top1_error" and fit.law.inputs == ("loss",)
        ),
        None,
    )
    chart = figures.error_curve(
        fit, record.with_error, record.study["forecast"], record.chance, record.sizes
    )
    note = (
        "" if fit else paragraph("No law of error against loss was fitted, so there is no curve.")
    )
    return Section(title, _picture(record, chart) + note)


COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    SIZE: ("params", compact),
    "tokens": ("tokens", compact),
    "learning_rate": ("learning rate", "{:.3g}".format),
    "batch_tokens": ("batch tokens", compact),
    "seed": ("seed", str),
    "loss": ("loss", "{:.4f}".format),
    "bits_per_byte": ("bits per byte", "{:.3f}".format),
    "top1_error": ("top-1 error", "{:.3f}".format),
    "flops": ("FLOPs", "{:.2e}".format),
    "wall_seconds": ("seconds", "{:.0f}".format),
}
"""Columns of the run table between run and status: heading, and how a number reads."""
SETTINGS = ("learning_rate", "batch_tokens", "seed")
"""Of those, what was chosen and may be the same for all."""


def run_table(results: "pd.DataFrame") -> str:
    """The runs as a sortable table, losses and errors with their standard errors; settings that all share stand above it."""
    shared = [name for name in SETTINGS if name in results and len(set(results[name])) == 1]
    shown = [name for name in COLUMNS if name in results and name not in shared]
    same = ", ".join(
        f"{COLUMNS[name][0]} {COLUMNS[name][1](results[name].iloc[0])}" for name in shared
    )
    rows = []
    for row in results.to_dict("records"):
        diverged = row["status"] == "diverged"
        cells = [Cell(_number(row, name), _sort_value(row[name])) for name in shown]
        rows.append([Cell(row["run"]), *cells, Cell(row["status"], alarming=diverged)])
    above = paragraph(f"The same in every run: {same}.") if shared else ""
    return above + table(
        ["run", *(COLUMNS[name][0] for name in shown), "status"], rows, sortable=True
    )


def _number(row: dict[str, Any], name: str) -> str:
    if not np.isfinite(row[name]):
        return "–"
    digits = {"loss": 4, "top1_error": 3}.get(name)
    return COLUMNS[name][1](row[name]) if digits is None else with_error(row, name, digits)


def _sort_value(number: float) -> float:
    return float(number) if np.isfinite(number) else math.inf


def _chart_section(record: Record, chart: Chart) -> Section:
    return Section(chart.title, _picture(record, chart))


def _picture(record: Record, chart: Chart) -> str:
    """The chart for the page; its PNG goes into figures/ too."""
    if not chart.series:
        return paragraph(f"{chart.title}: there is nothing to draw.")
    image = charts.png(chart)
    (record.folder / "figures" / f"{chart.name}.png").write_bytes(image)
    return picture(
        charts.plotly_div(chart), base64.b64encode(image).decode(), chart.title, chart.caption
    )


def _lead(record: Record) -> str:
    """The experiment's docstring: its first paragraph large, the others as they stand."""
    first, *others = (
        record.study["question"].strip() or "This experiment's file states no question."
    ).split("\n\n")
    return f'<p class="lead">{escape(first)}</p>' + "".join(
        f"<p>{escape(other)}</p>" for other in others
    )


def _footer(record: Record) -> str:
    facts = [
        f"{name} {', '.join(sorted(set(record.results[name].dropna().astype(str))))}"
        for name in ("code", "jax", "devices")
        if name in record.results
    ]
    last = (
        max(record.results["finished"].dropna(), default="") if "finished" in record.results else ""
    )
    return escape(
        " · ".join(
            [
                *facts,
                *([f"last run finished {last}"] if last else []),
                "figures as PNG in figures/ beside this page",
            ]
        )
    )
