"""Figures of a law of one row per run: the law with its rows, and its residuals."""

from typing import Any, NamedTuple

import numpy as np

from scalejax.fitting.charts.chart import Chart, Mark, Points, size_colours
from scalejax.fitting.plots.lines import LAW_COLOUR, NO_ROWS, in_words, predicted, spaced

# More sizes than this get one legend entry for all.
MAX_SIZES = 12

# How far the figures look beyond the fitted FLOPs.
LOOK_AHEAD = 10.0

LABELS = {
    "loss": "loss, nats per token",
    "top1_error": "top-1 error",
    "params": "parameters",
    "tokens": "training tokens",
    "unique_tokens": "different training tokens",
    "flops": "training FLOPs",
}


class Rows(NamedTuple):
    """The fitted rows, in the table's units."""

    inputs: dict[str, np.ndarray]
    """(rows,) by our name of the column."""
    target: np.ndarray
    """(rows,)"""


def fitted_rows(fit: Any) -> Rows:
    """Return the rows that a `ParametricFit` was fitted to.

    Raises ValueError for a fit that was loaded from a file, which holds no rows.
    """
    if fit.optimum is None:
        raise ValueError(NO_ROWS)
    law, problem, kept = fit.law, fit.optimum.problem, np.asarray(fit.optimum.weights) > 0
    inputs = {}
    for name, axis, x in zip(law.inputs, law.axes, problem.inputs, strict=False):
        values, centre = np.asarray(x)[kept], float(problem.centre[axis])
        is_log = not law.additive and name not in law.raw
        inputs[name] = np.exp(np.log(values) + centre) if is_log else values + centre
    return Rows(inputs, np.asarray(problem.targets)[kept])


def charts(fit: Any) -> list[Chart]:
    """Return the figures of a `ParametricFit`: the law, and its residuals."""
    rows = fitted_rows(fit)
    names = tuple(rows.inputs)
    if names == ("params", "tokens"):
        return [_against_tokens(fit, rows), _against_flops(fit, rows), _residuals(fit, rows)]
    if len(names) == 1:
        return [_against_input(fit, rows, names[0]), _residuals(fit, rows)]
    return [_against_prediction(fit, rows), _residuals(fit, rows)]


def _label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))


def _sizes(rows: Rows) -> dict[float, str]:
    sizes = np.unique(rows.inputs["params"].round(-1))
    return size_colours(sizes.tolist()) if len(sizes) <= MAX_SIZES else {}


def _points_by_size(rows: Rows, x: np.ndarray, y: np.ndarray) -> list[Mark]:
    """Points coloured by model size, or all alike where sizes are many."""
    if "params" not in rows.inputs or not (colours := _sizes(rows)):
        return [Points(label="runs", colour=LAW_COLOUR, x=x, y=y)]
    marks: list[Mark] = []
    for size, colour in colours.items():
        own = rows.inputs["params"].round(-1) == size
        marks.append(Points(label=in_words(size, "params"), colour=colour, x=x[own], y=y[own]))
    return marks


def _against_tokens(fit: Any, rows: Rows) -> Chart:
    params, tokens = rows.inputs["params"], rows.inputs["tokens"]
    marks = _points_by_size(rows, tokens, rows.target)
    x = spaced(float(tokens.min()), float(tokens.max()))
    for size, colour in _sizes(rows).items():
        # The rounded size is a key; predictions take a size that was trained.
        trained = float(params[np.argmin(np.abs(params - size))])
        label = in_words(size, "params")
        marks += predicted(label, colour, x, lambda d, n=trained: fit.predict(params=n, tokens=d))
    return Chart(
        name="law_tokens",
        title=f"{fit.law.name}: {fit.law.target} against tokens",
        caption="Points are runs, lines the law, and bands the 95% interval for a new run.",
        x_label=_label("tokens"),
        y_label=_label(fit.law.target),
        marks=marks,
        log_x=True,
    )


def _against_flops(fit: Any, rows: Rows) -> Chart:
    flops = 6 * rows.inputs["params"] * rows.inputs["tokens"]
    marks = _points_by_size(rows, flops, rows.target)
    x = spaced(float(flops.min()), LOOK_AHEAD * float(flops.max()))
    caption = "Points are runs, at C = 6 N D."
    try:
        marks += predicted("compute-optimal", LAW_COLOUR, x, lambda c: fit.predict(flops=c))
        caption += " The line is the law at the compute-optimal size, with its 95% interval."
    # Some laws of (params, tokens) have no optimum; the runs are shown nonetheless.
    except (ValueError, TypeError, AttributeError):
        caption += " The law has no compute-optimal size here."
    return Chart(
        name="law_flops",
        title=f"{fit.law.name}: {fit.law.target} against FLOPs",
        caption=caption,
        x_label=_label("flops"),
        y_label=_label(fit.law.target),
        marks=marks,
        log_x=True,
    )


def _against_input(fit: Any, rows: Rows, name: str) -> Chart:
    values = rows.inputs[name]
    log = name not in fit.law.signed and not fit.law.additive
    high = float(values.max()) * (LOOK_AHEAD if log else 1.0)
    x = spaced(float(values.min()), high, log=log)
    marks = predicted(fit.law.name, LAW_COLOUR, x, lambda v: fit.predict(**{name: v}))
    marks += _points_by_size(rows, values, rows.target)
    return Chart(
        name="law",
        title=f"{fit.law.name}: {fit.law.target} against {name}",
        caption="Points are runs; the line is the law, and its band the 95% interval for a run.",
        x_label=_label(name),
        y_label=_label(fit.law.target),
        marks=marks,
        log_x=log,
    )


def _predictions(fit: Any, rows: Rows) -> np.ndarray:
    """The law at the fitted rows, (rows,)."""
    columns = zip(*rows.inputs.values(), strict=True)
    runs = [dict(zip(rows.inputs, map(float, row), strict=True)) for row in columns]
    return np.array([fit.predict(**run).value for run in runs])


def _against_prediction(fit: Any, rows: Rows) -> Chart:
    at = _predictions(fit, rows)
    return Chart(
        name="law",
        title=f"{fit.law.name}: measured against predicted {fit.law.target}",
        caption="Points are runs. A perfect law has them all on the diagonal.",
        x_label=f"predicted {_label(fit.law.target)}",
        y_label=f"measured {_label(fit.law.target)}",
        marks=_points_by_size(rows, at, rows.target),
    )


def _residuals(fit: Any, rows: Rows) -> Chart:
    at = _predictions(fit, rows)
    return Chart(
        name="residuals",
        title="Residuals",
        caption="Measured over predicted, minus one. A trend along x is lack of fit.",
        x_label=f"predicted {_label(fit.law.target)}",
        y_label="measured / predicted - 1, %",
        marks=_points_by_size(rows, at, 100 * (rows.target / at - 1)),
        reference=(0.0, ""),
    )
