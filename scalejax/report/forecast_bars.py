"""The figure of forecasts: each with its interval, beside what was measured later."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scalejax.fitting.charts.chart import Chart, Line, Mark, Points, compact_number
from scalejax.fitting.tables import PARAMS_COLUMN
from scalejax.report.figures import LOSS_LABEL
from scalejax.report.ledger_lines import ScoredForecast
from scalejax.report.record import Row
from scalejax.report.summary import metric_name, run_id

if TYPE_CHECKING:
    import pandas as pd

# Colours of a forecast's interval, of its value and of the measurement.
INTERVAL_COLOUR, FORECAST_COLOUR, MEASURED_COLOUR = "#b8c4d6", "#31508a", "#c2571a"


def forecast_bars(
    forecasts: Sequence[ScoredForecast], results: "pd.DataFrame", metric: str
) -> Chart:
    """The forecasts of a metric with their intervals, beside the measurements."""
    marks: list[Mark] = []
    labels: dict[float, str] = {}
    rows = {row["run"]: row for row in results.to_dict("records")}
    # The first forecast is at the top.
    for position, scored in enumerate(reversed(forecasts)):
        row = rows.get(run_id(scored.forecast["run"]))
        marks += _forecast_marks(scored, row, float(position))
        labels[float(position)] = _forecast_label(scored, row)
    title = "Forecasts and measurements"
    if metric != "loss":
        title += f": {metric_name(metric)}"
    caption = "Circles are the forecasts, and diamonds are what was measured afterwards."
    if any(isinstance(mark, Line) for mark in marks):
        caption = f"Bars are the intervals registered before the runs started. {caption}"
    return Chart(
        # A metric from a file of somebody else may be `../..` or hold quotes.
        name="forecast_" + re.sub(r"[^\w.-]", "_", metric),
        title=title,
        caption=caption,
        x_label=LOSS_LABEL if metric == "loss" else metric_name(metric),
        y_label="",
        marks=marks,
        y_ticks=labels,
        y_range=(-0.7, len(forecasts) - 0.3),
        height=170 + 56 * len(forecasts),
    )


def _forecast_marks(scored: ScoredForecast, row: Row | None, position: float) -> list[Mark]:
    """The interval, the value and the measurement of one forecast."""
    forecast, score = scored
    run, y = forecast["run"], np.array([position])
    marks: list[Mark] = []
    low, high = forecast["low"], forecast["high"]
    if low is not None and high is not None:
        level = f"{forecast['level']:.0%} interval"
        interval = Line(
            label=level,
            colour=INTERVAL_COLOUR,
            x=np.array([low, high], float),
            y=np.repeat(y, 2),
            width=9,
            hover=f"{run}\n{level} {low:.4g} to {high:.4g}",
        )
        marks.append(interval)
    value = Points(
        label="forecast",
        colour=FORECAST_COLOUR,
        x=np.array([forecast["value"]], float),
        y=y,
        hover=[f"{run}\nforecast {forecast['value']:.4g}"],
    )
    marks.append(value)
    if score is not None:
        error = (row or {}).get(f"{forecast['metric']}_se", np.nan)
        measurement = Points(
            label="measured",
            colour=MEASURED_COLOUR,
            x=np.array([score["measured"]], float),
            y=y,
            symbol="diamond",
            x_error=np.array([error]) if np.isfinite(error) else None,
            hover=[f"{run}\nmeasured {score['measured']:.4g}"],
        )
        marks.append(measurement)
    return marks


def _forecast_label(scored: ScoredForecast, row: Row | None) -> str:
    """Size and budget of a forecast run (its id if it has no row), and the law."""
    run = run_id(scored.forecast["run"])
    if row is not None:
        params, tokens = compact_number(row[PARAMS_COLUMN]), compact_number(row["tokens"])
        run = f"{params} params\n{tokens} tokens"
    return f"{run}\n{scored.forecast['law']} law"
