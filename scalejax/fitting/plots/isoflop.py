"""Figures of isoFLOP curves: their parabolas, and the optimal size at every budget."""

from typing import Any

import numpy as np

from scalejax.fitting.charts.chart import Chart, Line, Mark, Points, size_colours
from scalejax.fitting.plots.lines import LAW_COLOUR, NO_ROWS, in_words, predicted, spaced

# How far the figure looks beyond the largest budget.
LOOK_AHEAD = 100.0


def charts(fit: Any) -> list[Chart]:
    """Return the figures of an `IsoFLOPFit`.

    Raises ValueError for a fit that was loaded from a file, and for one without a law.
    """
    if not fit.curves:
        raise ValueError(NO_ROWS)
    colours = size_colours(curve.flops for curve in fit.curves)
    return [_curves(fit, colours), _optima(fit, colours), _frontier(fit, colours)]


def _curves(fit: Any, colours: dict[float, str]) -> Chart:
    marks: list[Mark] = []
    optima: list[Mark] = []
    optimal_sizes = {budget.flops: budget.params for budget in fit.optima}
    for curve in fit.curves:
        colour, label = colours[curve.flops], f"{curve.flops:.3g} FLOPs"
        size, loss = curve.log_N[: curve.models], curve.loss[: curve.models]
        # The parabola is drawn for either protocol: it shows what a curve looks like.
        fitted = np.polynomial.Polynomial.fit(size, loss, 2)
        x = np.linspace(size.min(), size.max(), 60)
        marks.append(Points(label=label, colour=colour, x=np.exp(size), y=loss))
        marks.append(Line(label=label, colour=colour, x=np.exp(x), y=fitted(x), in_legend=False))
        optimum = optimal_sizes.get(curve.flops)
        if optimum is not None:
            at = np.array([optimum])
            best = Points(
                label="optimum",
                colour=LAW_COLOUR,
                x=at,
                y=np.array([float(fitted(np.log(optimum)))]),
                symbol="diamond",
            )
            optima.append(best)
    return Chart(
        name="isoflop_curves",
        title="IsoFLOP curves",
        caption="Points are runs, lines parabolas through the runs of a budget, diamonds the "
        "optimal sizes.",
        x_label="parameters",
        y_label="loss, nats per token",
        # The optima come last: they are drawn on top, and end the legend.
        marks=marks + optima,
        log_x=True,
    )


def _optima(fit: Any, colours: dict[float, str]) -> Chart:
    marks = _diamonds(fit, colours, "params")
    if np.isfinite(fit.params["params_exponent"]):
        x = spaced(min(colours), LOOK_AHEAD * max(colours))
        marks += predicted("N*(C)", LAW_COLOUR, x, lambda c: fit.predict(flops=c))
    return Chart(
        name="optimal_sizes",
        title="Optimal size against compute",
        caption="Diamonds are the optima of the budgets, the line the power law through them, and "
        "the band its 95% interval.",
        x_label="training FLOPs",
        y_label="optimal parameters N*",
        marks=marks,
        log_x=True,
        log_y=True,
    )


def _frontier(fit: Any, colours: dict[float, str]) -> Chart:
    marks = _diamonds(fit, colours, "loss")
    if np.isfinite(fit.params["E"]) and np.isfinite(fit.params["params_exponent"]):
        x = spaced(min(colours), LOOK_AHEAD * max(colours))
        marks += predicted("L*(C)", LAW_COLOUR, x, fit.optimal_loss)
    return Chart(
        name="optimal_losses",
        title="Loss of the optimum against compute",
        caption="Diamonds are the losses of the optimal sizes, the line is L*(C) = E + K C^-g, and "
        "the band its 95% interval.",
        x_label="training FLOPs",
        y_label="loss of the optimum, nats per token",
        marks=marks,
        log_x=True,
    )


def _diamonds(fit: Any, colours: dict[float, str], what: str) -> list[Mark]:
    """The optima of the budgets, by their params or loss."""
    return [
        Points(
            label=in_words(budget.flops, "FLOPs"),
            colour=colours[budget.flops],
            x=np.array([budget.flops]),
            y=np.array([getattr(budget, what)]),
            symbol="diamond",
            in_legend=False,
        )
        for budget in fit.optima
    ]
