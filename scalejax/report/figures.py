"""Figures of runs and laws: which marks are in which chart."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from scalejax.fitting.charts.chart import (
    ALARM,
    QUIET,
    Band,
    Chart,
    Line,
    Mark,
    Points,
    compact_number,
)
from scalejax.fitting.parametric.evaluate import evaluate
from scalejax.fitting.tables import PARAMS_COLUMN
from scalejax.report.record import Row
from scalejax.report.summary import metric_name

if TYPE_CHECKING:
    import pandas as pd

    from scalejax.fitting.parametric.result import ParametricFit
    from scalejax.fitting.result import Fit

# Points of a fitted line.
LINE_POINTS = 32

# Points of a training loss curve, and of all of them, at most: thousands of steps or
# hundreds of runs must not slow the page.
CURVE_POINTS, ALL_CURVE_POINTS = 100, 3000

# More held-out losses than this are drawn as small points, so that they leave the lines
# to be seen.
FEW_LOSSES = 300

# Label of the horizontal axis, and name of the view, by the column that it shows.
BUDGETS = {"tokens": ("training tokens", "tokens"), "flops": ("training FLOPs", "FLOPs")}
Budget = Literal["tokens", "flops"]

# Factor in tokens between neighbouring sizes of one budget in a residual plot, so that
# their error bars do not hide each other.
SIZE_OFFSET = 1.012

# Label of an axis of held-out losses.
LOSS_LABEL = "held-out loss, nats per token"


def loss_curves(
    curves: "pd.DataFrame",
    results: "pd.DataFrame",
    colours: Mapping[float, str],
    against: Budget = "tokens",
) -> Chart:
    """Training and held-out loss of every run against tokens or FLOPs."""
    marks: list[Mark] = []
    points = int(np.clip(ALL_CURVE_POINTS // max(1, len(results)), 10, CURVE_POINTS))
    curves = curves.loc[curves["weights"] == "raw", :]
    # Diverged runs come last, and are drawn on top.
    order = results.assign(diverged=results["status"] == "diverged")
    order = order.sort_values(["diverged", PARAMS_COLUMN, "tokens"])
    losses = np.isfinite(_array(curves["loss"])).sum()
    diameter = 4.5 if losses <= FEW_LOSSES else 2.0
    for row in order.to_dict("records"):
        rows = curves.loc[curves["run"] == row["run"], :]
        label = "diverged" if row["diverged"] else f"{compact_number(row[PARAMS_COLUMN])} params"
        colour = ALARM if row["diverged"] else colours[row[PARAMS_COLUMN]]
        trained = rows.dropna(subset=["train_loss"])
        tokens, loss = _average_in_windows(trained, "train_loss", points)
        scale = _per_token(row, against)
        line = Line(
            label=label,
            colour=colour,
            x=tokens * scale,
            y=loss,
            width=1.1,
            dashed=row["diverged"],
            hover=row["facts"],
        )
        marks += [line, _held_out_losses(row, rows, line, scale, diameter)]
    x_label, view = BUDGETS[against]
    return Chart(
        name="loss_curves" + _suffix(against),
        title="Loss curves",
        caption="Lines show the training loss, averaged over windows of equal width in log "
        "tokens. Points show the held-out loss. Colours are model sizes.",
        x_label=x_label,
        y_label="loss, nats per token",
        marks=_drawable(marks),
        log_x=True,
        y_range=_range_without_diverged(curves, results),
        view=view,
    )


def law_lines(
    fit: "Fit",
    rows: "pd.DataFrame",
    forecast_runs: "pd.DataFrame",
    colours: Mapping[float, str],
    budgets: Sequence[Budget] = ("tokens",),
) -> list[Chart]:
    """Loss of every size against each budget: points, fitted lines and 95% bands.

    `forecast_runs`, which were not fitted, have dashed lines.
    """
    all_tokens = np.concatenate([_array(rows["tokens"]), _array(forecast_runs["tokens"])])
    tokens = np.geomspace(all_tokens.min() / 1.08, all_tokens.max() * 1.08, LINE_POINTS)
    groups = list(_groups_by_size(rows, forecast_runs, colours))
    # Predictions with intervals take most of a report's time: all views show the same.
    lines = []
    for group in groups:
        params = float(group.rows[_params_column(fit)].iloc[0])
        lines.append(predict_all(fit, [{"params": params, "tokens": at} for at in tokens]))
    return [_law_chart(fit.law.name, groups, tokens, lines, budget) for budget in budgets]


def _law_chart(
    law: str,
    groups: "Sequence[_Group]",
    tokens: np.ndarray,
    lines: "Sequence[Predictions]",
    against: Budget,
) -> Chart:
    """The groups and their fitted lines at these tokens, against a budget."""
    marks: list[Mark] = []
    for group, line in zip(groups, lines, strict=True):
        x = tokens * float(np.mean(_per_token(group.rows, against)))
        band = Band(label=group.label, colour=group.colour, x=x, low=line.low, high=line.high)
        fitted = Line(
            label=group.label,
            colour=group.colour,
            x=x,
            y=line.value,
            dashed=group.is_forecast,
            in_legend=False,
        )
        marks += [band, fitted]
        marks.append(_points(group, against, "loss"))
    marks = _drawable(marks)
    x_label, view = BUDGETS[against]
    caption = "Points are measured losses and lines are the fitted law."
    if any(isinstance(mark, Band) for mark in marks):
        caption += " Bands are where 95% of runs should fall if the law holds."
    if any(group.is_forecast for group in groups):
        caption += " Dashed lines and diamonds are runs that were not used in the fit."
    return Chart(
        name=f"law_{law}{_suffix(against)}",
        title=f"Loss against {view}, by size, with the {law} law",
        caption=caption,
        x_label=x_label,
        y_label=LOSS_LABEL,
        marks=marks,
        log_x=True,
        height=480,
        view=view,
    )


def collapsed(
    fit: "ParametricFit",
    rows: "pd.DataFrame",
    forecast_runs: "pd.DataFrame",
    colours: Mapping[float, str],
) -> Chart:
    """Measured against fitted loss. A good law puts all sizes onto the diagonal."""
    marks: list[Mark] = []
    for group in _groups_by_size(rows, forecast_runs, colours):
        placed = group.rows.assign(fitted=fitted_losses(fit, group.rows))
        marks.append(_points(group._replace(rows=placed), "fitted", "loss"))
    marks = _drawable(marks)
    if marks:
        fitted = np.concatenate([mark.x for mark in marks])
        ends = np.array([fitted.min(), fitted.max()])
        diagonal = Line(label="measured = fitted", colour=QUIET, x=ends, y=ends, width=1.0)
        marks = [*marks, diagonal]
    return Chart(
        name=f"law_{fit.law.name}_collapsed",
        title=f"Measured loss against that of the {fit.law.name} law",
        caption="A law that describes every size puts all runs on the diagonal. Diamonds are "
        "runs that were not used in the fit. Bars are standard errors of the measurement.",
        x_label="fitted loss, nats per token",
        y_label=LOSS_LABEL,
        marks=marks,
        height=480,
        view="all sizes collapsed",
    )


def residuals(
    fit: "ParametricFit",
    rows: "pd.DataFrame",
    forecast_runs: "pd.DataFrame",
    colours: Mapping[float, str],
) -> Chart:
    """Measured minus fitted loss against tokens, by size."""
    marks: list[Mark] = []
    groups = list(_groups_by_size(rows, forecast_runs, colours))
    for i, group in enumerate(groups):
        with_residuals = group.rows.assign(
            residual=group.rows["loss"] - fitted_losses(fit, group.rows),
            residual_se=group.rows.get("loss_se", np.nan),
        )
        shift = SIZE_OFFSET ** (i - (len(groups) - 1) / 2)
        marks.append(_points(group._replace(rows=with_residuals), "tokens", "residual", shift))
    return Chart(
        name=f"residuals_{fit.law.name}",
        title=f"Residuals of the {fit.law.name} law",
        caption="Measured minus fitted loss. Bars are standard errors of the measurement; all "
        "runs are measured on the same held-out text, so they share part of this error. Sizes "
        "are drawn side by side. A trend along tokens or size means that the law does not fit; "
        "it is not noise.",
        x_label="training tokens",
        y_label="measured − fitted, nats per token",
        marks=_drawable(marks),
        log_x=True,
        reference=(0.0, ""),
        height=360,
    )


def error_curve(
    fit: "Fit | None",
    rows: "pd.DataFrame",
    forecast_runs: Sequence[str],
    chance_error: float | None,
    colours: Mapping[float, str],
) -> Chart:
    """Top-1 error against loss, with the fitted curve and the error of guessing.

    `forecast_runs` are the ids of the runs that no law was fitted to.
    """
    marks: list[Mark] = []
    caption = "Each point is a run with its standard errors; diamonds are forecast runs."
    if chance_error is not None:
        caption += " The dashed line is the error of guessing."
    if fit is not None:
        space = 0.1 * (np.ptp(rows["loss"]) or 1.0)
        losses = np.linspace(rows["loss"].min() - space, rows["loss"].max() + space, LINE_POINTS)
        curve = predict_all(fit, [{"loss": loss} for loss in losses])
        # An error is a fraction, so the curve and its band stay between 0 and 1.
        value, low, high = (np.clip(edge, 0, 1) for edge in curve)
        label = "fitted law"
        marks.append(Band(label=label, colour=QUIET, x=losses, low=low, high=high))
        marks.append(Line(label=label, colour=QUIET, x=losses, y=value))
        caption += " The curve is the fitted law."
        if np.isfinite([low, high]).all():
            caption += " The band is where 95% of runs should fall if the law holds."
    is_forecast = rows["run"].isin(forecast_runs)
    groups = _groups_by_size(rows.loc[~is_forecast, :], rows.loc[is_forecast, :], colours)
    marks += [_points(group, "loss", "top1_error") for group in groups]
    reference = None if chance_error is None else (chance_error, f"chance {chance_error:.2f}")
    return Chart(
        name="error_against_loss",
        title="Top-1 error against loss",
        caption=caption,
        x_label=LOSS_LABEL,
        y_label="top-1 error",
        marks=_drawable(marks),
        reference=reference,
    )


class Predictions(NamedTuple):
    """Predictions with their intervals; NaN where the fit cannot bound one."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def predict_all(fit: "Fit", points: Iterable[Mapping[Any, Any]]) -> Predictions:
    """Predictions of a fit at points that have at least the inputs of its law."""
    estimates = []
    for point in points:
        inputs = {name: float(point[name]) for name in fit.law.inputs}
        estimates.append(fit.predict(**inputs))
    return Predictions(
        value=_array([estimate.value for estimate in estimates]),
        low=_array([estimate.low for estimate in estimates]),
        high=_array([estimate.high for estimate in estimates]),
    )


def fitted_losses(fit: "ParametricFit", rows: "pd.DataFrame") -> np.ndarray:
    """The losses that a law of size and tokens gives to runs, (rows,)."""
    columns = {"params": _params_column(fit), "tokens": "tokens"}
    return evaluate(fit.law, fit.params, [_array(rows[columns[it]]) for it in fit.law.inputs])


def _suffix(against: Budget) -> str:
    """What the name of a chart against this budget ends with."""
    return "" if against == "tokens" else f"_{against}"


def _per_token(rows: Any, against: Budget) -> Any:
    """FLOPs per token of a row or of a table; 1 where the axis shows tokens."""
    return 1.0 if against == "tokens" else rows["flops"] / rows["tokens"]


def _held_out_losses(
    row: Row, rows: "pd.DataFrame", line: Line, scale: float, diameter: float
) -> Points:
    """The held-out losses of a run, in the colour of its line."""
    measured = rows.loc[np.isfinite(rows["loss"]), :]
    tokens, losses = _array(measured["tokens"]), _array(measured["loss"])
    hover = [
        f"{row['facts']}\nheld-out loss {loss:.4f} at {compact_number(at)} tokens"
        for at, loss in zip(tokens, losses, strict=True)
    ]
    return Points(
        label=line.label,
        colour=line.colour,
        x=tokens * scale,
        y=losses,
        diameter=diameter,
        hover=hover,
    )


def _range_without_diverged(
    curves: "pd.DataFrame", results: "pd.DataFrame"
) -> tuple[float, float] | None:
    """The range of the losses of converged runs; those of others may be anywhere.

    None when no run diverged, or when every run did.
    """
    diverged_runs = results.loc[results["status"] == "diverged", "run"]
    is_diverged = np.asarray(curves["run"].isin(diverged_runs))
    losses = curves[["train_loss", "loss"]].to_numpy(float)[~is_diverged]
    losses = losses[np.isfinite(losses)]
    if not is_diverged.any() or not len(losses):
        return None
    space = 0.05 * np.ptp(losses) or 0.1
    return float(losses.min() - space), float(losses.max() + space)


class _Group(NamedTuple):
    """Runs of one size that are drawn alike."""

    label: str
    colour: str
    rows: "pd.DataFrame"
    is_forecast: bool

    @property
    def symbol(self) -> Literal["circle", "diamond"]:
        return "diamond" if self.is_forecast else "circle"


def _groups_by_size(
    rows: "pd.DataFrame", forecast_runs: "pd.DataFrame", colours: Mapping[float, str]
) -> Iterator[_Group]:
    """The sizes of the fitted runs, then those of the forecast runs, ascending."""
    for table, is_forecast in ((rows, False), (forecast_runs, True)):
        for params in sorted(set(table[PARAMS_COLUMN])):
            label = f"{compact_number(params)} params" + (", forecast" if is_forecast else "")
            members = table.loc[table[PARAMS_COLUMN] == params, :]
            yield _Group(label, colours[params], members, is_forecast)


def _points(group: _Group, x: str, y: str, shift: float = 1.0) -> Points:
    """The runs of a group as points, with error bars if the table has standard errors.

    Positions along x are multiplied by `shift`.
    """
    rows = group.rows
    hover = [f"{row['facts']}\n{metric_name(y)} {row[y]:.4f}" for row in rows.to_dict("records")]
    return Points(
        label=group.label,
        colour=group.colour,
        x=_array(rows[x]) * shift,
        y=_array(rows[y]),
        x_error=_array(rows[f"{x}_se"]) if f"{x}_se" in rows else None,
        y_error=_array(rows[f"{y}_se"]) if f"{y}_se" in rows else None,
        symbol=group.symbol,
        hover=hover,
    )


def _params_column(fit: "Fit") -> str:
    """The count of parameters that a fit was made with."""
    return fit.columns.get("params", PARAMS_COLUMN)


def _average_in_windows(
    rows: "pd.DataFrame", column: str, windows: int
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, mean of a column) in at most so many windows of log tokens."""
    tokens, values = _array(rows["tokens"]), _array(rows[column])
    is_drawable = np.isfinite(values) & (tokens > 0)
    tokens, values = tokens[is_drawable], values[is_drawable]
    if len(tokens) <= windows:
        return tokens, values
    edges = np.geomspace(tokens.min(), tokens.max(), windows + 1)
    # Rounding may put the first or the last token outside the edges.
    window = np.clip(np.searchsorted(edges, tokens, side="right"), 1, windows)
    counts = np.bincount(window)
    used = counts > 0
    mean_log_tokens = np.bincount(window, np.log(tokens))[used] / counts[used]
    return np.exp(mean_log_tokens), np.bincount(window, values)[used] / counts[used]


def _drawable(marks: list[Mark]) -> list[Mark]:
    """The marks that are not empty, without bands that are open on a side."""
    return [mark for mark in marks if len(mark.x) and not _is_open_band(mark)]


def _is_open_band(mark: Mark) -> bool:
    if not isinstance(mark, Band):
        return False
    return not (np.isfinite(mark.low).all() and np.isfinite(mark.high).all())


def _array(values: Any) -> np.ndarray:
    return np.asarray(values, float)
