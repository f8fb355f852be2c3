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
from scalejax.fitting.tables import PARAMS_COLUMN
from scalejax.report.record import Row
from scalejax.report.summary import metric_name

if TYPE_CHECKING:
    import pandas as pd

    from scalejax.fitting.result import Fit

# Points of a fitted line.
LINE_POINTS = 32

# Points of a training loss curve at most, so that thousands of steps do not slow the
# page.
CURVE_POINTS = 100

# Factor in tokens between neighbouring sizes of one budget in a residual plot, so that
# their error bars do not hide each other.
SIZE_OFFSET = 1.012

# Label of an axis of held-out losses.
LOSS_LABEL = "held-out loss, nats per token"


def loss_curves(
    curves: "pd.DataFrame", results: "pd.DataFrame", colours: Mapping[float, str]
) -> Chart:
    """Training and held-out loss of every run against tokens."""
    marks: list[Mark] = []
    curves = curves.loc[curves["weights"] == "raw", :]
    # Diverged runs come last, and are drawn on top.
    order = results.assign(diverged=results["status"] == "diverged")
    order = order.sort_values(["diverged", PARAMS_COLUMN, "tokens"])
    for row in order.to_dict("records"):
        rows = curves.loc[curves["run"] == row["run"], :]
        label = "diverged" if row["diverged"] else f"{compact_number(row[PARAMS_COLUMN])} params"
        colour = ALARM if row["diverged"] else colours[row[PARAMS_COLUMN]]
        tokens, loss = _average_in_windows(rows.dropna(subset=["train_loss"]), "train_loss")
        line = Line(
            label=label,
            colour=colour,
            x=tokens,
            y=loss,
            width=1.1,
            dashed=row["diverged"],
            hover=f"{run_facts(row)}<br>training loss %{{y:.4f}} at %{{x:.4s}} tokens",
        )
        marks += [line, _held_out_losses(row, rows, label, colour)]
    return Chart(
        name="loss_curves",
        title="Loss curves",
        caption="Lines show the training loss, averaged over windows of equal width in log "
        "tokens. Points show the held-out loss. Colours are model sizes.",
        x_label="training tokens",
        y_label="loss, nats per token",
        marks=_drawable(marks),
        log_x=True,
        y_range=_range_without_diverged(curves, results),
    )


def law_lines(
    fit: "Fit",
    rows: "pd.DataFrame",
    forecast_runs: "pd.DataFrame",
    colours: Mapping[float, str],
) -> Chart:
    """Loss against tokens for every size: measured points, fitted lines and 95% bands.

    `forecast_runs`, which were not fitted, have dashed lines.
    """
    all_tokens = np.concatenate([_array(rows["tokens"]), _array(forecast_runs["tokens"])])
    tokens = np.geomspace(all_tokens.min() / 1.08, all_tokens.max() * 1.08, LINE_POINTS)
    marks: list[Mark] = []
    for group in _groups_by_size(rows, forecast_runs, colours):
        params = float(group.rows[_params_column(fit)].iloc[0])
        line = predict_all(fit, [{"params": params, "tokens": at} for at in tokens])
        band = Band(label=group.label, colour=group.colour, x=tokens, low=line.low, high=line.high)
        fitted = Line(
            label=group.label,
            colour=group.colour,
            x=tokens,
            y=line.value,
            dashed=group.is_forecast,
            in_legend=False,
        )
        marks += [band, fitted]
        marks.append(_points(group, "tokens", "loss"))
    marks = _drawable(marks)
    caption = "Points are measured losses and lines are the fitted law."
    if any(isinstance(mark, Band) for mark in marks):
        caption += " Bands are where 95% of runs should fall if the law holds."
    if len(forecast_runs):
        caption += " Dashed lines and diamonds are runs that were not used in the fit."
    return Chart(
        name=f"law_{fit.law.name}",
        title=f"Loss against tokens, by size, with the {fit.law.name} law",
        caption=caption,
        x_label="training tokens",
        y_label=LOSS_LABEL,
        marks=marks,
        log_x=True,
        height=480,
    )


def residuals(
    fit: "Fit",
    rows: "pd.DataFrame",
    forecast_runs: "pd.DataFrame",
    colours: Mapping[float, str],
) -> Chart:
    """Measured minus fitted loss against tokens, by size."""
    marks: list[Mark] = []
    groups = list(_groups_by_size(rows, forecast_runs, colours))
    for i, group in enumerate(groups):
        sizes_and_tokens = zip(group.rows[_params_column(fit)], group.rows["tokens"], strict=True)
        inputs = [{"params": params, "tokens": tokens} for params, tokens in sizes_and_tokens]
        fitted = predict_all(fit, inputs)
        with_residuals = group.rows.assign(
            residual=group.rows["loss"] - fitted.value,
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


def run_facts(row: Row) -> str:
    """Run id, size and budget of a row of the results table, in HTML."""
    params, tokens = compact_number(row[PARAMS_COLUMN]), compact_number(row["tokens"])
    return f"{row['run']}<br>{params} params, {tokens} tokens"


def _held_out_losses(row: Row, rows: "pd.DataFrame", label: str, colour: str) -> Points:
    """The held-out losses of a run."""
    measured = rows.loc[np.isfinite(rows["loss"]), :]
    tokens, losses = _array(measured["tokens"]), _array(measured["loss"])
    hover = [
        f"{run_facts(row)}<br>held-out loss {loss:.4f} at {compact_number(at)} tokens"
        for at, loss in zip(tokens, losses, strict=True)
    ]
    return Points(label=label, colour=colour, x=tokens, y=losses, hover=hover)


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
    hover = [
        f"{run_facts(row)}<br>{metric_name(y)} {row[y]:.4f}" for row in rows.to_dict("records")
    ]
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


def _average_in_windows(rows: "pd.DataFrame", column: str) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, mean of a column) in at most CURVE_POINTS windows of log tokens."""
    tokens, values = _array(rows["tokens"]), _array(rows[column])
    is_drawable = np.isfinite(values) & (tokens > 0)
    tokens, values = tokens[is_drawable], values[is_drawable]
    if len(tokens) <= CURVE_POINTS:
        return tokens, values
    edges = np.geomspace(tokens.min(), tokens.max(), CURVE_POINTS + 1)
    # Rounding may put the first or the last token outside the edges.
    window = np.clip(np.searchsorted(edges, tokens, side="right"), 1, CURVE_POINTS)
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
