"""Figures of a sweep: the loss over the rate in each cell, and the best rates."""

from typing import Any

import numpy as np

from scalejax.fitting.charts.chart import Chart, Line, Mark, Points, compact_number, size_colours
from scalejax.fitting.plots.lines import LAW_COLOUR, NO_ROWS


def charts(fit: Any) -> list[Chart]:
    """Return the figures of a `HyperparameterFit`.

    Raises ValueError for a fit that was loaded from a file.
    """
    if not fit.cells:
        raise ValueError(NO_ROWS)
    return [_sweeps(fit), _rates(fit)]


def _sweeps(fit: Any) -> Chart:
    colours = size_colours(range(len(fit.cells)))
    marks: list[Mark] = []
    for i, cell in enumerate(fit.cells):
        label = f"{compact_number(cell.params[0])}, {compact_number(cell.tokens[0])} tokens"
        # The best batch size and beta2 count at each rate.
        rates, which = np.unique(cell.learning_rate, return_inverse=True)
        lowest = np.full(len(rates), np.inf)
        np.minimum.at(lowest, which, cell.loss)
        excess = 100 * (lowest / lowest.min() - 1)
        marks.append(Points(label=label, colour=colours[i], x=rates, y=excess))
        marks.append(Line(label=label, colour=colours[i], x=rates, y=excess, in_legend=False))
    return Chart(
        name="sweeps",
        title="Loss against learning rate",
        caption="The loss above the best run of each size and number of tokens, in percent.",
        x_label="peak learning rate",
        y_label="loss above the best of the cell, %",
        marks=marks,
        log_x=True,
    )


def _rates(fit: Any) -> Chart:
    colours = size_colours(range(len(fit.cells)))
    marks: list[Mark] = []
    for i, cell in enumerate(fit.cells):
        N, D = float(cell.params[0]), float(cell.tokens[0])
        if not np.isfinite(fit.params["learning_rate.coefficient"]):
            continue
        law = fit.predict(params=N, tokens=D).value
        best = cell.learning_rate[np.argmin(cell.loss)]
        label = f"{compact_number(N)}, {compact_number(D)} tokens"
        x, y = np.array([law]), np.array([best])
        marks.append(Points(label=label, colour=colours[i], x=x, y=y, in_legend=False))
    if marks:
        ends = np.array([np.concatenate([mark.x for mark in marks]).min() * 0.8, 0.0])
        ends[1] = np.concatenate([mark.x for mark in marks]).max() * 1.25
        diagonal = Line(label="equal", colour=LAW_COLOUR, x=ends, y=ends, dashed=True)
        marks.append(diagonal)
    return Chart(
        name="learning_rates",
        title="Best learning rate",
        caption="The rate of the best run of each cell against that of the law. The best run is "
        "one of those that were swept, and the law lies between them.",
        x_label="learning rate of the law",
        y_label="learning rate of the best run",
        marks=marks,
        log_x=True,
        log_y=True,
    )
